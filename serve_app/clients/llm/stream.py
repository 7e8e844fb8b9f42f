"""Prompts over one gRPC stream: sends them, and records when each part of each answer arrives."""

# Uses the stub of `tritonclient.grpc`: its client classes lose the id of a request that fails in a stream, and the
# asynchronous one can't enable the empty final response. One event loop sends and receives, so that times are taken
# where a message is written or read, without waiting for another thread.

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from serve_app.clients.llm.answer import Answer
from serve_app.clients.llm.tensors import Response, build_request, read_response
from serve_app.errors import NotFoundError, UnauthorizedError, UnavailableError
from serve_app.keys.headers import key_headers

CHECK_TIMEOUT_S = 10.0
STREAM_ENDED = "Internal error from Core"  # gRPC reports this, not the status, if a write meets the end of the stream
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """`concurrency` limits the requests in flight, `timeout_s` the whole stream; None is no limit."""

    url: str
    model: str
    streaming: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    timeout_s: float | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Called while answers arrive."""

    on_text: Callable[[Answer, str], None] = lambda _answer, _new: None
    on_end: Callable[[Answer], None] = lambda _answer: None


class PromptStream:
    """All prompts over one stream; `answers` is up to date at any time, however the stream ends."""

    def __init__(self, options: StreamOptions, answers: Sequence[Answer], callbacks: Callbacks | None = None) -> None:
        self.answers = answers
        self.started_at_s: float | None = None
        self.ended_at_s: float | None = None
        self._options = options
        self._metadata = tuple(key_headers(options.key).items())
        self._callbacks = callbacks or Callbacks()
        self._open = {str(answer.number): answer for answer in answers}
        self._in_flight: set[str] = set()
        self._slots = asyncio.Semaphore(options.concurrency or max(1, len(answers)))
        self._errors_without_id: list[str] = []
        self._marks_final = True

    @property
    def wall_s(self) -> float:
        return (self.ended_at_s or 0.0) - (self.started_at_s or 0.0)

    async def run(self) -> None:
        """Until every prompt is answered or the stream is over; raises only before anything was sent."""
        async with grpc.aio.insecure_channel(self._options.url, options=UNLIMITED) as channel:
            stub = GRPCInferenceServiceStub(channel)
            await self._require_model(stub)
            self.started_at_s = time.perf_counter()
            call = stub.ModelStreamInfer(timeout=self._options.timeout_s, metadata=self._metadata)
            try:
                async with asyncio.TaskGroup() as tasks:
                    sender = tasks.create_task(self._send(call))
                    self._end_open(await self._receive(call))
                    sender.cancel()
            finally:
                call.cancel()
                self._end_open("interrupted")
                self.ended_at_s = time.perf_counter()

    async def _require_model(self, stub: Any) -> None:
        """Fail early and once, and connect before the first request's time is taken."""
        url, request = self._options.url, pb.ModelMetadataRequest(name=self._options.model)
        try:
            await stub.ModelMetadata(request, timeout=CHECK_TIMEOUT_S, wait_for_ready=False, metadata=self._metadata)
        except grpc.aio.AioRpcError as problem:
            if problem.code() == grpc.StatusCode.NOT_FOUND:
                raise NotFoundError(str(problem.details())) from None
            if problem.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise UnavailableError(f"{url} did not answer within {CHECK_TIMEOUT_S:g} s") from None
            if problem.code() == grpc.StatusCode.UNAVAILABLE:
                raise UnavailableError(f"{url} is unavailable: {problem.details()}") from None
            if problem.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise UnauthorizedError(str(problem.details())) from None
            # Any other error will be reported by the requests themselves.

    async def _send(self, call: Any) -> None:
        options = self._options
        try:
            for answer in self.answers:
                await self._slots.acquire()
                request_id = str(answer.number)
                message = build_request(options.model, request_id, answer.prompt, options.streaming, options.sampling)
                self._in_flight.add(request_id)
                answer.sent_at_s = time.perf_counter()
                await call.write(message)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream is over; _receive gets the reason

    async def _receive(self, call: Any) -> str | None:
        """Why the requests that are still open will get no answer."""
        try:
            while self._open and (message := await call.read()) is not grpc.aio.EOF:
                self._handle(read_response(message), time.perf_counter())
        except grpc.aio.AioRpcError as problem:
            return self._describe(problem)
        if self._errors_without_id:
            return "; ".join(dict.fromkeys(self._errors_without_id))
        return "the stream ended before the answer was complete" if self._marks_final else None

    def _handle(self, response: Response, now_s: float) -> None:
        answer = self._open.get(response.request_id)
        if answer is None:
            if response.error and not response.request_id:
                self._handle_error_without_id(response.error, now_s)
            return
        new = answer.update(response.text, now_s) if response.text is not None else ""
        if new:
            self._callbacks.on_text(answer, new)
        if response.final or (response.final is None and not self._options.streaming):
            self._end(answer, now_s, response.error)
        elif response.final is None:
            # Only the end of the stream ends this answer, so the next prompt must not wait for it.
            self._marks_final = False
            self._free_slot(response.request_id)

    def _handle_error_without_id(self, error: str, now_s: float) -> None:
        """It belongs to the waiting request if there is only one."""
        waiting = [answer for answer in self._open.values() if answer.sent_at_s is not None]
        if len(waiting) == 1:
            self._end(waiting[0], now_s, error)
        else:
            self._errors_without_id.append(error)
            self._slots.release()

    def _end_open(self, reason: str | None) -> None:
        """Without a reason, an answer that has text is taken as complete."""
        now_s = time.perf_counter()
        for answer in list(self._open.values()):
            self._end(answer, now_s, reason or (None if answer.text else "the stream ended without an answer"))

    def _end(self, answer: Answer, now_s: float, error: str | None) -> None:
        del self._open[str(answer.number)]
        self._free_slot(str(answer.number))
        answer.end(now_s, error)
        self._callbacks.on_end(answer)

    def _free_slot(self, request_id: str) -> None:
        if request_id in self._in_flight:
            self._in_flight.remove(request_id)
            self._slots.release()

    def _describe(self, problem: Any) -> str:
        if problem.code() == grpc.StatusCode.DEADLINE_EXCEEDED and self._options.timeout_s is not None:
            return f"no answer within the stream timeout of {self._options.timeout_s:g} s"
        if problem.details() == STREAM_ENDED:
            return "the server ended the stream while requests were being sent"
        return f"the stream broke: {problem.code().name}: {problem.details()}"


def ask(
    prompts: Iterable[str],
    model: str = "demo-llm",
    url: str = "localhost:8001",
    concurrency: int | None = None,
    timeout_s: float | None = None,
    key: str = "",
    **sampling: Any,
) -> list[Answer]:
    """Send prompts over one stream and return their answers in the same order.

    `sampling` takes vLLM's sampling parameters, such as max_tokens=60. The `text` of an answer begins with its prompt;
    the `error` of a failed one says why. Starts an event loop: not for use inside a running one.
    """
    answers = [Answer(number, prompt) for number, prompt in enumerate(prompts)]
    options = StreamOptions(url, model, True, sampling, concurrency, timeout_s, key)
    asyncio.run(PromptStream(options, answers).run())
    return answers
