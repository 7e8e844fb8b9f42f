"""Every configuration model: `args` of configs/*.yaml in, frozen and checked objects out."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from serve_app.errors import ConfigurationError
from serve_app.nearest import near_miss

MAX_PIXELS = 64_000_000  # of a picture, unless the configuration says otherwise
PROJECT_ROOT = Path(__file__).resolve().parent.parent

TAKEN = ("router", "baseline", "playground")  # names of deployments that there is one of

Size = Literal["nano", "small", "medium", "large", "xlarge"]
SIZES: tuple[Size, ...] = get_args(Size)
Precision = Literal["f32", "bf16", "int8"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class Section(BaseModel):
    """One block of the file: unknown keys are refused, with the nearest valid name."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for key in values:
            if key not in cls.model_fields:
                valid = f"valid keys: {', '.join(cls.model_fields)}"
                raise ValueError(f"unknown key {key!r}{near_miss(str(key), cls.model_fields, valid)}")
        return values


def from_project_root(path: Path) -> Path:
    """Relative paths start where the project lies, so that driver and replicas agree on them."""
    return path if path.is_absolute() else PROJECT_ROOT / path


class ModelSource(Section):
    """What one size is made from."""

    weights: str = Field("auto", description="auto (public weights, else the demo's), demo, or a .pt file")
    precision: Precision = Field("f32", description="what the CPU engine computes in")
    nms: bool = Field(True, description="false: the head of YOLO26 that needs no suppression")


class DetectionSettings(Section):
    """Which detectors there are, and what a request gets when it says nothing."""

    model_repository: Path = Field(Path("model_repository/cpu"), description="the Triton model repository")
    weights_folder: Path = Field(Path("model_repository/weights"), description="where weights are looked for")
    family: Literal["yolov8", "yolo11", "yolo26"] = Field("yolo11", description="whose public weights `auto` means")
    models: dict[Size, ModelSource] = Field(
        {"nano": ModelSource()},
        min_length=1,
        description="the sizes that are served; the first is also `yolo`",
    )
    image_size: int = Field(640, ge=32, le=4096, multiple_of=32, description="side of the square engines take, pixels")
    calibration: Path | None = Field(None, description="pictures for int8; without it drawn scenes are used")
    confidence: Fraction = Field(0.25, description="default of the query parameter conf")
    iou: Fraction = Field(0.7, description="default of the query parameter iou")
    max_detections: int = Field(300, ge=1, le=300, description="default and limit of the query parameter max_det")
    max_pixels: int = Field(
        MAX_PIXELS, ge=640 * 480, description="pictures with more pixels are refused before decoding"
    )

    _resolve = field_validator("model_repository", "weights_folder", "calibration")(
        classmethod(lambda cls, path: path and from_project_root(path))
    )


class TritonSettings(Section):
    """One deployment of in-process Triton servers; its replicas and resources stand under `deployments:`."""

    name: Name = Field(description="the deployment's name in Ray Serve")
    model_repository: Path | None = Field(None, description="its own repository; null: that of `detection`")
    models: tuple[str, ...] = Field(("*",), min_length=1, description="models to serve; * and ? match any characters")
    control_mode: Literal["none", "explicit", "poll"] = Field(
        "none", description="none: fixed; explicit: load and unload by request; poll: follows the repository"
    )
    poll_interval_s: float = Field(15.0, gt=0, description="how often a polled repository is looked at")
    instances: dict[str, Annotated[int, Field(ge=1, le=64)]] = Field(
        {}, description="instances of a model, where its config.pbtxt should not decide"
    )
    drain_timeout_s: float = Field(30.0, ge=0, description="how long work in flight may finish when a replica stops")
    picture_threads: int = Field(2, ge=1, le=64, description="threads that decode and draw boxes for tracks B and C")
    max_pictures_in_flight: int = Field(32, ge=1, description="pictures of one request that are worked on at once")
    shared_memory_mib: int = Field(16, ge=1, description="/dev/shm that each Python-backend instance starts with")
    sequences: bool = Field(False, description="true: requests of one sequence reach the same replica")

    _resolve = field_validator("model_repository")(classmethod(lambda cls, path: path and from_project_root(path)))

    @model_validator(mode="after")
    def _poll_takes_the_whole_repository(self) -> "TritonSettings":
        if self.control_mode == "poll" and self.instances:
            raise ValueError("instances can't be overridden with control_mode poll; edit the models' config.pbtxt")
        if self.control_mode == "poll" and self.models != ("*",):
            raise ValueError("control_mode poll serves the whole repository: models must be ['*']")
        return self


class BaselineSettings(Section):
    """Track A: PyTorch in a deployment of its own, for comparison."""

    sizes: tuple[Size, ...] = Field((), description="sizes it serves; empty means all of detection.models")
    threads: int = Field(2, ge=1, le=256, description="PyTorch's threads in each replica")


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
    nodes: int = Field(1, ge=1, description="over how many machines a replica may stretch")
    engine: dict[str, Any] = Field({}, description="vLLM's own arguments, passed on as they are")
    adapters: AdapterSettings | None = Field(None, description="LoRA adapters by request")
    token_file: Path | None = Field(None, description="the hub's token, mounted; null: the variable HF_TOKEN, if set")
    environment: dict[str, str] = Field({}, description="environment variables of its processes; no secrets")
    max_sequences: int = Field(16, ge=1, description="the most answers (n) that one request may ask for")
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
        return self

    @property
    def fixed_adapters(self) -> tuple[str, ...]:
        """LoRA adapters that vLLM loads at its start, by the names that clients call them."""
        return tuple(str(module["name"]) for module in self.engine.get("lora_modules") or ())

    @property
    def may_sleep(self) -> bool:
        """Whether it may have no replica at all while nobody asks."""
        return bool((self.deployment.get("autoscaling_config") or {}).get("min_replicas") == 0)


class RouterSettings(Section):
    """The ingress."""

    max_body_mib: int = Field(64, ge=1, le=4096, description="larger HTTP bodies are refused with 413")
    request_timeout_s: float = Field(300.0, gt=0, description="how long a request may take that brings no deadline")
    admin_key_file: Path | None = Field(
        None, description="a file with the key that load and unload ask for; null: they are open"
    )


class PlaygroundSettings(Section):
    """The page at /ui: a client of the service like any other."""

    service_url: str = Field(
        "http://localhost:8000", pattern=r"^https?://[^/\s]+$", description="where the playground reaches the service"
    )


class Settings(Section):
    """`args` of the application."""

    router: RouterSettings = RouterSettings()
    detection: DetectionSettings = DetectionSettings()
    triton: tuple[TritonSettings, ...] = (TritonSettings(name="vision"),)
    baseline: BaselineSettings | None = Field(BaselineSettings(), description="null turns track A off")
    llms: tuple[LanguageModelSettings, ...] = ()
    playground: PlaygroundSettings | None = Field(None, description="null turns the page at /ui off")

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        names = [triton.name for triton in self.triton] + [model.name for model in self.llms]
        if len({*names, *TAKEN}) != len(names) + len(TAKEN):
            raise ValueError(f"names of triton and llms must differ, and {', '.join(TAKEN)} are taken: {names}")
        if not (self.more_than_languages or self.llms):
            raise ValueError("nothing to serve: triton, baseline and llms are all empty")
        if self.baseline:
            unknown = [size for size in self.baseline.sizes if size not in self.detection.models]
            if unknown:
                raise ValueError(f"baseline.sizes: {', '.join(unknown)} is not under detection.models")
        return self

    @property
    def more_than_languages(self) -> bool:
        """Whether anything is served beside language models."""
        return bool(self.triton or self.baseline)

    @property
    def baseline_sizes(self) -> tuple[Size, ...]:
        if self.baseline is None:
            return ()
        return self.baseline.sizes or tuple(self.detection.models)


def filled_in(value: Any) -> Any:
    """`${NAME}` and `${NAME:-default}` from the environment of the process that builds the application."""
    if isinstance(value, dict):
        return {key: filled_in(one) for key, one in value.items()}
    if isinstance(value, list):
        return [filled_in(one) for one in value]
    if not isinstance(value, str) or not VARIABLE.search(value):
        return value
    text = VARIABLE.sub(_read_variable, value)
    # A value that is one variable is what YAML makes of it, so that numbers stay numbers.
    return yaml.safe_load(text) if VARIABLE.fullmatch(value) else text


def _read_variable(found: re.Match[str]) -> str:
    name, default = found.groups()
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigurationError(f"${{{name}}}: the environment has no {name}; ${{{name}:-…}} would give a default")
    return value


def parse_settings(args: dict[str, Any]) -> Settings:
    """Check `args` whole; every mistake is in the one message."""
    try:
        return Settings.model_validate(filled_in(args))
    except ValidationError as problem:
        errors = problem.errors()
        # a list that lost its only item to a mistake is not too short as well
        real = [error for error in errors if error["type"] != "too_short"] or errors
        lines = [
            f"{'.'.join(map(str, error['loc'])) or 'args'}: {error['msg'].removeprefix('Value error, ')}"
            for error in real
        ]
        raise ConfigurationError("invalid configuration: " + "; ".join(lines)) from None


def traces_endpoint() -> str:
    """Where OpenTelemetry's own variables say that traces go, over HTTP."""
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318").rstrip("/")
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{base}/v1/traces")


def read_config(path: Path) -> dict[str, Any]:
    """The whole file that `serve run` takes."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as problem:
        raise ConfigurationError(f"{path}: {problem.strerror}") from None
    except yaml.YAMLError as problem:
        raise ConfigurationError(f"{path} is not YAML: {str(problem).splitlines()[-1].strip()}") from None
    if not isinstance(content, dict) or not content.get("applications"):
        raise ConfigurationError(f"{path}: no `applications:`, so nothing to serve")
    return content


def settings_of(config: dict[str, Any]) -> Settings:
    """The settings of the file's application that `serve_app.app:build` makes."""
    for application in config["applications"]:
        if application.get("import_path") == "serve_app.app:build":
            return parse_settings(application.get("args") or {})
    raise ConfigurationError("no application with import_path serve_app.app:build")
