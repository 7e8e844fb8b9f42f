"""What ray.serve.llm is told of a language model: our settings in its words."""

import dataclasses
import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.llm import LLMConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.openai.models.protocol import LoRAModulePath

from serve_app.errors import near_miss
from serve_app.settings import LanguageModelSettings, from_project_root
from serve_app.telemetry.autoscaling import require_policy

# ray.serve.llm's own are 1e9 requests: neither backpressure nor autoscaling would ever act.
MAX_ONGOING_REQUESTS = 64
BUSY = 0.75  # of max_ongoing_requests: where another replica is asked for, if that is to be the measure
POLICY = {"policy_function": "serve_app.telemetry.autoscaling:LanguageModelPolicy"}
REPORT_INTERVAL_S = 2.0  # Serve's own is 10, which is as long as a decision looks back
DEPLOYMENT = {
    "max_ongoing_requests": MAX_ONGOING_REQUESTS,
    "max_queued_requests": 256,  # of each router; more are answered 503
    "health_check_period_s": 5,
    "graceful_shutdown_timeout_s": 60,
    "max_constructor_retry_count": 3,  # each takes a minute of everybody's processor
}
ENGINE_ARGUMENTS = {field.name for kind in (AsyncEngineArgs, FrontendArgs) for field in dataclasses.fields(kind)}
# Name and placement follow from the model's own keys.
DEPLOYMENT_OPTIONS = {
    name
    for name in inspect.signature(serve.deployment).parameters
    if name not in ("_func_or_class", "name", "version") and not name.startswith("placement_group")
}


def configuration_of(settings: LanguageModelSettings) -> LLMConfig:
    """A ValueError tells what can be known to be wrong without the model, before anything starts."""
    source = settings.source and folder_or_id(settings.source)
    config = LLMConfig(
        model_loading_config={
            "model_id": settings.name,
            "model_source": source,
            "tokenizer_source": settings.tokenizer,
        },
        engine_kwargs=engine_arguments(settings),
        accelerator_config={"kind": settings.accelerator},
        accelerator_type=settings.accelerator_type,
        placement_group_config=placement_of(settings),
        deployment_config=deployment_options(settings),
        lora_config=adapters_of(settings),
        runtime_env={"env_vars": environment_of(settings)},
        callback_config={
            "callback_class": "serve_app.llm.preparation.Preparation",
            "callback_kwargs": {"fetch": not (source and Path(source).is_absolute())},
        },
        experimental_configs={"stream_batching_interval_ms": 0},
    )
    config.get_engine_config()
    return config


def folder_or_id(source: str) -> str:
    """A folder of the project by its whole path, because replicas start elsewhere; anything else as it is."""
    folder = from_project_root(Path(source))
    return str(folder) if "://" not in source and folder.is_dir() else source


def engine_arguments(settings: LanguageModelSettings) -> dict[str, Any]:
    require_known("vLLM has no argument", settings.engine, ENGINE_ARGUMENTS)
    arguments = ({"enable_lora": True} if settings.adapters or settings.fixed_adapters else {}) | settings.engine
    if modules := arguments.get("lora_modules"):
        arguments["lora_modules"] = [lora_module(module) for module in modules]
    return arguments


def lora_module(fields: dict[str, Any]) -> LoRAModulePath:
    """vLLM's, with a folder of the project by its whole path."""
    require_known("lora_modules has no key", fields, [field.name for field in dataclasses.fields(LoRAModulePath)])
    return LoRAModulePath(**fields | {"path": folder_or_id(fields["path"])})


def require_known(complaint: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{complaint} {name!r}{near_miss(name, known)}")


def placement_of(settings: LanguageModelSettings) -> dict[str, Any]:
    """One bundle for each worker; all on one machine unless more were asked for."""
    worker = {"CPU": settings.num_cpus} | ({"GPU": settings.num_gpus} if settings.accelerator == "gpu" else {})
    worker |= settings.resources
    return {"bundle_per_worker": worker, "strategy": "STRICT_PACK" if settings.nodes == 1 else "PACK"}


def deployment_options(settings: LanguageModelSettings) -> dict[str, Any]:
    """Serve's options with limits that mean something, and an actor that lives in its worker's bundle."""
    require_known("Ray Serve has no deployment option", settings.deployment, DEPLOYMENT_OPTIONS)
    options = DEPLOYMENT | settings.deployment
    if options.get("num_replicas", "auto") == "auto":
        options["autoscaling_config"] = scaling_of(options.get("autoscaling_config") or {}, options)
    actor = {"num_cpus": 0} | dict(options.get("ray_actor_options") or {})
    return options | {"ray_actor_options": actor}


def scaling_of(given: Any, options: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"autoscaling_config has keys and values, not {given!r}")
    require_known("autoscaling_config has no key", given, AutoscalingConfig.model_fields)
    ongoing = options["max_ongoing_requests"]
    ours = {"target_ongoing_requests": max(1, int(ongoing * BUSY)), "metrics_interval_s": REPORT_INTERVAL_S}
    scaling: dict[str, Any] = ours | given
    if "target_ongoing_requests" not in given:
        scaling.setdefault("policy", POLICY)
    if "policy" in scaling:
        require_policy(scaling["policy"])
    if scaling["target_ongoing_requests"] > ongoing:
        raise ValueError(
            f"target_ongoing_requests {scaling['target_ongoing_requests']} is over max_ongoing_requests {ongoing}: "
            "a replica never has so many, so none would be added"
        )
    return scaling


def adapters_of(settings: LanguageModelSettings) -> dict[str, Any] | None:
    if settings.adapters is None:
        return None
    return {
        "dynamic_lora_loading_path": settings.adapters.folder,
        "max_num_adapters_per_replica": settings.adapters.max_per_replica,
    }


def environment_of(settings: LanguageModelSettings) -> dict[str, str]:
    """Of the replica and its engine; the hub reads the token from the file, so that none stands here."""
    token = {"HF_TOKEN_PATH": str(settings.token_file)} if settings.token_file else {}
    fixed = {"VLLM_MAX_N_SEQUENCES": str(settings.max_sequences), "VLLM_NO_USAGE_STATS": "1"}
    return fixed | {"HF_HUB_DISABLE_TELEMETRY": "1"} | token | settings.environment
