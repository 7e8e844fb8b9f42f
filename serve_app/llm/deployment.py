"""Serve's options of a language model, checked and built without vLLM, which takes ten seconds to import."""

import inspect
from collections.abc import Collection
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.util.accelerators import accelerators

from serve_app.errors import near_miss
from serve_app.llm.arguments import adapter_arguments, engine_arguments
from serve_app.settings import LanguageModelSettings
from serve_app.telemetry.autoscaling import require_policy

# ray.serve.llm's default is 1e9, with which neither backpressure nor autoscaling ever acts.
MAX_ONGOING_REQUESTS = 64
TARGET_SHARE = 0.75  # target_ongoing_requests as a share of max_ongoing_requests
POLICY = {"policy_function": "serve_app.telemetry.autoscaling:LanguageModelPolicy"}
METRICS_INTERVAL_S = 2.0  # Serve's default of 10 s is as long as the look-back period of a decision
DEPLOYMENT = {
    "max_ongoing_requests": MAX_ONGOING_REQUESTS,
    "max_queued_requests": 256,  # in each router; further requests are answered with 503
    "health_check_period_s": 5,
    "health_check_timeout_s": 10,
    "graceful_shutdown_timeout_s": 60,
    "max_constructor_retry_count": 3,  # each try takes about a minute of CPU time
}
# Name and placement are set from the model's own keys.
DEPLOYMENT_OPTIONS = {
    name
    for name in inspect.signature(serve.deployment).parameters
    if name not in ("_func_or_class", "name", "version") and not name.startswith("placement_group")
}
ACCELERATORS = {value for name, value in vars(accelerators).items() if name.isupper()}
ACCELERATOR_SHARE = 0.001  # of Ray's resource that a node has for its kind of GPU
STORES = ("s3://", "gs://", "abfss://", "azure://")


def require_arguments(settings: LanguageModelSettings) -> None:
    require_known("vLLM argument", settings.engine, engine_arguments())
    for module in settings.engine.get("lora_modules") or ():
        require_known("lora_modules key", module, adapter_arguments())
    if settings.accelerator_type:
        require_known("accelerator_type", [settings.accelerator_type], ACCELERATORS)
    if settings.adapters and not settings.adapters.folder.startswith(STORES):
        raise ValueError(f"adapters.folder must begin with {', '.join(STORES)}, got {settings.adapters.folder!r}")


def require_known(kind: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}{near_miss(name, known)}")


def build_options(settings: LanguageModelSettings) -> dict[str, Any]:
    """Serve's options; the replica's actor takes no CPU of its own, because it runs in its worker's bundle.

    Raises ValueError for every mistake that can be found without vLLM; it finds the others in the replica.
    """
    require_arguments(settings)
    require_known("Ray Serve deployment option", settings.deployment, DEPLOYMENT_OPTIONS)
    options = DEPLOYMENT | settings.deployment
    if options.get("num_replicas", "auto") == "auto":
        options["autoscaling_config"] = build_autoscaling(options.get("autoscaling_config") or {}, options)
    actor: dict[str, Any] = {"num_cpus": 0} | dict(options.get("ray_actor_options") or {})
    runtime_env = actor.get("runtime_env") or {}
    variables = {"env_vars": (runtime_env.get("env_vars") or {}) | build_environment(settings)}
    return options | {
        "ray_actor_options": actor | {"runtime_env": runtime_env | variables},
        "placement_group_bundles": build_bundles(settings, actor),
        "placement_group_strategy": build_placement(settings)["strategy"],
    }


def build_placement(settings: LanguageModelSettings) -> dict[str, Any]:
    """As ray.serve.llm takes it: what each worker needs, all on one node unless the settings allow more."""
    worker = {"CPU": settings.num_cpus} | ({"GPU": settings.num_gpus} if settings.accelerator == "gpu" else {})
    return {
        "bundle_per_worker": worker | settings.resources,
        "strategy": "STRICT_PACK" if settings.nodes == 1 else "PACK",
    }


def build_bundles(settings: LanguageModelSettings, actor: dict[str, Any]) -> list[dict[str, float]]:
    """One for each worker; the actor runs in the first."""
    worker = build_placement(settings)["bundle_per_worker"]
    if settings.accelerator_type:
        worker = {f"accelerator_type:{settings.accelerator_type}": ACCELERATOR_SHARE} | worker
    taken = {"CPU": actor["num_cpus"], "GPU": actor.get("num_gpus", 0), **(actor.get("resources") or {})}
    if "memory" in actor:
        taken["memory"] = actor["memory"]
    first = worker | {name: worker.get(name, 0) + amount for name, amount in taken.items()}
    return [first, *(dict(worker) for _ in range(settings.workers - 1))]


def build_autoscaling(config: Any, options: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise ValueError(f"autoscaling_config must be a mapping, got {config!r}")
    require_known("autoscaling_config key", config, AutoscalingConfig.model_fields)
    most = options["max_ongoing_requests"]
    defaults = {"target_ongoing_requests": max(1, int(most * TARGET_SHARE)), "metrics_interval_s": METRICS_INTERVAL_S}
    scaling: dict[str, Any] = defaults | config
    if "target_ongoing_requests" not in config:
        scaling.setdefault("policy", POLICY)
    if "policy" in scaling:
        require_policy(scaling["policy"])
    target = scaling["target_ongoing_requests"]
    if target > most:
        raise ValueError(
            f"target_ongoing_requests must be at most max_ongoing_requests ({most}), got {target}: "
            "replicas could never reach the target, so none would be added"
        )
    return scaling


def build_environment(settings: LanguageModelSettings) -> dict[str, str]:
    """For the replica and its engine; the hub's client reads the token from the file, so no value is shown here."""
    token = {"HF_TOKEN_PATH": str(settings.token_file)} if settings.token_file else {}
    fixed = {"VLLM_MAX_N_SEQUENCES": str(settings.max_sequences), "VLLM_NO_USAGE_STATS": "1"}
    if settings.accelerator == "cpu" and settings.engine.get("enforce_eager"):
        fixed["TORCHDYNAMO_DISABLE"] = "1"  # vLLM's sampler is compiled all the same, which takes a C++ compiler
    return fixed | {"HF_HUB_DISABLE_TELEMETRY": "1"} | token | settings.environment
