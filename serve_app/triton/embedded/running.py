"""A running server of the C API: calls into it, its stop, and the state that all servers of the process share."""

from __future__ import annotations

import _thread
import atexit
import json
import logging
import math
import os
import tempfile
import threading
import time
import weakref
from ctypes import CDLL, byref, c_char_p, c_size_t, c_void_p, cast, string_at
from typing import Any

from .capi import api, check, take_error
from .datatypes import ModelControlMode
from .errors import InvalidArgumentError, TritonError, UnavailableError
from .inference import InferenceGroup
from .options import CServerOptions, Options
from .stubs import StubCleanup

_FORCED_END_S = 10
# Unloading a Python model takes a second or two. A server whose unloading is cut short can't be deleted.
_UNLOAD_S = 10
_HOPELESS_UNLOAD_S = 3
# A thread of Triton's that has just loaded a model, or answered a request, has a few instructions left to do. If the
# model is unloaded before the scheduler lets it do them, Triton crashes (StopBackendThread: an empty model_instances_).
_SETTLE_S = 0.05

_log = logging.getLogger(__name__)
_running: weakref.WeakSet[RunningServer] = weakref.WeakSet()
_stopping: set[RunningServer] = set()

# Triton keeps its pool of pinned memory and its metrics in globals. The destructor of any server resets them, also
# of one that failed to start, and the ensembles of the servers that still run could not allocate any more. So a
# stopped server is kept here until the last one has stopped.
_stopped: list[int] = []
_stopped_lock = threading.Lock()
_undeletable: list[int] = []

# The Python backend is loaded once a process, and names all regions as the server that loaded it was configured: the
# stubs of one server may have the prefix of another. So all are cleaned up when the last server has stopped.
_cleanups: list[tuple[StubCleanup, bool]] = []


class RunningServer:
    """Owns the pointer to a server and counts the calls into it, so that none sees it deleted."""

    def __init__(self, options: c_void_p, cleanup: StubCleanup, exit_timeout_s: float) -> None:
        self._pid = os.getpid()
        self._cleanup, self._exit_timeout_s = cleanup, exit_timeout_s
        self.inferences = InferenceGroup()
        self._lock = threading.Condition()
        self._calls = 0
        self._pointer = _new_server(options)
        _running.add(self)

    def enter(self) -> int:
        """Begin a call: the server is not deleted before `leave`."""
        with self._lock:
            if self._pointer is None or os.getpid() != self._pid:
                raise InvalidArgumentError("Server not started")
            self._calls += 1
            return self._pointer

    def leave(self) -> None:
        with self._lock:
            self._calls -= 1
            if not self._calls:
                self._lock.notify_all()

    def call(self, function: str, *arguments: Any) -> None:
        pointer = self.enter()
        try:
            check(getattr(api(), function)(pointer, *arguments))
        finally:
            self.leave()

    def unload(self, function: str, name: bytes) -> None:
        time.sleep(_SETTLE_S)
        self.call(function, name)

    def json(self, function: str, *arguments: Any) -> Any:
        """The message that a function returns through its last argument."""
        message = c_void_p()
        self.call(function, *arguments, byref(message))
        try:
            base, size = c_char_p(), c_size_t()
            check(api().MessageSerializeToJson(message, byref(base), byref(size)))
            return json.loads(string_at(base, size.value))
        finally:
            api().MessageDelete(message)

    def metrics(self, metric_format: int) -> str:
        handle = c_void_p()
        self.call("ServerMetrics", byref(handle))
        try:
            base, size = c_char_p(), c_size_t()
            check(api().MetricsFormatted(handle, metric_format, byref(base), byref(size)))
            return string_at(base, size.value).decode("utf-8", "replace")
        finally:
            api().MetricsDelete(handle)

    def stop(self, exit_timeout_s: float | None = None) -> None:
        """Let inferences in progress finish, unload the models and delete the server."""
        with self._lock:
            pointer, self._pointer = self._pointer, None
        if pointer is None or os.getpid() != self._pid:
            return
        _stopping.add(self)
        deleted = False
        try:
            deleted = self._stop_and_delete(pointer, self._exit_timeout_s if exit_timeout_s is None else exit_timeout_s)
        finally:
            self.inferences.end(UnavailableError("Server stopped before the request was answered"))
            _cleanups.append((self._cleanup, deleted))
            _stopping.discard(self)
            if not _others_run(self):
                _clean_up()

    def _stop_and_delete(self, pointer: int, timeout_s: float) -> bool:
        """Whether the server could be deleted."""
        deadline = time.monotonic() + timeout_s
        drained = self._wait_for_inferences(deadline)
        if not drained:
            # A stub may be stuck in a model: killing it makes Triton answer its requests.
            self._cleanup.kill_stubs()
            drained = self._wait_for_inferences(time.monotonic() + _FORCED_END_S)
        # Triton never unloads a model whose stub died during a request, so waiting for it is in vain.
        hopeless = not drained or self.inferences.lost_stub
        unload_s = _HOPELESS_UNLOAD_S if hopeless else max(_UNLOAD_S, math.ceil(deadline - time.monotonic()))
        time.sleep(_SETTLE_S)
        api().ServerSetExitTimeout(pointer, unload_s)
        error = api().ServerStop(pointer)
        reason = str(take_error(error)) if error else ""
        with self._lock:
            idle = self._lock.wait_for(lambda: not self._calls, timeout=_FORCED_END_S)
        if drained and idle and not reason:
            _delete(pointer, others_run=_others_run(self))
            return True
        # Triton's threads would use the memory of a server that is deleted under a loaded model: it stays.
        _undeletable.append(pointer)
        _log.warning("Triton server stopped, but not all models were unloaded: %s", reason or "calls are in progress")
        if not drained:
            raise UnavailableError(f"Server stopped with requests that did not end: {reason}")
        return False

    def _wait_for_inferences(self, deadline: float) -> bool:
        while self.inferences.members:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def __del__(self) -> None:
        # The collector may run on one of Triton's threads, for which stopping waits: stop in another thread.
        if getattr(self, "_pointer", None) is not None and os.getpid() == self._pid:
            _stopping.add(self)
            _thread.start_new_thread(self._stop_quietly, ())

    def _stop_quietly(self, exit_timeout_s: float | None = None) -> None:
        try:
            self.stop(exit_timeout_s)
        except Exception:
            _log.exception("Triton server did not stop")


def _new_server(options: c_void_p) -> int | None:
    pointer = c_void_p()
    try:
        check(api().ServerNew(byref(pointer), options))
    except TritonError:
        if _others_run(None):
            _restore_shared_state()
        raise
    return pointer.value


def _delete(pointer: int, others_run: bool) -> None:
    """Delete a stopped server, or keep it until the last one has stopped."""
    with _stopped_lock:
        _stopped.append(pointer)
        while _stopped and not others_run:
            check(api().ServerDelete(_stopped.pop()))


def _restore_shared_state() -> None:
    """Rebuild the state that a failed start has reset, with a server without models that counts as stopped."""
    with _stopped_lock:
        _stopped.append(_new_empty_server())


def _new_empty_server() -> int:
    with tempfile.TemporaryDirectory(prefix="serve_app-empty-") as repository:
        options = Options(model_repository=repository, model_control_mode=ModelControlMode.EXPLICIT)
        pointer = c_void_p()
        with CServerOptions(options) as prepared:
            check(api().ServerNew(byref(pointer), prepared.pointer))
        assert pointer.value is not None
        return pointer.value


def _clean_up() -> None:
    while _cleanups:
        cleanup, deleted = _cleanups.pop()
        if deleted:
            cleanup.dismiss()
        else:
            cleanup.clear()


def _others_run(server: RunningServer | None) -> bool:
    return any(other is not server and other._pointer is not None for other in list(_running)) or any(
        other is not server for other in list(_stopping)
    )


def _stop_all() -> None:
    """Stop all servers before the interpreter shuts down: Triton's threads would call into freed objects."""
    for server in list(_running):
        server._stop_quietly(exit_timeout_s=5)
    deadline = time.monotonic() + 30
    while _stopping and time.monotonic() < deadline:
        time.sleep(0.01)
    if _undeletable:
        _exit_before_destructors()


def _exit_before_destructors() -> None:
    """End the process, when the time comes, before Triton's static destructors.

    A server that is still there has threads that use these objects, and its pool of pinned memory is destroyed after
    what it refers to: both corrupt the heap. Handlers run in reverse, and Triton's were there before this one.
    """
    libc = CDLL(None)
    libc.on_exit(cast(libc._exit, c_void_p), None)


def _after_fork() -> None:
    """A child has the servers of its parent without their threads, and can't delete them."""
    if _running or _undeletable:
        _exit_before_destructors()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_after_fork)
