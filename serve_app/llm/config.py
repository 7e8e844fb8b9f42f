"""ray.serve.llm's LLMConfig of a model, built in its replica, as it imports vLLM."""

from pathlib import Path
from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.serve.llm import LLMConfig
from vllm.entrypoints.openai.models.protocol import LoRAModulePath

from serve_app.llm.deployment import build_environment, build_placement
from serve_app.llm.limits import LIMITS, Limits
from serve_app.llm.pacing import INTERVAL
from serve_app.settings import LanguageModelSettings, from_project_root

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
    """Raises ValueError for what vLLM or ray.serve.llm refuse without loading the model."""
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
        lora_config=build_lora_config(settings),
        runtime_env={"env_vars": build_environment(settings)},
        callback_config={
            "callback_class": f"{EngineCallback.__module__}.{EngineCallback.__name__}",
            "callback_kwargs": {"fetch": not (source and Path(source).is_absolute())},
        },
        experimental_configs={
            "stream_batching_interval_ms": 0,
            LIMITS: Limits(settings.max_sequences, settings.extra_fields),
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
    arguments = ({"enable_lora": True} if settings.adapters or settings.fixed_adapters else {}) | settings.engine
    arguments.setdefault("allowed_media_domains", NO_HOSTS)
    if modules := arguments.get("lora_modules"):
        arguments["lora_modules"] = [
            LoRAModulePath(**module | {"path": resolve_source(module["path"])}) for module in modules
        ]
    return arguments


def build_lora_config(settings: LanguageModelSettings) -> dict[str, Any] | None:
    if settings.adapters is None:
        return None
    return {
        "dynamic_lora_loading_path": settings.adapters.folder,
        "max_num_adapters_per_replica": settings.adapters.max_per_replica,
    }
