"""Checks before the service starts: the configuration, its models, free ports, shared memory and GPUs."""

import shutil
import socket
from pathlib import Path
from typing import Any

from serve_app.errors import ConfigurationError, near_miss
from serve_app.settings import LanguageModelSettings, Settings, TritonSettings, application_of, read_config, settings_of
from serve_app.telemetry.autoscaling import require_policy
from serve_app.tools.launch.status import DASHBOARD_PORT
from serve_app.triton.plans import Gpu
from serve_app.triton.repository import ModelRepository

DEFAULT_HTTP_PORT = 8000
SHARED_MEMORY = "/dev/shm"


def check_config(path: Path) -> tuple[dict[str, Any], Settings]:
    """Read the file and its settings; raises ConfigurationError for the first mistake."""
    config = read_config(path)
    settings = settings_of(config)
    for name, port in ports_of(config).items():
        require_free(port, name)
    for deployment in settings.triton:
        check_models(deployment, settings)
    for policy in policies_of(config):
        require_policy(policy)
    require_known_deployments(config, settings)
    require_one_playground(config)
    require_free(DASHBOARD_PORT, "Ray's dashboard")
    return config, settings


def check_models(deployment: TritonSettings, settings: Settings) -> None:
    """Every model's config must parse, every ensemble be complete, and /dev/shm have room for the Python models."""
    models = ModelRepository.of(deployment, settings.detection).selected.values()
    instances = sum(deployment.instances.get(model.name, model.instances) for model in models if model.instances)
    needed, free = instances * deployment.shared_memory_mib, shutil.disk_usage(SHARED_MEMORY).free >> 20
    if needed > free:
        raise ConfigurationError(
            f"{SHARED_MEMORY} has {free} MiB free, but the {instances} model instances of {deployment.name} need "
            f"{needed} MiB; enlarge it (in a container: --shm-size, or a memory-backed volume) or serve fewer models"
        )


def require_gpus(config: dict[str, Any], settings: Settings, gpu: Gpu | None) -> None:
    """On a cluster of this machine alone, a deployment that needs a missing GPU would wait forever."""
    shares = {one["name"]: (one.get("ray_actor_options") or {}).get("num_gpus", 0) for one in deployments_of(config)}
    shares |= {model.name: model.num_gpus for model in settings.llms if model.accelerator == "gpu"}
    if names := [name for name, share in shares.items() if share and gpu is None]:
        raise ConfigurationError(
            f"{', '.join(names)} need GPUs (num_gpus), but no NVIDIA GPU is visible; check the driver and "
            "CUDA_VISIBLE_DEVICES"
        )


def policies_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Autoscaling policies under `deployments:`; those of language models are in `args`, which the builder checks."""
    scaling = [one.get("autoscaling_config") for one in deployments_of(config)]
    return [one["policy"] for one in scaling if isinstance(one, dict) and isinstance(one.get("policy"), dict)]


def optional_deployments(settings: Settings) -> frozenset[str]:
    """The playground, and language models where anything else is served: they may become ready later, or fail."""
    playground = {"playground"} if settings.playground else set()
    languages = {model.name for model in settings.separate_llms} if settings.serves_detection else set()
    return frozenset(playground | languages)


def deployments_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for application in config["applications"] for one in application.get("deployments") or ()]


def require_known_deployments(config: dict[str, Any], settings: Settings) -> None:
    """Serve refuses others too, but only after everything has been imported."""
    deployments = {triton.name for triton in settings.separate} | {model.name for model in settings.separate_llms}
    optional = {"baseline": settings.baseline, "playground": settings.playground, "keys": settings.router.keys_file}
    known = sorted(deployments | {"router"} | {name for name, present in optional.items() if present})
    for one in application_of(config).get("deployments") or ():
        name = one.get("name")
        if name == "router" and "ray_actor_options" in one and isinstance(settings.hosted, LanguageModelSettings):
            raise ConfigurationError(
                f"deployments: remove ray_actor_options of router: it runs where {settings.router.hosts} does, which "
                "llms places by num_cpus, num_gpus and resources"
            )
        if name == settings.router.hosts:
            raise ConfigurationError(
                f"deployments: remove {name}: it runs inside the router (router.hosts), so set its options on router"
            )
        if name not in known:
            hint = near_miss(str(name), known, f"available: {', '.join(known)}")
            raise ConfigurationError(f"deployments: no deployment {name!r} is served{hint}")


def require_one_playground(config: dict[str, Any]) -> None:
    """Sessions of the playground live in its process, so a second replica wouldn't know them."""
    for one in deployments_of(config):
        if one.get("name") == "playground" and (one.get("autoscaling_config") or one.get("num_replicas", 1) != 1):
            raise ConfigurationError("deployments: playground must have exactly one replica, which holds its sessions")


def ports_of(config: dict[str, Any]) -> dict[str, int]:
    ports = {"http_options.port": (config.get("http_options") or {}).get("port", DEFAULT_HTTP_PORT)}
    grpc = config.get("grpc_options") or {}
    if grpc.get("grpc_servicer_functions"):
        ports["grpc_options.port"] = grpc.get("port", 9000)
    for name, port in ports.items():
        if not isinstance(port, int) or not 0 < port < 65536:
            raise ConfigurationError(f"{name} must be a port from 1 to 65535, got {port!r}")
    return ports


def require_free(port: int, name: str) -> None:
    """Bind the port as the service will, but without SO_REUSEPORT, with which two services could share it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))
            listener.listen(1)
        except OSError as problem:
            reason = (problem.strerror or str(problem)).lower()
            raise ConfigurationError(f"port {port} ({name}): {reason}; is the service already running?") from None
