"""One stream to a server: sends the prompts, and notes when each piece of each answer comes."""

# Through `tritonclient.grpc`'s stub: its client classes drop the id of a request that failed in a stream, and the
# asynchronous one can't ask for an empty final response. One event loop both sends and receives, so a moment is noted
# where a message is written or read, and no other thread has to run first.

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from serve_app.clients.llm.answers import Answer
from serve_app.clients.llm.messages import Question, Response, read_response, write_request
from serve_app.errors import NotFoundError, UnavailableError

CHECK_TIMEOUT_S = 10.0
LOST = "Internal error from Core"  # what gRPC puts in the place of the status when a write meets the end of the stream
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Listener(Protocol):
    """Who wants to hear of it while it happens."""

    def on_text(self, answer: Answer, new: str) -> None: ...

    def on_end(self, answer: Answer) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to, what, and how much at once."""

    url: str
    question: Question
    concurrency: int | None = None
    stream_timeout_s: float | None = None


class Exchange:
    """All prompts over one stream; `answers` is true at every moment, however it ends."""

    def __init__(self, plan: Plan, answers: Sequence[Answer], listener: Listener) -> None:
        self.answers = answers
        self.started_at_s: float | None = None
        self.ended_at_s: float | None = None
        self._plan = plan
        self._listener = listener
        self._open = {str(answer.number): answer for answer in answers}
        self._in_flight: set[str] = set()
        self._free = asyncio.Semaphore(plan.concurrency or max(1, len(answers)))
        self._unnamed: list[str] = []  # errors that came without the id of their request
        self._marks_ends = True

    @property
    def wall_s(self) -> float:
        return (self.ended_at_s or 0.0) - (self.started_at_s or 0.0)

    async def run(self) -> None:
        """Until every prompt is answered or the stream is over; raises only where nothing was sent."""
        async with grpc.aio.insecure_channel(self._plan.url, options=UNLIMITED) as channel:
            stub = GRPCInferenceServiceStub(channel)
            await self._require_model(stub)
            self.started_at_s = time.perf_counter()
            call = stub.ModelStreamInfer(timeout=self._plan.stream_timeout_s)
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
        """Fails early and once, and leaves the time that connecting takes out of the first request's."""
        url = self._plan.url
        try:
            await stub.ModelMetadata(
                pb.ModelMetadataRequest(name=self._plan.question.model), timeout=CHECK_TIMEOUT_S, wait_for_ready=False
            )
        except grpc.aio.AioRpcError as problem:
            if problem.code() == grpc.StatusCode.NOT_FOUND:
                raise NotFoundError(str(problem.details())) from None
            if problem.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise UnavailableError(f"{url} doesn't answer within {CHECK_TIMEOUT_S:g} s") from None
            if problem.code() == grpc.StatusCode.UNAVAILABLE:
                raise UnavailableError(f"{url} is unavailable: {problem.details()}") from None
            # Whatever else it is, the requests' own answers will tell.

    async def _send(self, call: Any) -> None:
        try:
            for answer in self.answers:
                await self._free.acquire()
                request_id = str(answer.number)
                message = write_request(self._plan.question, request_id, answer.prompt)
                self._in_flight.add(request_id)
                answer.sent_at_s = time.perf_counter()
                await call.write(message)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream is over, and whoever reads it learns why

    async def _receive(self, call: Any) -> str | None:
        """The reason why what is still open will get no answer."""
        try:
            while self._open and (message := await call.read()) is not grpc.aio.EOF:
                self._take(read_response(message), time.perf_counter())
        except grpc.aio.AioRpcError as problem:
            return self._reason(problem)
        if self._unnamed:
            return "; ".join(dict.fromkeys(self._unnamed))
        return "the stream ended before the answer did" if self._marks_ends else None

    def _take(self, response: Response, now_s: float) -> None:
        answer = self._open.get(response.request_id)
        if answer is None:
            if response.error and not response.request_id:
                self._take_unnamed(response.error, now_s)
            return
        new = answer.take(response.text, now_s) if response.text is not None else ""
        if new:
            self._listener.on_text(answer, new)
        if response.final or (response.final is None and not self._plan.question.streaming):
            self._end(answer, now_s, response.error)
        elif response.final is None:
            # Only the end of the stream tells; waiting for it to send the next would be waiting forever.
            self._marks_ends = False
            self._land(response.request_id)

    def _take_unnamed(self, error: str, now_s: float) -> None:
        """An error for nobody: with one request waiting it is that one's."""
        waiting = [answer for answer in self._open.values() if answer.sent_at_s is not None]
        if len(waiting) == 1:
            self._end(waiting[0], now_s, error)
        else:
            self._unnamed.append(error)
            self._free.release()

    def _end_open(self, reason: str | None) -> None:
        """What is open when the stream is over; an answer that nothing marks as whole is then as whole as it gets."""
        now_s = time.perf_counter()
        for answer in list(self._open.values()):
            self._end(answer, now_s, reason or (None if answer.text else "the stream ended without an answer"))

    def _end(self, answer: Answer, now_s: float, error: str | None) -> None:
        del self._open[str(answer.number)]
        self._land(str(answer.number))
        answer.end(now_s, error)
        self._listener.on_end(answer)

    def _land(self, request_id: str) -> None:
        if request_id in self._in_flight:
            self._in_flight.remove(request_id)
            self._free.release()

    def _reason(self, problem: Any) -> str:
        if problem.code() == grpc.StatusCode.DEADLINE_EXCEEDED and self._plan.stream_timeout_s is not None:
            return f"no answer within the stream's timeout of {self._plan.stream_timeout_s:g} s"
        if problem.details() == LOST:
            return "the server ended the stream while it was written to"
        return f"the stream broke: {problem.code().name}: {problem.details()}"
