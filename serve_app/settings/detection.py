"""Detection: the detectors, their engine, and the deployments that serve them."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from serve_app.settings.section import Name, Section, from_project_root
from serve_app.types import MAX_PIXELS

Size = Literal["nano", "small", "medium", "large", "xlarge"]
SIZES: tuple[Size, ...] = get_args(Size)
Precision = Literal["f32", "bf16", "f16", "int8", "fp8"]
EngineKind = Literal["openvino", "tensorrt", "onnxruntime", "python-onnxruntime", "python-torch"]
# The precisions that each engine supports.
PRECISIONS: dict[EngineKind, tuple[Precision, ...]] = {
    "openvino": ("f32", "bf16", "int8"),
    "tensorrt": ("f32", "f16", "int8", "fp8"),
    "onnxruntime": ("f32",),
    "python-onnxruntime": ("f32", "f16", "int8"),
    "python-torch": ("f32", "bf16", "f16"),
}
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class ModelSource(Section):
    """What the model of one size is built from."""

    weights: str = Field("auto", description="auto (public weights, else the demo's), demo, or a .pt file")
    precision: Precision = Field("f32", description="what the engine computes in; engines support some of them")
    nms: bool = Field(True, description="false: the head of YOLO26 that needs no suppression")


class DetectionSettings(Section):
    """The detectors, and the defaults of requests."""

    model_repository: Path = Field(Path("model_repository/cpu"), description="the Triton model repository")
    engine: EngineKind = Field(
        "openvino",
        description="openvino (CPU); on NVIDIA GPUs: tensorrt or onnxruntime where Triton has those backends, "
        "python-torch or python-onnxruntime where it has its Python backend alone",
    )
    device: Literal["cpu", "cuda"] | None = Field(None, description="null: the GPU, for every engine but openvino")
    plans: Path = Field(Path("model_repository/plans"), description="where TensorRT's built engines are kept")
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

    _resolve = field_validator("model_repository", "plans", "weights_folder", "calibration")(
        classmethod(lambda cls, path: path and from_project_root(path))
    )

    @model_validator(mode="after")
    def _engine_can(self) -> "DetectionSettings":
        for size, source in self.models.items():
            if source.precision not in PRECISIONS[self.engine]:
                can = ", ".join(PRECISIONS[self.engine])
                raise ValueError(f"models.{size}.precision: {self.engine} supports {can}, got {source.precision}")
        if (self.engine, self.device) in (("openvino", "cuda"), ("tensorrt", "cpu")):
            only = "the CPU" if self.engine == "openvino" else "a GPU"
            raise ValueError(f"device: {self.engine} runs on {only} only, got {self.device}; remove device")
        return self

    @property
    def runs_on(self) -> Literal["cpu", "cuda"]:
        return self.device or ("cpu" if self.engine == "openvino" else "cuda")


class TritonSettings(Section):
    """One deployment of in-process Triton servers; its replicas and resources are set under `deployments:`."""

    name: Name = Field(description="the deployment's name in Ray Serve")
    model_repository: Path | None = Field(None, description="its own repository; null: that of `detection`")
    models: tuple[str, ...] = Field(("*",), min_length=1, description="models to serve; * and ? match any characters")
    control_mode: Literal["none", "explicit", "poll"] = Field(
        "none", description="none: fixed; explicit: load and unload by request; poll: follows the repository"
    )
    load_files: bool = Field(False, description="a load may bring a model's files, code that the replica runs included")
    poll_interval_s: float = Field(15.0, gt=0, description="how often the repository is polled")
    instances: dict[str, Annotated[int, Field(ge=1, le=64)]] = Field(
        {}, description="instances of a model, in place of what its config.pbtxt says"
    )
    drain_timeout_s: float = Field(30.0, ge=0, description="how long work in flight may finish when a replica stops")
    max_ongoing_requests: int = Field(
        256,
        ge=1,
        description="where the router hosts it, what it works on at a time; a deployment has Serve's own option",
    )
    picture_threads: int = Field(
        2, ge=1, le=64, description="threads that read, decode and resize pictures, and run NMS for track B"
    )
    max_pictures_in_flight: int = Field(32, ge=1, description="pictures of one request that are worked on at once")
    shared_memory_mib: int = Field(16, ge=1, description="/dev/shm that each Python-backend instance starts with")
    cache_mib: int = Field(0, ge=0, description="answers kept for models whose config turns the response cache on")
    cuda_pool_mib: int | None = Field(None, ge=0, description="GPU memory for inputs and outputs; null: Triton's 64")
    pinned_pool_mib: int = Field(256, ge=0, description="page-locked memory for copies to and from the GPU")
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
