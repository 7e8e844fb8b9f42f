"""One deployment behind the router: calls to one of its replicas or to all, and a second try where one has died."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any

import grpc
from ray.exceptions import RayActorError

from serve_app.errors import DeadlineExceededError, ServeAppError, UnavailableError
from serve_app.router.errors import as_known_error
from serve_app.telemetry.observation import observed
from serve_app.types.deadlines import left_s, until

logger = logging.getLogger("ray.serve")

# How gRPC says that the process at its other side is gone. CANCELLED is not among them: that may have been we.
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
END = object()
PRESENCE_PATIENCE_S = 5.0
EVERYWHERE_PATIENCE_S = 600.0  # the slowest is a load that builds an engine


class Upstream:
    """A handle, and what every call through it has in common."""

    def __init__(self, name: str, handle: Any, wake_timeout_s: float | None = None, may_sleep: bool = False) -> None:
        """`wake_timeout_s` is how long a call waits where there is no replica; None: until its deadline."""
        self.name = name
        self.may_sleep = may_sleep
        self.alone = wake_timeout_s is not None  # a language model, which comes and goes without the others
        self._wake_timeout_s = wake_timeout_s
        # plain pickle: half the cost of Serve's cloudpickle, and nothing here needs more
        self._handle = handle.options(request_serialization="pickle", response_serialization="pickle")

    async def call(self, method: str, *arguments: Any, deadline: float | None = None, sequence: str = "") -> Any:
        """The answer of one replica; every method called here may run twice, and does if its first replica dies."""
        try:
            async with until(deadline, f"no answer from {self.name} before the deadline"):
                try:
                    return await self._start(method, sequence, arguments)
                except Exception as problem:
                    if not _replica_died(problem):
                        raise
                    self._note_retry(method)
                    return await self._start(method, sequence, arguments)
        except Exception as problem:
            raise as_known_error(problem) or problem from None

    async def _start(self, method: str, sequence: str, arguments: tuple[Any, ...]) -> Any:
        handle = self._handle.options(session_id=sequence) if sequence else self._handle
        return await self._awake(getattr(handle, method).remote(*arguments))

    async def _awake(self, answer: Awaitable[Any]) -> Any:
        """The answer, unless there is no replica to give it when the time to wake one is over."""
        if self._wake_timeout_s is None:
            return await answer
        waiting = asyncio.ensure_future(answer)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody has seen it
        try:
            done, _ = await asyncio.wait({waiting}, timeout=self._wake_timeout_s)
            if not done:
                await self._require_replica()
            return await waiting
        finally:
            waiting.cancel()

    async def _require_replica(self) -> None:
        try:
            await self.everywhere("describe", patience_s=PRESENCE_PATIENCE_S)
        except DeadlineExceededError:
            return  # one that is too busy to say so is there
        except UnavailableError:
            limit = f"{self._wake_timeout_s:g} s"
            raise UnavailableError(f"'{self.name}' was not up within {limit}; try again later") from None

    async def stream(
        self, method: str, *arguments: Any, deadline: float | None = None, sequence: str = "", adapter: str = ""
    ) -> AsyncGenerator[Any]:
        """Answers as they come; tried again only while nothing has come yet."""
        left_s(deadline)
        options = {"session_id": sequence, "multiplexed_model_id": adapter}
        handle = self._handle.options(stream=True, **{name: value for name, value in options.items() if value})
        begun, again = False, True
        while True:
            stream = getattr(handle, method).remote(*arguments)
            try:
                while True:
                    async with until(deadline, f"{self.name} had not ended before the deadline"):
                        step = anext(stream, END)
                        answer = await (step if begun else self._awake(step))
                    if answer is END:
                        return
                    begun = True
                    yield answer
            except Exception as problem:
                if begun or not again or not _replica_died(problem):
                    raise as_known_error(problem) or problem from None
                again = False
                self._note_retry(method)
            finally:
                stream.cancel()

    def _note_retry(self, method: str) -> None:
        observed().retried = self.name
        logger.warning(f"a replica of {self.name} died during {method}; trying another")

    async def everywhere(self, method: str, *arguments: Any, patience_s: float = EVERYWHERE_PATIENCE_S) -> list[Any]:
        """The answers of all replicas; what one of them raises takes the place of its answer."""
        response = self._handle.broadcast(method, *arguments)
        try:
            answers = await response.results_async(timeout_s=patience_s, return_exceptions=True)
        except TimeoutError:
            raise DeadlineExceededError(f"not every replica of {self.name} answered in {patience_s:g} s") from None
        except Exception as problem:
            raise as_known_error(problem) or problem from None
        if not answers:
            raise UnavailableError(f"{self.name} has no replica that runs")
        return [
            (as_known_error(answer) or answer) if isinstance(answer, BaseException) else answer for answer in answers
        ]

    async def answers_everywhere(self, method: str, *arguments: Any, patience_s: float) -> list[Any]:
        """Like `everywhere`, without the replicas that couldn't answer, as long as one could."""
        answers = await self.everywhere(method, *arguments, patience_s=patience_s)
        given = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not given:
            raise answers[0]
        return given


def needed(upstreams: Iterable[Upstream]) -> list[Upstream]:
    """Those without which the service is not ready: language models count where there is nothing else."""
    every = [upstream for upstream in upstreams if not upstream.may_sleep]
    return [upstream for upstream in every if not upstream.alone] or every


def _replica_died(problem: BaseException) -> bool:
    """It says nothing about the request, which another replica can answer."""
    if isinstance(problem, ServeAppError):
        return False
    if isinstance(problem, grpc.aio.AioRpcError):
        return problem.code() in GONE
    return isinstance(problem, RayActorError)
