"""The service, started by `scripts/serve` with the configuration that a comparison needs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serve_app.settings import PROJECT_ROOT, application_of, read_config, settings_of
from serve_app.tools.bench.baselines import bare_serve
from serve_app.tools.bench.baselines.processes import LOGS, free_port, log_of, running
from serve_app.tools.export.repository import build_repository

MODELS = PROJECT_ROOT / "model_repository" / "bench"
Config = dict[str, Any]
IDENTITY: Config = {"name": "identity", "max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0.1}}
PACED: Config = {"name": "paced", "max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0.05}}
Change = Callable[[Config], None]


@dataclass(frozen=True, slots=True)
class RunningService:
    url: str
    pid: int


def serve_detection(config: Config) -> None:
    """Without language models, and with the identity model in a deployment of its own."""
    remove_deployments(config, "playground")
    (application,) = config["applications"]
    application["args"]["llms"] = []
    add_model(config, IDENTITY)


def serve_language_models(config: Config) -> None:
    """Without pictures; the router hosts the model where the committed configuration hosts pictures there."""
    application = application_of(config)
    hosted = router_of(application).get("hosts")
    serve_no_pictures(config)
    application["args"]["triton"] = []
    if hosted:
        router_of(application)["hosts"] = application["args"]["llms"][0]["name"]
        application["deployments"] = [one for one in application["deployments"] if one["name"] != "router"]


def serve_identity(config: Config) -> None:
    """The identity model alone, hosted by the router where the committed configuration hosts pictures there."""
    (application,) = config["applications"]
    hosted = router_of(application).get("hosts")
    serve_no_pictures(config)
    application["args"] |= {"llms": [], "triton": []}
    add_model(config, IDENTITY)
    if hosted:
        router_of(application)["hosts"] = application["deployments"].pop()["name"]


def serve_identity_beside_bare_serve(config: Config) -> None:
    serve_identity(config)
    add_bare_serve(config)


def add_bare_serve(config: Config) -> None:
    """Beside the service, behind the same HAProxy."""
    bare = {"name": "bare", "route_prefix": bare_serve.PATH, "import_path": bare_serve.IMPORT_PATH}
    config["applications"].append(bare)


def serve_no_pictures(config: Config) -> None:
    remove_deployments(config, "playground", "baseline", "vision")
    (application,) = config["applications"]
    if router_of(application).pop("hosts", None):  # what scaled by the queue of pictures scales by requests
        (router,) = [one for one in application["deployments"] if one["name"] == "router"]
        router["autoscaling_config"] = {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 128}


def give_pictures_a_deployment(config: Config) -> None:
    """Where the router hosts them: a request for pictures goes from it to a replica, and they share its processor."""
    (application,) = config["applications"]
    hosted = router_of(application).pop("hosts")
    (router,) = [one for one in application["deployments"] if one["name"] == "router"]
    share = {"num_cpus": router["ray_actor_options"]["num_cpus"] / 2}
    pictures = {"name": hosted, "max_ongoing_requests": 256, "ray_actor_options": share}
    application["deployments"].append(pictures | {"autoscaling_config": router.pop("autoscaling_config")})
    router |= {"num_replicas": 1, "ray_actor_options": dict(share)}


def router_of(application: Config) -> Config:
    """The settings of the router, which a configuration may leave out."""
    return application["args"].setdefault("router", {})  # type: ignore[no-any-return]


def remove_deployments(config: Config, *names: str) -> None:
    (application,) = config["applications"]
    application["args"] |= {name: None for name in names if name in application["args"]}
    application["deployments"] = [one for one in application["deployments"] if one["name"] not in names]


def add_model(config: Config, deployment: dict[str, Any]) -> None:
    """Serve a model of model_repository/bench in a deployment of the same name."""
    (application,) = config["applications"]
    name = deployment["name"]
    application["args"]["triton"].append({"name": name, "model_repository": str(MODELS), "models": [name]})
    application["deployments"].append(deployment)


def write_config(source: Path, name: str, change: Change | None = None) -> tuple[Path, str]:
    """Write the configuration with free ports; returns its path and the address of the service."""
    config = read_config(source)
    http_port = free_port()
    config["http_options"] = {"host": "127.0.0.1", "port": http_port}
    config["grpc_options"]["port"] = free_port()
    arguments = application_of(config)["args"]
    if arguments.get("playground"):
        arguments["playground"]["service_url"] = f"http://127.0.0.1:{http_port}"
    config["logging_config"] = {"enable_access_log": False}  # the baselines write none either
    if change:
        change(config)
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path, f"http://127.0.0.1:{http_port}"


def build_in_precision(
    source: Path, precision: str, report: Callable[[str], None], folder: Path = PROJECT_ROOT / "build"
) -> Path:
    """A copy of a configuration whose engines, built in a repository of their own, compute in this precision."""
    config = read_config(source)
    detection = application_of(config)["args"].setdefault("detection", {})
    detection["model_repository"] = str(folder / f"models-{precision}")
    for model in detection.setdefault("models", {"nano": {}}).values():
        model["precision"] = precision
    build_repository(settings_of(config).detection, report)
    path = folder / f"{source.stem}.{precision}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@contextmanager
def service(
    source: Path, name: str, change: Change | None = None, ready: Callable[[str], bool] | None = None
) -> Iterator[RunningService]:
    """Yields when the whole service is up, or when `ready` accepts its address."""
    path, url = write_config(source, name, change)
    command = [sys.executable, str(PROJECT_ROOT / "scripts" / "serve"), str(path)]
    with running(name, command, lambda: ready(url) if ready else is_up(log_of(name))) as pid:
        yield RunningService(url, pid)


def is_up(log: Path, lines: int = 1) -> bool:
    """By its log, because another service may answer on the port; the second line is that of what is optional."""
    if not log.is_file():
        return False
    return sum(line.startswith("ready in ") for line in log.read_text(errors="replace").splitlines()) >= lines
