"""One model of a server: its metadata, and the way requests are sent to it."""

from __future__ import annotations

import asyncio
import queue
from ctypes import byref, c_bool, c_uint32, c_void_p
from typing import TYPE_CHECKING, Any

from . import flight as flights
from .capi import api, take_error, text
from .datatypes import ModelBatchFlag, ModelTxnPropertyFlag
from .errors import InvalidArgumentError
from .request import InferenceRequest
from .response import AsyncResponseIterator, ResponseIterator

if TYPE_CHECKING:
    from .running import RunningServer
    from .server import Server
    from .trace import InferenceTrace


class Model:
    """A model by name and version (-1: the latest), as the factory methods of Server give it."""

    __slots__ = ("__weakref__", "_server", "name", "reason", "state", "version")

    def __init__(
        self,
        server: Server,
        name: str,
        version: int = -1,
        state: str | None = None,
        reason: str | None = None,
    ) -> None:
        self._server: RunningServer = server._require_started()
        self.name, self.version, self.state, self.reason = name, version, state, reason

    def __repr__(self) -> str:
        return repr({"name": self.name, "version": self.version, "state": self.state})

    def create_request(self, **kwargs: Any) -> InferenceRequest:
        """A request to this model; the arguments are the fields of InferenceRequest."""
        kwargs.pop("model", None)
        return InferenceRequest(model=self, **kwargs)

    def infer(
        self, inference_request: InferenceRequest | None = None, raise_on_error: bool = True, **kwargs: Any
    ) -> ResponseIterator:
        """Send a request and give an iterator whose `next` waits for the responses."""
        request = inference_request or InferenceRequest(model=self, **kwargs)
        target = request.response_queue
        if target is not None and not isinstance(target, queue.SimpleQueue):
            raise InvalidArgumentError("queue.SimpleQueue must be used for response iterator")
        iterator = ResponseIterator(target, raise_on_error)
        self._submit(request, iterator)
        return iterator

    def async_infer(
        self, inference_request: InferenceRequest | None = None, raise_on_error: bool = True, **kwargs: Any
    ) -> AsyncResponseIterator:
        """Send a request and give an asynchronous iterator for the loop that runs now."""
        request = inference_request or InferenceRequest(model=self, **kwargs)
        target = request.response_queue
        if target is not None and not isinstance(target, asyncio.Queue):
            raise InvalidArgumentError("asyncio.Queue must be used for async response iterator")
        iterator = AsyncResponseIterator(target, raise_on_error, asyncio.get_running_loop())
        self._submit(request, iterator)
        return iterator

    def _submit(self, request: InferenceRequest, iterator: ResponseIterator | AsyncResponseIterator) -> None:
        tensors, placement = request._tensors(), request._placement()
        # The request's own model decides where it goes; this one only receives the call.
        target = request.model
        server = target._server
        pointer = server.enter()
        try:
            created = request._create(pointer, tensors)
            flight = flights.Flight(
                server,
                created,
                request.request_id,
                list(tensors.values()),
                placement,
                iterator._deliver,
                target._answering,
            )
            self._launch(pointer, flight, created, request.trace)
        finally:
            server.leave()
        request._flight = iterator._flight = flight

    @staticmethod
    def _launch(server: int, flight: flights.Flight, request: int, trace: InferenceTrace | None) -> None:
        library, traced = api(), None
        try:
            flights.register(flight)
            traced = trace.create() if trace else None
        except BaseException:
            Model._take_back(flight, request)
            raise
        # Outside of the try: an interrupt that is delivered when the call returns must not free what Triton has.
        error = library.ServerInferAsync(server, request, traced)
        if error:
            if trace and traced:
                trace.discard(traced)
            Model._take_back(flight, request)
            raise take_error(error)

    @staticmethod
    def _take_back(flight: flights.Flight, request: int) -> None:
        """A request that Triton refused is still ours."""
        flight.released = True
        flight.forget()
        api().InferenceRequestDelete(request)

    def _answering(self, name: str, version: int) -> Model:
        """The model that a response names, which for -1 is the version that ran."""
        answer = Model.__new__(Model)
        answer._server = self._server
        answer.name, answer.version = name or self.name, version if name else self.version
        answer.state = answer.reason = None
        return answer

    def metadata(self) -> dict[str, Any]:
        """Name, versions, platform, inputs and outputs."""
        return self._json("ServerModelMetadata")

    def statistics(self) -> dict[str, Any]:
        """Counts and times of what the model did."""
        return self._json("ServerModelStatistics")

    def config(self, config_version: int = 1) -> dict[str, Any]:
        """The model configuration, completed by the server."""
        return self._json("ServerModelConfig", config_version)

    def ready(self) -> bool:
        """Whether the model takes requests."""
        result = c_bool()
        self._server.call("ServerModelIsReady", *self._id(), byref(result))
        return result.value

    def batch_properties(self) -> ModelBatchFlag:
        """Whether the first dimension is the batch."""
        flags, unused = c_uint32(), c_void_p()
        self._server.call("ServerModelBatchProperties", *self._id(), byref(flags), byref(unused))
        return ModelBatchFlag(flags.value)

    def transaction_properties(self) -> ModelTxnPropertyFlag:
        """Whether a request has exactly one response."""
        flags, unused = c_uint32(), c_void_p()
        self._server.call("ServerModelTransactionProperties", *self._id(), byref(flags), byref(unused))
        return ModelTxnPropertyFlag(flags.value)

    def _id(self) -> tuple[bytes, int]:
        return text(self.name, "model name"), self.version

    def _json(self, function: str, *arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = self._server.json(function, *self._id(), *arguments)
        return result
