"""Imports vLLM for the engine's process while the replica imports it too; vLLM would begin that only afterwards."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

# What the engine's process imports; the worker's has another environment, with which it must start afresh.
MODULES = ["vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor", "vllm.transformers_utils.config"]


def begin_import() -> None:
    """In a process of its own, from which the engine is forked; it has no threads and knows nothing of Ray."""
    multiprocessing.set_forkserver_preload(MODULES)
    forkserver.ensure_running()


def use_for_engine() -> None:
    """For one engine on processors. Inside of an actor vLLM would start a fresh interpreter."""
    from vllm.v1.engine import utils

    utils.get_mp_context = EngineContext


class EngineProcess(ForkServerProcess):
    """Has the environment of its parent by now, not that of the time when the import began."""

    def __init__(self, *, target: Callable[..., object], name: str, kwargs: Mapping[str, Any]) -> None:
        passed = {"environment": dict(os.environ), "target": target, **kwargs}
        super().__init__(target=run_in, name=name, kwargs=passed)


class EngineContext(ForkServerContext):
    Process = EngineProcess


def run_in(environment: Mapping[str, str], target: Callable[..., object], **named: Any) -> None:
    for name in os.environ.keys() | environment.keys():  # only what differs: setproctitle needs the rest where it is
        if name not in environment:
            del os.environ[name]
        elif os.environ.get(name) != environment[name]:
            os.environ[name] = environment[name]
    target(**named)
