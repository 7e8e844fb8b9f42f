"""What all servers of a process share inside Triton: deleting one server takes it away from the others.

Triton keeps its pool of pinned memory and its metrics in globals that the destructor of any server resets,
also of one that failed to start. Ensembles of the servers that still run could not allocate any more.
"""

from __future__ import annotations

import tempfile
import threading
from ctypes import byref, c_void_p

from .capi import api, check
from .datatypes import ModelControlMode
from .options import CServerOptions, Options

_lock = threading.Lock()
_retired: list[int] = []


def retire(pointer: int, others_run: bool) -> None:
    """Delete a stopped server, or keep it until the last one has stopped."""
    with _lock:
        _retired.append(pointer)
        while _retired and not others_run:
            check(api().ServerDelete(_retired.pop()))


def restore() -> None:
    """Build the shared state again after a failed start, by a server without models that is retired at once."""
    with tempfile.TemporaryDirectory(prefix="serve_app-empty-") as repository, _lock:
        options = Options(model_repository=repository, model_control_mode=ModelControlMode.EXPLICIT)
        pointer = c_void_p()
        with CServerOptions(options) as prepared:
            check(api().ServerNew(byref(pointer), prepared.pointer))
        assert pointer.value is not None
        _retired.append(pointer.value)
