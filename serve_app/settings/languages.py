"""Language models: what each is, what it runs on, and Ray Serve's options for it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from serve_app.settings.section import Section

Priority = Literal["normal", "low", "idle"]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
READ_BY_ROUTERS = ("name", "adapters", "wake_timeout_s")
VLLM_TAKES = 0.92  # of a GPU's memory, unless engine.gpu_memory_utilization says otherwise


class AdapterSettings(Section):
    """LoRA adapters of a language model, fetched when a request first names one: `model:adapter`."""

    folder: str = Field(description="where adapters lie, one folder each: s3://, gs:// or azure://")
    max_per_replica: int = Field(16, ge=1, description="how many a replica keeps loaded")


class LanguageModelSettings(Section):
    """One language model: a deployment of vLLM replicas through ray.serve.llm."""

    name: ModelName = Field(description="what clients call it, and the deployment's name in Ray Serve")
    source: str | None = Field(None, description="a folder, a hub id, s3:// or gs://; null: the name is the hub id")
    tokenizer: str | None = Field(None, description="hub id of another tokenizer than the source's")
    accelerator: Literal["cpu", "gpu"] = Field("gpu", description="what it computes on")
    accelerator_type: str | None = Field(None, description="Ray's name of the GPU it needs: A10G, L4, H100, …")
    num_cpus: float = Field(1.0, gt=0, description="processor cores set aside for each worker of a replica")
    num_gpus: float = Field(1.0, gt=0, le=1, description="of a GPU, set aside for each worker; under 1 shares it")
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="of Ray's own resources, set aside for each worker: what places it in a mixed cluster"
    )
    nodes: int = Field(1, ge=1, description="over how many machines a replica may stretch")
    engine: dict[str, Any] = Field({}, description="vLLM's own arguments, passed on as they are")
    adapters: AdapterSettings | None = Field(None, description="LoRA adapters by request")
    token_file: Path | None = Field(None, description="the hub's token, mounted; null: the variable HF_TOKEN, if set")
    environment: dict[str, str] = Field({}, description="environment variables of its processes; no secrets")
    priority: Priority = Field(
        "normal", description="of processors shared with others: low gets less than they, idle what they leave"
    )
    max_sequences: int = Field(64, ge=1, description="the most answers of a request: its prompts times n")
    stream_interval_ms: float = Field(
        50.0, ge=0, le=1000, description="how long a stream's tokens may wait for more, while there are many streams"
    )
    extra_fields: tuple[str, ...] = Field((), description="fields of vLLM's that requests may have besides the usual")
    wake_timeout_s: float = Field(120.0, gt=0, description="how long a request waits for a model with no replica yet")
    deployment: dict[str, Any] = Field({}, description="Ray Serve's options, as under `deployments:`")

    @field_validator("engine")
    @classmethod
    def _no_secret(cls, engine: dict[str, Any]) -> dict[str, Any]:
        if "hf_token" in engine:
            raise ValueError("hf_token would be shown wherever the configuration is; use token_file or HF_TOKEN")
        return engine

    @field_validator("engine")
    @classmethod
    def _adapters_are_named(cls, engine: dict[str, Any]) -> dict[str, Any]:
        for module in engine.get("lora_modules") or ():
            if not isinstance(module, dict) or not {"name", "path"} <= module.keys():
                raise ValueError(f"lora_modules: each is {{name: …, path: …}}, not {module!r}")
        return engine

    @field_validator("resources")
    @classmethod
    def _no_processor(cls, resources: dict[str, float]) -> dict[str, float]:
        for name in resources:
            if name.upper() in ("CPU", "GPU", "MEMORY"):
                raise ValueError(f"must not contain {name}: processors and GPUs are set aside by num_cpus and num_gpus")
        return resources

    @field_validator("environment")
    @classmethod
    def _no_token(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if name.upper().endswith(("TOKEN", "SECRET", "PASSWORD", "SECRET_ACCESS_KEY")):
                raise ValueError(f"{name} would be shown by Ray; set it for Ray's own processes, or use token_file")
        return environment

    @model_validator(mode="after")
    def _hardware_fits(self) -> "LanguageModelSettings":
        if self.accelerator == "cpu" and self.accelerator_type:
            raise ValueError("accelerator_type names a GPU, and accelerator is cpu")
        takes = self.engine.get("gpu_memory_utilization", VLLM_TAKES)
        if self.accelerator == "gpu" and self.num_gpus < 1 and takes > self.num_gpus:
            raise ValueError(
                f"vLLM takes {takes:g} of the GPU's memory and num_gpus is {self.num_gpus:g}: what shares the GPU "
                "would find no room; set engine.gpu_memory_utilization to no more than num_gpus"
            )
        return self

    @property
    def fixed_adapters(self) -> tuple[str, ...]:
        """LoRA adapters that vLLM loads at its start, by the names that clients call them."""
        return tuple(str(module["name"]) for module in self.engine.get("lora_modules") or ())

    @property
    def as_routed(self) -> "LanguageModelSettings":
        """Without what routers don't read."""
        engine = {key: self.engine[key] for key in ("lora_modules", "max_model_len") if key in self.engine}
        deployment = {"autoscaling_config": {"min_replicas": 0}} if self.scales_to_zero else {}
        read = {field: getattr(self, field) for field in READ_BY_ROUTERS}
        return LanguageModelSettings(**read, engine=engine, deployment=deployment)

    @property
    def workers(self) -> int:
        """Processes of one replica that compute, each with what is set aside for a worker."""
        sizes = [self.engine.get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline")]
        return int(sizes[0]) * int(sizes[1])

    @property
    def scales_to_zero(self) -> bool:
        """Whether it has no replica while there are no requests."""
        return bool((self.deployment.get("autoscaling_config") or {}).get("min_replicas") == 0)
