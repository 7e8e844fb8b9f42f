"""Calls TensorRT 10 or 11 to build a plan from a graph's bytes and the batch sizes that it must accept."""

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
    """The batch sizes that a plan accepts; it is fastest at `opt`."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ConfigurationError(
                f"batch sizes must be 1 <= min <= opt <= max, got min {self.min}, opt {self.opt}, max {self.max}"
            )


def choose_graph(model: "onnx.ModelProto", efficient: bool) -> "onnx.ModelProto":
    """Replace NMS by TensorRT's plugin if it is available (`efficient`)."""
    if not efficient:
        return model
    from serve_app.detection.onnx_nms import with_plugin

    return with_plugin(model)


Choose = Callable[["onnx.ModelProto", bool], "onnx.ModelProto"]


def build_plan(
    trt: Any, graph: bytes, profile: Profile, timing: bytes, report: Report, *,
    workspace_mib: int = WORKSPACE_MIB, choose: Choose = choose_graph,
) -> tuple[bytes, bytes]:  # fmt: skip
    """Return the serialized engine without a header, as Triton requires, and the updated timing cache."""
    _check_version(trt)
    logger = _logger_of(trt)
    chosen = choose(_read(graph), has_efficient_nms(trt, logger))
    logger.last_error = ""  # TensorRT logs a missing plugin as an error
    builder = _builder_of(trt, logger)
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, logger, chosen.SerializeToString())
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, but FP32 in a graph means FP32
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    _add_profile(builder, config, network, profile)
    _attach_timing_cache(config, timing, report)
    progress = Progress(report)
    monitor = monitor_of(trt, progress)
    config.progress_monitor = monitor
    with progress.pulse():
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT's build failed: {logger.last_error or 'no reason given'}")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def has_efficient_nms(trt: Any, logger: Any) -> bool:
    """Register the plugins, which only a TensorRT with the plugin library can do, and look for NMS among them."""
    register = getattr(trt, "init_libnvinfer_plugins", None)
    if register:
        register(logger, "")
    return trt.get_plugin_registry().get_creator(*PLUGIN) is not None  # get_plugin_creator is deprecated since 10


def _check_version(trt: Any) -> None:
    if int(trt.__version__.split(".")[0]) < OLDEST_MAJOR:
        raise ConfigurationError(f"TensorRT must be {OLDEST_MAJOR} or newer, got {trt.__version__}")


def _network_flags(trt: Any) -> int:
    """Strongly typed: the graph's types and Q/DQ nodes decide the precision.

    Builder flags such as FP16 would leave it to TensorRT, and TensorRT 11 doesn't have them: there every network is
    strongly typed, with or without the flag.
    """
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if strongly_typed is None else 1 << int(strongly_typed)


def _logger_of(trt: Any) -> Any:
    """Logs to stderr, whose last line is reported if the process crashes."""

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
        raise EngineError("the file is not an ONNX graph") from None


def _builder_of(trt: Any, logger: Any) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError:  # raised where CUDA doesn't start, as "factory function returned nullptr"
        raise EngineError(f"TensorRT can't start: {logger.last_error or 'check the GPU and its driver'}") from None


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
        raise EngineError(f"only the batch of {INPUT!r} may be dynamic (-1), but the graph's inputs are {listed}")
    shape = builder.create_optimization_profile()
    shape.set_shape(INPUT, (profile.min, *dims), (profile.opt, *dims), (profile.max, *dims))
    if config.add_optimization_profile(shape) < 0:
        raise EngineError(f"TensorRT rejects batch sizes {profile.min} to {profile.max}")


def _attach_timing_cache(config: Any, timing: bytes, report: Report) -> None:
    """Use the timings of earlier builds, which saves minutes; timings that TensorRT rejects are dropped."""
    if timing and not _set_timings(config, timing):
        report("TensorRT rejects the timing cache; starting a new one")
        timing = b""
    if not timing:
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _set_timings(config: Any, timing: bytes) -> bool:
    try:
        cache = config.create_timing_cache(timing)
        return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))
    except (RuntimeError, TypeError, ValueError):  # what the bindings raise for a null pointer
        return False
