"""What can be known to fail before anything starts."""

import shutil
import socket
from pathlib import Path
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.settings import Settings, TritonSettings, read_config, settings_of
from serve_app.telemetry.autoscaling import require_policy
from serve_app.triton.plans import Gpu
from serve_app.triton.repository import ModelRepository

DEFAULT_HTTP_PORT = 8000
DASHBOARD_PORT = 8265
SHARED_MEMORY = "/dev/shm"


def check(path: Path) -> tuple[dict[str, Any], Settings]:
    """The file and its settings, or one ConfigurationError that says what to mend."""
    config = read_config(path)
    settings = settings_of(config)
    for name, port in ports_of(config).items():
        require_free(port, name)
    for deployment in settings.triton:
        check_models(deployment, settings)
    for policy in policies_of(config):
        require_policy(policy)
    require_one_playground(config)
    require_free(DASHBOARD_PORT, "Ray's dashboard")
    return config, settings


def check_models(deployment: TritonSettings, settings: Settings) -> None:
    """Every config parses, every step of an ensemble is there, and /dev/shm has room for the Python models."""
    models = ModelRepository.of(deployment, settings.detection).selected.values()
    instances = sum(deployment.instances.get(model.name, model.instances) for model in models if model.instances)
    needed, free = instances * deployment.shared_memory_mib, shutil.disk_usage(SHARED_MEMORY).free >> 20
    if needed > free:
        raise ConfigurationError(
            f"{SHARED_MEMORY} has {free} MiB free, and the {instances} instances of {deployment.name} need {needed} to "
            "start; enlarge it (in a container: --shm-size, or a memory-backed volume) or serve fewer models"
        )


def require_gpus(config: dict[str, Any], settings: Settings, gpu: Gpu | None) -> None:
    """For a cluster of this machine alone: what asks for a GPU that isn't there would wait for ever."""
    shares = {one["name"]: (one.get("ray_actor_options") or {}).get("num_gpus", 0) for one in deployments_of(config)}
    shares |= {model.name: model.num_gpus for model in settings.llms if model.accelerator == "gpu"}
    if asking := [name for name, share in shares.items() if share and gpu is None]:
        raise ConfigurationError(
            f"{', '.join(asking)} ask for GPUs (num_gpus), and this process sees none of NVIDIA's: is the driver "
            "there, and CUDA_VISIBLE_DEVICES right?"
        )


def policies_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that deployments of the file scale by; language models have theirs in `args`, which the builder checks."""
    scaling = [one.get("autoscaling_config") for one in deployments_of(config)]
    return [one["policy"] for one in scaling if isinstance(one, dict) and isinstance(one.get("policy"), dict)]


def deployments_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for application in config["applications"] for one in application.get("deployments") or ()]


def require_one_playground(config: dict[str, Any]) -> None:
    """Visitors' sessions live in one process, and a second replica would know nothing of them."""
    for one in deployments_of(config):
        if one.get("name") == "playground" and (one.get("autoscaling_config") or one.get("num_replicas", 1) != 1):
            raise ConfigurationError("deployments: the playground has one replica, where its visitors' sessions are")


def ports_of(config: dict[str, Any]) -> dict[str, int]:
    ports = {"http_options.port": (config.get("http_options") or {}).get("port", DEFAULT_HTTP_PORT)}
    grpc = config.get("grpc_options") or {}
    if grpc.get("grpc_servicer_functions"):
        ports["grpc_options.port"] = grpc.get("port", 9000)
    for name, port in ports.items():
        if not isinstance(port, int) or not 0 < port < 65536:
            raise ConfigurationError(f"{name}: {port!r} is no port number")
    return ports


def require_free(port: int, name: str) -> None:
    """Bind as the service will; without SO_REUSEPORT, which would let two of them share."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))
            listener.listen(1)
        except OSError as problem:
            reason = (problem.strerror or str(problem)).lower()
            raise ConfigurationError(f"port {port} ({name}): {reason}; is another run of this service up?") from None
