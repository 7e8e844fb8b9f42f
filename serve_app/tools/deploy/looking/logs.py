"""Logs of pods and of Serve's replicas, side by side, each line with where it is from."""

import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import urllib3

from serve_app.errors import ConfigurationError, NotFoundError, ServeAppError, UnavailableError
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import RAY_API, Target
from serve_app.tools.deploy.looking.dashboard import Dashboard, replica_logs
from serve_app.tools.deploy.looking.observing import pod_of

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """Which logs, and how much of them."""

    group: str | None = None
    container: str | None = None
    deployment: str | None = None
    follow: bool = False
    previous: bool = False
    tail: int = 100


@dataclass(frozen=True, slots=True)
class Source:
    pod: str
    container: str
    several: bool

    @property
    def prefix(self) -> str:
        return f"{self.pod}/{self.container}" if self.several else self.pod


def show_logs(objects: Objects, target: Target, wish: Wish) -> int:
    """0 where there was a log to read."""
    streams = _of_deployment(objects, target, wish) if wish.deployment else _of_pods(objects, target, wish)
    return 0 if print_together(streams) else 1


def _of_pods(objects: Objects, target: Target, wish: Wish) -> dict[str, Iterator[str]]:
    sources = sources_of(objects.list("v1", "Pod", target.namespace), target, wish)
    return {source.prefix: _lines(objects, target, source, wish) for source in sources}


def sources_of(items: Iterable[Content], target: Target, wish: Wish) -> list[Source]:
    pods = [one for one in items if target.owns(one)]
    if not pods:
        raise NotFoundError(f"{target} has no pods; scripts/deploy status says why")
    groups = {one["metadata"]["name"]: pod_of(one, lambda *_: ()).group for one in pods}
    if wish.group and wish.group not in groups.values():
        raise NotFoundError(f"no pods of group {wish.group!r}; there are {', '.join(sorted(set(groups.values())))}")
    found = []
    for pod in pods:
        name = pod["metadata"]["name"]
        if wish.group in (None, groups[name]):
            containers = [one["name"] for one in _containers(pod, bool(wish.container))]
            chosen = [one for one in containers if wish.container in (None, one)]
            found += [Source(name, one, len(chosen) > 1) for one in chosen]
    if not found:
        known = sorted({one["name"] for pod in pods for one in _containers(pod, True)})
        raise NotFoundError(f"no container {wish.container!r} in these pods; there are {', '.join(known)}")
    return found


def _containers(pod: Content, with_init: bool) -> list[Content]:
    spec = pod.get("spec") or {}
    return [*(spec.get("containers") or []), *((spec.get("initContainers") or []) if with_init else [])]


def _lines(objects: Objects, target: Target, source: Source, wish: Wish) -> Iterator[str]:
    path = objects.kind("v1", "Pod").path(target.namespace, source.pod) + "/log"
    query: dict[str, str | int | bool] = {"container": source.container, "tailLines": wish.tail}
    query |= {"follow": True} if wish.follow else {}
    query |= {"previous": True} if wish.previous else {}
    answer = objects.connection.stream(path, query)
    try:
        yield from lines_of(answer.stream(65536))
    except urllib3.exceptions.HTTPError:
        raise UnavailableError("the log breaks off: the connection to the cluster was lost") from None
    finally:
        answer.close()


def _of_deployment(objects: Objects, target: Target, wish: Wish) -> dict[str, Iterator[str]]:
    if wish.previous or wish.container or wish.group:
        raise ConfigurationError(
            "--deployment reads the logs of Serve's replicas: leave --group, --container, --previous out"
        )
    service = objects.get(RAY_API, "RayService", target.name, target.namespace) or {}
    cluster = ((service.get("status") or {}).get("activeServiceStatus") or {}).get("rayClusterName")
    if not cluster:
        raise UnavailableError(f"{target} has no cluster that serves; scripts/deploy status says why")
    dashboard = Dashboard(objects, target, cluster)
    found = replica_logs(dashboard.applications(), str(wish.deployment))
    timeout_s = None if wish.follow else 30.0
    return {one.replica: lines_of(dashboard.read(one.path(wish.tail, wish.follow), timeout_s)) for one in found}


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines of what comes in any pieces."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
    if rest:
        yield rest.decode("utf-8", "replace")


def print_together(streams: dict[str, Iterator[str]]) -> bool:
    """One thread a log; whether any could be read."""
    read: list[str] = []
    lock = threading.Lock()

    def copy(prefix: str, lines: Iterator[str]) -> None:
        try:
            for line in lines:
                with lock:
                    print(f"[{prefix}] {line}", flush=True)
            read.append(prefix)
        except ServeAppError as problem:
            with lock:
                print(f"[{prefix}] no log: {problem}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=copy, args=pair, daemon=True) for pair in streams.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return bool(read)
