"""One model of a server: its metadata, and how requests are sent to it."""

from __future__ import annotations

import asyncio
import queue
from ctypes import byref, c_bool, c_uint32, c_void_p
from typing import Any

from .capi import api, take_error, text
from .datatypes import ModelBatchFlag, ModelTxnPropertyFlag
from .errors import InvalidArgumentError
from .inference import Inference
from .iterators import AsyncResponseIterator, ResponseIterator
from .request import InferenceRequest
from .running import RunningServer
from .trace import InferenceTrace


class Model:
    """A model by name and version (-1: the latest), as the methods of Server return it."""

    __slots__ = ("__weakref__", "_server", "name", "reason", "state", "version")

    def __init__(
        self,
        server: RunningServer,
        name: str,
        version: int = -1,
        state: str | None = None,
        reason: str | None = None,
    ) -> None:
        self._server = server
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
        """Send a request and return an iterator whose `next` waits for the responses."""
        request = inference_request or InferenceRequest(model=self, **kwargs)
        target = request.response_queue
        if target is not None and not isinstance(target, queue.SimpleQueue):
            raise InvalidArgumentError("queue.SimpleQueue must be used for response iterator")
        iterator = ResponseIterator(target, raise_on_error)
        _submit(request, iterator)
        return iterator

    def async_infer(
        self, inference_request: InferenceRequest | None = None, raise_on_error: bool = True, **kwargs: Any
    ) -> AsyncResponseIterator:
        """Send a request and return an asynchronous iterator for the running event loop."""
        request = inference_request or InferenceRequest(model=self, **kwargs)
        target = request.response_queue
        if target is not None and not isinstance(target, asyncio.Queue):
            raise InvalidArgumentError("asyncio.Queue must be used for async response iterator")
        iterator = AsyncResponseIterator(target, raise_on_error, asyncio.get_running_loop())
        _submit(request, iterator)
        return iterator

    def _answering(self, name: str, version: int) -> Model:
        """The model that a response names: for version -1 the one that ran."""
        return Model(self._server, name or self.name, version if name else self.version)

    def metadata(self) -> dict[str, Any]:
        """Name, versions, platform, inputs and outputs."""
        return self._json("ServerModelMetadata")

    def statistics(self) -> dict[str, Any]:
        """Counts and durations of the model's inferences."""
        return self._json("ServerModelStatistics")

    def config(self, config_version: int = 1) -> dict[str, Any]:
        """The model configuration, completed by the server."""
        return self._json("ServerModelConfig", config_version)

    def ready(self) -> bool:
        """Whether the model accepts requests."""
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


def _submit(request: InferenceRequest, iterator: ResponseIterator | AsyncResponseIterator) -> None:
    """Send a request to its own model, whichever model's `infer` was called."""
    model = request.model
    if not isinstance(model, Model):
        raise InvalidArgumentError(f"model of a request must be a Model, got {model!r}")
    tensors, placement = request._tensors(), request._placement()
    server = model._server
    pointer = server.enter()
    try:
        created = request._create(pointer, tensors)
        inference = Inference(
            server.inferences,
            created,
            request.request_id,
            list(tensors.values()),
            placement,
            iterator._deliver,
            model._answering,
        )
        _launch(pointer, inference, request.trace)
    finally:
        server.leave()
    request._cancel = iterator._cancel = inference.cancel


def _launch(server: int, inference: Inference, trace: InferenceTrace | None) -> None:
    library, traced = api(), None
    try:
        inference.register()
        traced = trace.create() if trace else None
    except BaseException:
        inference.release()
        inference.forget()
        raise
    # Not in the `try`: an interrupt that arrives when the call returns must not free what Triton owns.
    error = library.ServerInferAsync(server, inference.pointer, traced)
    if error:
        if trace and traced:
            trace.discard(traced)
        inference.release()  # a request that Triton refused still belongs to the caller
        inference.forget()
        raise take_error(error)
