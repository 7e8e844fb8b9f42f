"""The edge to TensorRT: a graph's bytes and batch sizes in, the bytes of a plan out; for TensorRT 10 and 11."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.errors import ConfigurationError, EngineError
from serve_app.triton.plans.progress import Progress, Report, monitor_of

if TYPE_CHECKING:
    import onnx

OLDEST_MAJOR = 10
WORKSPACE_MIB = 2048
INPUT = "images"
PLUGIN = ("EfficientNMS_TRT", "1", "")  # name, version, namespace


@dataclass(frozen=True, slots=True)
class Profile:
    """The batch sizes that a plan takes; it is fastest at `opt`."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ConfigurationError(
                f"batch sizes min {self.min}, opt {self.opt}, max {self.max}: each must be at least 1 and no less than "
                "the one before"
            )


def choose_graph(model: "onnx.ModelProto", efficient: bool) -> "onnx.ModelProto":
    """With TensorRT's plugin for NMS where it has one."""
    if not efficient:
        return model
    from serve_app.detection.onnx_nms import with_plugin

    return with_plugin(model)


Choose = Callable[["onnx.ModelProto", bool], "onnx.ModelProto"]


def build_plan(
    trt: Any, graph: bytes, profile: Profile, timing: bytes, report: Report, *,
    workspace_mib: int = WORKSPACE_MIB, choose: Choose = choose_graph,
) -> tuple[bytes, bytes]:  # fmt: skip
    """The serialized engine as it is, since Triton reads no header before it, and what is now known of timings."""
    _check_version(trt)
    logger = _logger_of(trt)
    chosen = choose(_read(graph), has_efficient_nms(trt, logger))
    logger.last_error = ""  # a plugin that isn't there is logged as an error, and is none
    builder = _builder_of(trt, logger)
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, logger, chosen.SerializeToString())
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on unless it is told: FP32 in a graph means FP32
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    _add_profile(builder, config, network, profile)
    _attach_timing_cache(config, timing, report)
    progress = Progress(report)
    monitor = monitor_of(trt, progress)
    config.progress_monitor = monitor
    with progress.pulse():
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT built nothing: {logger.last_error or 'it gave no reason'}")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def has_efficient_nms(trt: Any, logger: Any) -> bool:
    """Plugins are found only after they were registered; a TensorRT without the plugin library has no such call."""
    register = getattr(trt, "init_libnvinfer_plugins", None)
    if register:
        register(logger, "")
    return trt.get_plugin_registry().get_creator(*PLUGIN) is not None  # get_plugin_creator is deprecated since 10


def _check_version(trt: Any) -> None:
    if int(trt.__version__.split(".")[0]) < OLDEST_MAJOR:
        raise ConfigurationError(f"TensorRT {trt.__version__} is too old: install {OLDEST_MAJOR} or newer")


def _network_flags(trt: Any) -> int:
    """Precision is decided in the graph, by its types and its Q/DQ nodes, and TensorRT has to keep to it.

    So a graph answers the same in both versions, and can be tried without a GPU; builder flags such as FP16 would
    leave it to TensorRT, and 11 has them no more. There every network is strongly typed, flag or no flag.
    """
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if strongly_typed is None else 1 << int(strongly_typed)


def _logger_of(trt: Any) -> Any:
    """To stderr, where the last words of a builder that crashes are looked for."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, msg: str) -> None:
            line = " ".join(msg.split())
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.last_error = line
            if int(severity) <= int(trt.ILogger.Severity.WARNING):
                print(f"TensorRT: {line}", file=sys.stderr, flush=True)

    return Logger()


def _read(graph: bytes) -> "onnx.ModelProto":
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model_from_string(graph)
    except DecodeError:
        raise EngineError("the file is no ONNX graph") from None


def _builder_of(trt: Any, logger: Any) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError:  # all that the bindings say where CUDA doesn't start: "factory function returned nullptr"
        raise EngineError(f"TensorRT can't start: {logger.last_error or 'is there a GPU with its driver?'}") from None


def _parse(trt: Any, network: Any, logger: Any, graph: bytes) -> None:
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = [" ".join(str(parser.get_error(number)).split()) for number in range(parser.num_errors)]
        raise EngineError(f"TensorRT can't read the graph: {'; '.join(errors) or logger.last_error}")


def _add_profile(builder: Any, config: Any, network: Any, profile: Profile) -> None:
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    shapes = {one.name: tuple(one.shape) for one in inputs}
    free = [name for name, shape in shapes.items() if -1 in shape]
    batch, *dims = shapes.get(INPUT, (0,))
    if free != [INPUT] or batch != -1 or -1 in dims:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise EngineError(f"only the batch of {INPUT!r} may be free (-1), but the graph takes {listed}: export it so")
    shape = builder.create_optimization_profile()
    shape.set_shape(INPUT, (profile.min, *dims), (profile.opt, *dims), (profile.max, *dims))
    if config.add_optimization_profile(shape) < 0:
        raise EngineError(f"TensorRT refuses batches of {profile.min} to {profile.max}")


def _attach_timing_cache(config: Any, timing: bytes, report: Report) -> None:
    """What other builds measured; it saves minutes and decides nothing, so one that is refused is begun anew."""
    if timing and not _is_taken(config, timing):
        report("TensorRT refuses the timing cache: begun anew")
        timing = b""
    if not timing:
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _is_taken(config: Any, timing: bytes) -> bool:
    try:
        cache = config.create_timing_cache(timing)
        return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))
    except (RuntimeError, TypeError, ValueError):  # the bindings' words for a null pointer
        return False
