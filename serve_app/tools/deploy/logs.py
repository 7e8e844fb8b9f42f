"""Logs of pods and of Serve replicas, interleaved, each line prefixed with its source."""

import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import urllib3

from serve_app.errors import ConfigurationError, NotFoundError, ServeAppError, UnavailableError
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.api.tunnel import active_cluster
from serve_app.tools.deploy.dashboard import Dashboard, replica_logs
from serve_app.tools.deploy.status.read import pod_of

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogOptions:
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


def print_logs(objects: Objects, target: Target, options: LogOptions) -> int:
    """0 if at least one log could be read."""
    streams = _of_deployment(objects, target, options) if options.deployment else _of_pods(objects, target, options)
    return 0 if print_interleaved(streams) else 1


def _of_pods(objects: Objects, target: Target, options: LogOptions) -> dict[str, Iterator[str]]:
    sources = sources_of(objects.list("v1", "Pod", target.namespace), target, options)
    return {source.prefix: _lines(objects, target, source, options) for source in sources}


def sources_of(items: Iterable[Content], target: Target, options: LogOptions) -> list[Source]:
    pods = [one for one in items if target.owns(one)]
    if not pods:
        raise NotFoundError(f"{target} has no pods; see scripts/deploy status")
    groups = {one["metadata"]["name"]: pod_of(one, lambda *_: ()).group for one in pods}
    if options.group and options.group not in groups.values():
        raise NotFoundError(f"no pods of group {options.group!r}; groups: {', '.join(sorted(set(groups.values())))}")
    found = []
    for pod in pods:
        name = pod["metadata"]["name"]
        if options.group in (None, groups[name]):
            containers = [one["name"] for one in _containers(pod, bool(options.container))]
            chosen = [one for one in containers if options.container in (None, one)]
            found += [Source(name, one, len(chosen) > 1) for one in chosen]
    if not found:
        known = sorted({one["name"] for pod in pods for one in _containers(pod, True)})
        raise NotFoundError(f"no container {options.container!r} in these pods; containers: {', '.join(known)}")
    return found


def _containers(pod: Content, with_init: bool) -> list[Content]:
    spec = pod.get("spec") or {}
    return [*(spec.get("containers") or []), *((spec.get("initContainers") or []) if with_init else [])]


def _lines(objects: Objects, target: Target, source: Source, options: LogOptions) -> Iterator[str]:
    path = objects.kind("v1", "Pod").path(target.namespace, source.pod) + "/log"
    query: dict[str, str | int | bool] = {"container": source.container, "tailLines": options.tail}
    query |= {"follow": True} if options.follow else {}
    query |= {"previous": True} if options.previous else {}
    answer = objects.connection.stream(path, query)
    try:
        yield from lines_of(answer.stream(65536))
    except urllib3.exceptions.HTTPError:
        raise UnavailableError("the connection to the cluster was lost") from None
    finally:
        answer.close()


def _of_deployment(objects: Objects, target: Target, options: LogOptions) -> dict[str, Iterator[str]]:
    if options.previous or options.container or options.group:
        raise ConfigurationError("--deployment can't be combined with --group, --container or --previous")
    cluster = active_cluster(objects, target)
    if not cluster:
        raise UnavailableError(f"{target} has no active cluster; see scripts/deploy status")
    dashboard = Dashboard(objects, target, cluster)
    found = replica_logs(dashboard.applications(), str(options.deployment))
    timeout_s = None if options.follow else 30.0
    return {one.replica: lines_of(dashboard.read(one.path(options.tail, options.follow), timeout_s)) for one in found}


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines from chunks of any size."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
    if rest:
        yield rest.decode("utf-8", "replace")


def print_interleaved(streams: dict[str, Iterator[str]]) -> bool:
    """Copies each log in its own thread; returns whether any could be read."""
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
                print(f"[{prefix}] error: {problem}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=copy, args=pair, daemon=True) for pair in streams.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return bool(read)
