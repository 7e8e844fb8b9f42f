"""A server of the C API that runs: calls into it, and its end, however that comes."""

from __future__ import annotations

import _thread
import atexit
import json
import logging
import math
import os
import threading
import time
import weakref
from ctypes import byref, c_char_p, c_size_t, c_void_p, string_at
from typing import Any

from . import flight as flights
from . import shared_state
from .capi import api, check, take_error
from .errors import InvalidArgumentError, TritonError, UnavailableError
from .response import InferenceResponse
from .stubs import StubCustody

_FORCED_END_S = 10
_HOPELESS_UNLOAD_S = 3

_log = logging.getLogger(__name__)
_running: weakref.WeakSet[RunningServer] = weakref.WeakSet()
_stopping: set[RunningServer] = set()


class RunningServer:
    """Owns the pointer to a server; calls are counted, so that it is not deleted under one of them."""

    def __init__(self, options: c_void_p, custody: StubCustody, exit_timeout_s: float) -> None:
        self._pid = os.getpid()
        self._custody, self._exit_timeout_s = custody, exit_timeout_s
        self.lost_stub = False
        self._lock = threading.Condition()
        self._calls = 0
        self._pointer = _new_server(options)
        _running.add(self)

    def enter(self) -> int:
        """Announce a call; the server stays until `leave`."""
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

    def json(self, function: str, *arguments: Any) -> Any:
        """The parsed message that a function gives as its last argument."""
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
        """Let work in flight finish, unload the models and delete the server."""
        with self._lock:
            pointer, self._pointer = self._pointer, None
        if pointer is None or os.getpid() != self._pid:
            return
        _stopping.add(self)
        deleted = False
        try:
            deleted = self._stop_and_delete(pointer, self._exit_timeout_s if exit_timeout_s is None else exit_timeout_s)
        finally:
            self._end_flights()
            if deleted:
                self._custody.dismiss()
            else:
                self._custody.clear()
            _stopping.discard(self)

    def _stop_and_delete(self, pointer: int, patience_s: float) -> bool:
        """Whether the server could be deleted."""
        deadline = time.monotonic() + patience_s
        drained = self._wait_for_flights(deadline)
        if not drained:
            # A stub that is stuck in a model: its end makes Triton answer what it had.
            self._custody.kill_stubs()
            drained = self._wait_for_flights(time.monotonic() + _FORCED_END_S)
        unload_s = max(1, math.ceil(deadline - time.monotonic()))
        if not drained or self.lost_stub:
            # Triton never unloads a model whose stub died at work, so waiting for that is in vain.
            unload_s = min(unload_s, _HOPELESS_UNLOAD_S)
        api().ServerSetExitTimeout(pointer, unload_s)
        error = api().ServerStop(pointer)
        reason = str(take_error(error)) if error else ""
        with self._lock:
            idle = self._lock.wait_for(lambda: not self._calls, timeout=_FORCED_END_S)
        if drained and idle and not reason:
            shared_state.retire(pointer, _others_run(self))
            return True
        # Triton's threads would still use the memory of a server deleted under a loaded model: it stays.
        _log.warning("Triton server stopped, but not all models were unloaded: %s", reason or "calls into it")
        if not drained:
            raise UnavailableError(f"Server stopped with work in flight that did not end: {reason}")
        return False

    def _wait_for_flights(self, deadline: float) -> bool:
        while flights.flights_of(self):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def __del__(self) -> None:
        # The collector may run on one of Triton's threads, which stopping waits for: not here, then.
        if getattr(self, "_pointer", None) is not None and os.getpid() == self._pid:
            _stopping.add(self)
            _thread.start_new_thread(self._stop_quietly, ())

    def _stop_quietly(self, exit_timeout_s: float | None = None) -> None:
        try:
            self.stop(exit_timeout_s)
        except Exception:
            _log.exception("Triton server did not stop")

    def _end_flights(self) -> None:
        """Tell who still waits that nothing will come."""
        for flight in flights.flights_of(self):
            if not flight.final:
                flight.final = True
                error = UnavailableError("Server stopped before the request was answered")
                answer = InferenceResponse(flight.model_of("", -1), flight.request_id or "", error=error, final=True)
                flight.deliver(answer)


def _new_server(options: c_void_p) -> int | None:
    pointer = c_void_p()
    try:
        check(api().ServerNew(byref(pointer), options))
    except TritonError:
        if _others_run(None):
            shared_state.restore()
        raise
    return pointer.value


def _others_run(server: RunningServer | None) -> bool:
    return any(other is not server and other._pointer is not None for other in list(_running)) or any(
        other is not server for other in list(_stopping)
    )


def _stop_all() -> None:
    """At the end of the interpreter, before Triton's threads would call into what is gone."""
    for server in list(_running):
        server._stop_quietly(exit_timeout_s=5)
    deadline = time.monotonic() + 30
    while _stopping and time.monotonic() < deadline:
        time.sleep(0.01)


atexit.register(_stop_all)
