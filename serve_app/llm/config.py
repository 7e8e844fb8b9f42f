"""Builds ray.serve.llm's LLMConfig from a model's settings."""

import dataclasses
import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ray import serve
from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.serve.config import AutoscalingConfig
from ray.serve.llm import LLMConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.openai.models.protocol import LoRAModulePath

from serve_app.errors import near_miss
from serve_app.llm.coalescing import INTERVAL
from serve_app.llm.limits import LIMITS, PRIORITY, Limits
from serve_app.settings import LanguageModelSettings, from_project_root
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
    "graceful_shutdown_timeout_s": 60,
    "max_constructor_retry_count": 3,  # each try takes about a minute of CPU time
}
ENGINE_ARGUMENTS = {field.name for kind in (AsyncEngineArgs, FrontendArgs) for field in dataclasses.fields(kind)}
# Name and placement are set from the model's own keys.
DEPLOYMENT_OPTIONS = {
    name
    for name in inspect.signature(serve.deployment).parameters
    if name not in ("_func_or_class", "name", "version") and not name.startswith("placement_group")
}
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# vLLM fetches what a prompt names from any host, if none is named: from a replica that would reach the cluster's own.
NO_HOSTS = ["none.invalid"]


class EngineCallback(CallbackBase):  # type: ignore[misc]
    """ray.serve.llm's hook before an engine starts.

    Removes the hub tokens that ray.serve.llm copies into the runtime environment of its tasks, where the dashboard and
    the logs show them: Ray's workers inherit the tokens from the process that started them.
    """

    def __init__(self, *arguments: Any, fetch: bool, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.ctx.run_init_node = fetch  # the download task imports vLLM for ten seconds even where a folder is there
        for environment in (self.ctx.runtime_env, self.llm_config.runtime_env):
            for token in TOKENS:
                ((environment or {}).get("env_vars") or {}).pop(token, None)


def build_llm_config(settings: LanguageModelSettings) -> LLMConfig:
    """Raises ValueError for every mistake that can be found without loading the model."""
    source = settings.source and resolve_source(settings.source)
    config = LLMConfig(
        model_loading_config={
            "model_id": settings.name,
            "model_source": source,
            "tokenizer_source": settings.tokenizer,
        },
        engine_kwargs=build_engine_arguments(settings),
        accelerator_config={"kind": settings.accelerator},
        accelerator_type=settings.accelerator_type,
        placement_group_config=build_placement(settings),
        deployment_config=build_deployment_options(settings),
        lora_config=build_lora_config(settings),
        runtime_env={"env_vars": build_environment(settings)},
        callback_config={
            "callback_class": f"{EngineCallback.__module__}.{EngineCallback.__name__}",
            "callback_kwargs": {"fetch": not (source and Path(source).is_absolute())},
        },
        experimental_configs={
            "stream_batching_interval_ms": 0,
            LIMITS: Limits(settings.max_sequences, settings.extra_fields),
            PRIORITY: settings.priority,
            INTERVAL: settings.stream_interval_ms,
        },
    )
    config.get_engine_config()
    return config


def resolve_source(source: str) -> str:
    """The absolute path of a project folder, because replicas start in another folder; anything else unchanged."""
    folder = from_project_root(Path(source))
    return str(folder) if "://" not in source and folder.is_dir() else source


def build_engine_arguments(settings: LanguageModelSettings) -> dict[str, Any]:
    require_known("vLLM argument", settings.engine, ENGINE_ARGUMENTS)
    arguments = ({"enable_lora": True} if settings.adapters or settings.fixed_adapters else {}) | settings.engine
    arguments.setdefault("allowed_media_domains", NO_HOSTS)
    if modules := arguments.get("lora_modules"):
        arguments["lora_modules"] = [build_lora_module(module) for module in modules]
    return arguments


def build_lora_module(fields: dict[str, Any]) -> LoRAModulePath:
    require_known("lora_modules key", fields, [field.name for field in dataclasses.fields(LoRAModulePath)])
    return LoRAModulePath(**fields | {"path": resolve_source(fields["path"])})


def require_known(kind: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}{near_miss(name, known)}")


def build_placement(settings: LanguageModelSettings) -> dict[str, Any]:
    """One bundle for each worker, all on one node unless the settings allow more."""
    worker = {"CPU": settings.num_cpus} | ({"GPU": settings.num_gpus} if settings.accelerator == "gpu" else {})
    worker |= settings.resources
    return {"bundle_per_worker": worker, "strategy": "STRICT_PACK" if settings.nodes == 1 else "PACK"}


def build_deployment_options(settings: LanguageModelSettings) -> dict[str, Any]:
    """Serve's options; the replica's actor takes no CPU of its own, because it runs in its worker's bundle."""
    require_known("Ray Serve deployment option", settings.deployment, DEPLOYMENT_OPTIONS)
    options = DEPLOYMENT | settings.deployment
    if options.get("num_replicas", "auto") == "auto":
        options["autoscaling_config"] = build_autoscaling(options.get("autoscaling_config") or {}, options)
    actor = {"num_cpus": 0} | dict(options.get("ray_actor_options") or {})
    return options | {"ray_actor_options": actor}


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


def build_lora_config(settings: LanguageModelSettings) -> dict[str, Any] | None:
    if settings.adapters is None:
        return None
    return {
        "dynamic_lora_loading_path": settings.adapters.folder,
        "max_num_adapters_per_replica": settings.adapters.max_per_replica,
    }


def build_environment(settings: LanguageModelSettings) -> dict[str, str]:
    """For the replica and its engine; the hub's client reads the token from the file, so no value is shown here."""
    token = {"HF_TOKEN_PATH": str(settings.token_file)} if settings.token_file else {}
    fixed = {"VLLM_MAX_N_SEQUENCES": str(settings.max_sequences), "VLLM_NO_USAGE_STATS": "1"}
    return fixed | {"HF_HUB_DISABLE_TELEMETRY": "1"} | token | settings.environment
