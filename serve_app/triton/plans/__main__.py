"""`python -m serve_app.triton.plans`: the process that builds one plan."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.triton.plans.builder import WORKSPACE_MIB, Profile, build_plan
from serve_app.triton.plans.cache import write_atomically


def main(arguments: Sequence[str] | None = None) -> None:
    # Python's handlers run only when TensorRT returns, after minutes. With the default ones Ctrl-C ends the process at
    # once, and so does a line of progress when the parent process is gone. Otherwise it would keep using the GPU.
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        _build(_parser().parse_args(arguments))
    except (ServeAppError, OSError) as problem:
        sys.exit(f"error: {' '.join(str(problem).split())}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve_app.triton.plans", description="Build a TensorRT plan for the GPU of this machine."
    )
    parser.add_argument("graph", type=Path, help="the ONNX graph; its types and Q/DQ nodes decide the precision")
    parser.add_argument("target", type=Path, help="the plan's file; written completely or not at all")
    parser.add_argument("--name", help="the model's name in lines of progress; default: the graph's file name")
    parser.add_argument("--min", type=int, default=1, help="the smallest batch; default: %(default)s")
    parser.add_argument("--opt", type=int, required=True, help="the batch that the plan is fastest at")
    parser.add_argument("--max", type=int, required=True, help="the largest batch")
    parser.add_argument(
        "--timing-cache", type=Path, help="a file of kernel timings that builds share; created if missing"
    )
    parser.add_argument(
        "--workspace-mib", type=int, default=WORKSPACE_MIB, help="GPU memory a kernel may use; default: %(default)s"
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print TensorRT's version and exit")
    return parser


class _Version(argparse.Action):
    """Exits before argparse requires the positional arguments."""

    def __call__(self, *_: Any) -> None:
        print(_tensorrt().__version__)
        sys.exit(0)


def _tensorrt() -> ModuleType:
    try:
        return importlib.import_module("tensorrt")
    except ImportError as problem:
        raise ConfigurationError(f"TensorRT's Python package can't be loaded: {problem}") from None


def _build(options: argparse.Namespace) -> None:
    def report(line: str) -> None:
        print(f"{options.name or options.graph.name}: {line}", flush=True)

    timing = options.timing_cache
    profile = Profile(options.min, options.opt, options.max)
    known = timing.read_bytes() if timing and timing.exists() else b""
    graph = options.graph.read_bytes()
    plan, learned = build_plan(_tensorrt(), graph, profile, known, report, workspace_mib=options.workspace_mib)
    write_atomically(options.target, plan)
    if timing:
        try:
            write_atomically(timing, learned)
        except OSError as problem:  # costs the next build some time, nothing else
            report(f"the timing cache can't be written: {problem}")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # TensorRT's plugin registry keeps the logger. If Python freed it before TensorRT's libraries are unloaded, the
    # process would crash, which looks like a failed build.
    os._exit(0)
