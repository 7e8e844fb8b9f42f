"""Python's state of Triton's own threads, made at a thread's first callback and kept until the thread has ended.

ctypes would make one for each callback and free it after: that maps and unmaps memory, which interrupts all processors,
and it took a third of what a request costs beside its engine.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from ctypes import c_int, c_void_p
from typing import Any

from .capi import immortal

TASKS = "/proc/self/task"
_ensure = ctypes.PYFUNCTYPE(c_int)(("PyGILState_Ensure", ctypes.pythonapi))
_current = ctypes.PYFUNCTYPE(c_void_p)(("PyThreadState_Get", ctypes.pythonapi))
_clear = ctypes.PYFUNCTYPE(None, c_void_p)(("PyThreadState_Clear", ctypes.pythonapi))
_delete = ctypes.PYFUNCTYPE(None, c_void_p)(("PyThreadState_Delete", ctypes.pythonapi))
_seen = threading.local()  # is lost with a thread's state
_states: dict[int, int] = {}  # by the system's number of the thread


def on_tritons_thread(kind: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Any]:
    """A callback of this type, which Triton's threads call."""

    def make(function: Callable[..., Any]) -> Any:
        def called(*arguments: Any) -> Any:
            if not hasattr(_seen, "thread"):
                _keep_state()
            return function(*arguments)

        return immortal(kind(called))

    return make


def _keep_state() -> None:
    _seen.thread = True
    if threading.get_ident() in [thread.ident for thread in threading.enumerate()]:
        return  # Python started it, and ends its state
    _free_ended()
    _ensure()  # without its counterpart: the state is used once more than it is let go
    _states[threading.get_native_id()] = _current()


def _free_ended() -> None:
    """The states of threads that ended since: those of models that were unloaded."""
    running = {int(name) for name in os.listdir(TASKS)} - {threading.get_native_id()}
    for thread in [thread for thread in _states if thread not in running]:
        state = _states.pop(thread)
        _clear(state)
        _delete(state)


os.register_at_fork(after_in_child=_states.clear)  # Python has freed the others there
