"""The bidirectional stream: many requests at once, each answered under its id, and each failing alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from serve_app.router.errors import public_error
from serve_app.router.kserve.messages import EMPTY_FINAL, read_message, write_message
from serve_app.router.observe import GRPC
from serve_app.router.offload import Offload
from serve_app.router.plane import DataPlane
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.telemetry.observation import observed
from serve_app.types.tensors import InferRequest

FINAL = "triton_final_response"
# Requests of one stream in progress at once; further ones wait in the client, held back by flow control.
MAX_AT_ONCE = 256
Enter = Callable[[str], AbstractAsyncContextManager[None]]  # counts a request for a model against limits of its caller


async def answer_stream(
    plane: DataPlane,
    requests: AsyncIterator[Any],
    deadline: float,
    metrics: RequestMetrics,
    offload: Offload,
    enter: Enter,
) -> AsyncIterator[Any]:
    """Answers as they come; when the client leaves, requests in progress are cancelled."""
    stream = _Stream(plane, deadline, metrics, offload, enter)
    reader = asyncio.create_task(stream.read(requests))
    try:
        while (answer := await stream.next()) is not None:
            yield answer
        await reader
    finally:
        reader.cancel()
        stream.cancel()


class _Stream:
    """The requests in flight of one call."""

    def __init__(
        self, plane: DataPlane, deadline: float, metrics: RequestMetrics, offload: Offload, enter: Enter
    ) -> None:
        self._plane = plane
        self._deadline = deadline
        self._metrics = metrics
        self._offload = offload
        self._enter = enter
        self._tasks: set[asyncio.Task[None]] = set()
        self._sequences: dict[int | str, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(MAX_AT_ONCE)
        self._room = asyncio.Semaphore(
            MAX_AT_ONCE
        )  # limits queued answers; the end marker takes no slot, so that it never waits
        self._answers: asyncio.Queue[Any] = asyncio.Queue()

    async def next(self) -> Any:
        """The next answer, or None at the end."""
        answer = await self._answers.get()
        self._room.release()
        return answer

    async def _put(self, answer: Any) -> None:
        observed().sent_bytes += answer.ByteSize()
        await self._room.acquire()
        self._answers.put_nowait(answer)

    async def read(self, requests: AsyncIterator[Any]) -> None:
        """Until the client has sent its last request and all are answered."""
        try:
            async for message in requests:
                await self._free.acquire()
                await self._begin(message)
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            self._answers.put_nowait(None)

    async def _begin(self, message: Any) -> None:
        try:
            asked = await read_message(message, self._deadline, self._offload)
        except Exception as problem:
            task = asyncio.create_task(self._observe(message, partial(self._fail, message, problem)))
        else:
            work = partial(self._answer, message, asked, self._sequences.get(asked.sequence.key))
            task = asyncio.create_task(self._observe(message, work))
            if asked.sequence.key:
                self._sequences[asked.sequence.key] = task
                task.add_done_callback(partial(self._forget, asked.sequence.key))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _forget(self, key: int | str, task: asyncio.Task[None]) -> None:
        if self._sequences.get(key) is task:
            del self._sequences[key]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free.release()

    async def _observe(self, message: Any, work: Callable[[], Awaitable[None]]) -> None:
        with self._metrics.observe(GRPC) as observation:
            observation.received_bytes = message.ByteSize()
            await work()

    async def _answer(self, message: Any, asked: InferRequest, before: asyncio.Task[None] | None) -> None:
        """The requests of a sequence must reach their model one after the other."""
        wants_final = _wants_final(message)
        if before:
            await asyncio.wait((before,))
        try:
            async with self._enter(asked.model):
                async for answer in self._plane.stream(asked):
                    if answer.empty and not wants_final:
                        continue
                    response = write_message(answer)
                    response.parameters[FINAL].bool_param = answer.final
                    await self._put(pb.ModelStreamInferResponse(infer_response=response))
        except Exception as problem:
            await self._fail(message, problem)

    async def _fail(self, message: Any, problem: Exception) -> None:
        """A request's error is that request's answer; the stream continues."""
        response = pb.ModelInferResponse(id=message.id, model_name=message.model_name)
        response.parameters[FINAL].bool_param = True
        text = public_error(problem).message
        await self._put(pb.ModelStreamInferResponse(error_message=text, infer_response=response))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


def _wants_final(message: Any) -> bool:
    return EMPTY_FINAL in message.parameters and bool(message.parameters[EMPTY_FINAL].bool_param)
