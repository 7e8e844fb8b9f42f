"""A fake of NVIDIA's `tensorrt` 10 and 11, after their documentation; `behaviour.json` beside it configures it.

It builds nothing: a plan is a text about what it was built from. Each call is a line of `calls/<process>.jsonl`. The
flavour of 11 lacks what 11 removed and 10 deprecated. Arguments that the real bindings refuse are refused.
"""

import enum
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import onnx

HERE = Path(__file__).parent
BEHAVIOUR = json.loads((HERE / "behaviour.json").read_text())
__version__ = BEHAVIOUR["version"]
MAJOR = int(__version__.split(".")[0])

if "import_error" in BEHAVIOUR:
    raise ImportError(BEHAVIOUR["import_error"])


def record(call, **details):
    (HERE / "calls").mkdir(exist_ok=True)
    with (HERE / "calls" / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps({"call": call} | details) + "\n")


def call_back(method, *arguments):
    """Like the bindings, print what a callback raises and continue."""
    try:
        return method(*arguments)
    except BaseException as problem:
        print(f"[ERROR] Exception caught in {method.__name__}(): {problem}", file=sys.stderr)


class _Interface:
    ready = False

    def __init__(self):
        self.ready = True


def demand_ready(interface, kind):
    if not isinstance(interface, kind) or not interface.ready:
        raise TypeError(f"tensorrt.{kind.__name__}.__init__() must be called when overriding __init__")


class ILogger(_Interface):
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class IProgressMonitor(_Interface):
    pass


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


if MAJOR >= 11:
    flags = {"PREFER_AOT_PYTHON_PLUGINS": 2}
    if not BEHAVIOUR.get("no_flag"):  # "retained for API compatibility but is ignored"
        flags["STRONGLY_TYPED"] = 1
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)
    BuilderFlag = enum.IntEnum("BuilderFlag", {"TF32": 7})
else:
    NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    )
    BuilderFlag = enum.IntEnum("BuilderFlag", {"FP16": 0, "INT8": 1, "TF32": 7})


class IHostMemory(bytearray):
    """Like the real one, `bytes` of it is its content."""


class ITimingCache:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return IHostMemory(self.content)


class Dims(tuple):
    pass


class ITensor:
    def __init__(self, value):
        dims = value.type.tensor_type.shape.dim
        self.name = value.name
        self.shape = Dims(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)


class INetworkDefinition:
    def __init__(self):
        self.inputs = []
        self.graph = b""

    @property
    def num_inputs(self):
        return len(self.inputs)

    def get_input(self, index):
        return self.inputs[index]


class ParserError:
    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


class OnnxParser:
    def __init__(self, network, logger):
        demand_ready(logger, ILogger)
        self.network = network
        self.errors = []

    def parse(self, model):
        read = onnx.load_model_from_string(model)
        record("parse", nodes=[node.op_type for node in read.graph.node])
        self.errors = [ParserError(text) for text in BEHAVIOUR.get("parser_errors", [])]
        self.network.graph = model
        self.network.inputs = [ITensor(value) for value in read.graph.input]
        return not self.errors

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, index):
        return self.errors[index]


class IOptimizationProfile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        self.shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self):
        self.cache = None
        self.profiles = []
        self.monitor = None

    @property
    def progress_monitor(self):
        return self.monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor):
        demand_ready(monitor, IProgressMonitor)
        self.monitor = monitor

    def set_flag(self, flag):
        record("set_flag", flag=flag.name)

    def clear_flag(self, flag):
        record("clear_flag", flag=flag.name)

    def set_memory_pool_limit(self, pool, pool_size):
        record("set_memory_pool_limit", pool=pool.name, bytes=pool_size)

    def add_optimization_profile(self, profile):
        if BEHAVIOUR.get("refused_profile"):
            return -1
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache):
        memoryview(serialized_timing_cache)
        record("create_timing_cache", content=serialized_timing_cache.decode())
        if serialized_timing_cache and BEHAVIOUR.get("timing_cache") == "null":
            return None
        if serialized_timing_cache and BEHAVIOUR.get("timing_cache") == "raises":
            raise RuntimeError("create_timing_cache")
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        if not isinstance(cache, ITimingCache):
            raise TypeError("set_timing_cache(): incompatible function arguments")
        if cache.content and BEHAVIOUR.get("timing_cache") == "mismatch" and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Builder:
    def __init__(self, logger):
        demand_ready(logger, ILogger)
        record("Builder")
        self.logger = logger
        if BEHAVIOUR.get("no_cuda"):
            self._log("ERROR", "CUDA initialization failure with error: 35\n  Please check your CUDA installation")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def _log(self, severity, message):
        call_back(self.logger.log, ILogger.Severity[severity], message)

    def create_network(self, flags=0):
        record("create_network", flags=flags)
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        record("build_serialized_network", profiles=config.profiles, timing=config.cache.content.decode())
        self._log("INFO", "a detail")
        self._log("WARNING", "a weight was\n  rounded")
        for phase, parent, steps in BEHAVIOUR.get("phases", []):
            call_back(config.monitor.phase_start, phase, parent, steps)
            for step in range(steps):
                time.sleep(BEHAVIOUR.get("step_s", 0))
                assert call_back(config.monitor.step_complete, phase, step)
            call_back(config.monitor.phase_finish, phase)
        while "until" in BEHAVIOUR and not Path(BEHAVIOUR["until"]).exists():
            time.sleep(0.02)
        if BEHAVIOUR.get("build") == "abort":
            os.abort()
        if BEHAVIOUR.get("build") == "fail":
            self._log("ERROR", "Error Code 10: no kernel for\n  node Conv_7")
            return None
        if BEHAVIOUR.get("build") == "fail silently":
            return None
        config.cache.content += b"+timings"
        about = {"graph": hashlib.sha256(network.graph).hexdigest(), "profiles": config.profiles, "trt": __version__}
        return IHostMemory(b"plan of " + json.dumps(about).encode())


class _Registry:
    if MAJOR < 11:

        def get_plugin_creator(self, type, version, plugin_namespace=""):
            raise AssertionError("deprecated since 10.0")

    def get_creator(self, type, version, plugin_namespace=""):
        record("get_creator", asked=[type, version, plugin_namespace])
        if _loggers and BEHAVIOUR.get("plugin"):
            return object()
        for logger in _loggers:
            call_back(logger.log, ILogger.Severity.ERROR, f"getCreator: could not find plugin {type} version {version}")
        return None


_loggers = []


def get_plugin_registry():
    return _Registry()


def _init_libnvinfer_plugins(logger, namespace):
    demand_ready(logger, ILogger)
    record("init_libnvinfer_plugins", namespace=namespace)
    _loggers.append(logger)
    return True


if not BEHAVIOUR.get("no_plugin_library"):
    init_libnvinfer_plugins = _init_libnvinfer_plugins
