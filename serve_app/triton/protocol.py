"""The KServe protocol on one Triton server: inference, readiness, metadata, configuration, statistics."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from serve_app.errors import EngineError, ModelError, ServeAppError, UnsupportedError
from serve_app.telemetry.tracing import is_traced, request_id
from serve_app.triton.binding import translated
from serve_app.triton.conversion import create_request, read_answer
from serve_app.triton.engine import Engine
from serve_app.triton.timing import Timing, record_spans
from serve_app.types.deadlines import left_s, until
from serve_app.types.tensors import InferAnswer, InferRequest

BATCHED = 2  # the C API's flag: the first dimension is the batch
DECOUPLED = 2


class Protocol:
    """Answers with Triton's own messages, which clients know, but without stack traces."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def infer(self, asked: InferRequest) -> InferAnswer:
        """The one response of a model that isn't decoupled."""
        with translated():
            if int(self._engine.model(asked.model, asked.version).transaction_properties()) & DECOUPLED:
                raise UnsupportedError(
                    f"model '{asked.model}' is decoupled, so it may give any number of responses: "
                    "use generate_stream or ModelStreamInfer"
                )
        async with aclosing(self.stream(asked)) as answers:
            async for answer in answers:
                return answer
        raise ModelError(f"model '{asked.model}' ended without a response")

    async def stream(self, asked: InferRequest) -> AsyncGenerator[InferAnswer]:
        """Every response as it comes; the rest is cancelled when the caller stops listening."""
        left_s(asked.deadline, _late(asked))
        try:
            async with aclosing(self._responses(asked)) as answers:
                async for answer in answers:
                    yield answer
        except EngineError as problem:
            raise ModelError(problem.message) from None

    async def _responses(self, asked: InferRequest) -> AsyncGenerator[InferAnswer]:
        with self._engine.watching(asked.model), translated():
            model = self._engine.model(asked.model, asked.version)
            batched = bool(int(model.batch_properties()) & BATCHED)
            request = create_request(model, asked, _queue_limit_us(asked))
            timing = Timing(request) if is_traced() else None
            responses = model.async_infer(request)
            complete = False
            try:
                while not complete:
                    async with until(asked.deadline, _passed(asked), _late(asked)):
                        response = await anext(responses, None)
                    if response is None:
                        return
                    complete = response.final
                    if timing and complete:
                        record_spans(await timing.computed(), asked.id or request_id())
                    yield read_answer(response, asked, lambda: self._labels(asked.model), batched)
            finally:
                if not complete:
                    responses.cancel()

    def _labels(self, name: str) -> Mapping[str, Sequence[str]]:
        """Read each time: a model that is loaded again may have other labels."""
        folder = self._engine.repository.path / name
        outputs = self._engine.model(name).config()["output"]
        files = {output["name"]: folder / output["label_filename"] for output in outputs if output["label_filename"]}
        return {output: path.read_text().splitlines() for output, path in files.items() if path.is_file()}

    def ready(self, name: str, version: int = -1) -> bool:
        """Never raises: a model that isn't known isn't ready."""
        try:
            with translated():
                return bool(self._engine.model(name, version).ready())
        except ServeAppError:
            return False

    def metadata(self, name: str, version: int = -1) -> dict[str, Any]:
        with translated():
            return dict(self._engine.model(name, version).metadata())

    def config(self, name: str, version: int = -1) -> dict[str, Any]:
        with translated():
            return dict(self._engine.model(name, version).config())

    def statistics(self, name: str = "", version: int = -1) -> list[dict[str, Any]]:
        """A row for each version of a model, or of all."""
        with translated():
            return list(self._engine.model(name, version).statistics()["model_stats"])


def _late(asked: InferRequest) -> str:
    return f"the deadline passed before the request reached model '{asked.model}'"


def _passed(asked: InferRequest) -> str:
    return f"the deadline passed while model '{asked.model}' worked on the request"


def _queue_limit_us(asked: InferRequest) -> int:
    """How long the request may wait in Triton's queue, if the model's policy lets requests set it."""
    if asked.timeout_us or asked.deadline is None:
        return asked.timeout_us
    return max(1, int((asked.deadline - time.time()) * 1e6))
