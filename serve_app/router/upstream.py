"""One deployment behind the router: calls to one of its replicas or to all, and a second try where one has died."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

import grpc
from ray.exceptions import RayActorError

from serve_app.errors import (
    DeadlineExceededError,
    ReplicaKilledError,
    ReplicaLostError,
    ServeAppError,
    UnavailableError,
)
from serve_app.router.errors import as_known_error
from serve_app.telemetry.crashes import crashed
from serve_app.telemetry.observation import observed
from serve_app.types import left_s, until

logger = logging.getLogger("ray.serve")

# gRPC's codes for a lost connection. CANCELLED is not among them: the router itself may have cancelled the call.
CONNECTION_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
END = object()
MAX_DEATHS = 1  # of replicas under one call, after which it is tried again
LOST_PAUSE_S = 0.5  # between tries while a replica that can't any more is replaced
PRESENCE_TIMEOUT_S = 5.0
EVERYWHERE_TIMEOUT_S = 600.0  # the slowest call is a load that builds an engine


class Upstream:
    """A handle, and what every call through it has in common."""

    def __init__(
        self,
        name: str,
        handle: Any,
        wake_timeout_s: float | None = None,
        scales_to_zero: bool = False,
        crashed: Callable[[str | None], Awaitable[bool]] = crashed,
    ) -> None:
        """`wake_timeout_s` limits how long a call waits while there is no replica; None: its deadline alone does.

        `crashed` says of the actor of a replica whether it crashed of its own.
        """
        self.name = name
        self.scales_to_zero = scales_to_zero
        self.optional = wake_timeout_s is not None  # a language model: the service is ready without it
        self._wake_timeout_s = wake_timeout_s
        self._crashed = crashed
        # plain pickle: half the cost of Serve's cloudpickle, and nothing here needs more
        self._handle = handle.options(request_serialization="pickle", response_serialization="pickle")

    async def call(
        self, method: str, *arguments: Any, deadline: float | None = None, session: str = "", retry: bool = True
    ) -> Any:
        """One replica's answer. With `retry` another replica answers if the first was killed meanwhile."""
        try:
            async with until(deadline, f"no answer from {self.name} before the deadline"):
                deaths, again = 0, False
                while True:
                    try:
                        return await self._start(method, session, arguments, again)
                    except Exception as problem:
                        deaths += await self._require_retry(problem, method, retry, deaths)
                        again = True
        except Exception as problem:
            raise as_known_error(problem) or problem from None

    async def stream(
        self,
        method: str,
        *arguments: Any,
        deadline: float | None = None,
        session: str = "",
        adapter: str = "",
        retry: bool = True,
    ) -> AsyncGenerator[Any]:
        """Answers as they come. Another replica is tried only if the first died before its first answer."""
        left_s(deadline)
        options = {"session_id": session, "multiplexed_model_id": adapter}
        begun, deaths, again = False, 0, False
        while True:
            stream = self._open(method, arguments, options, again)
            try:
                while True:
                    async with until(deadline, f"{self.name} had not finished before the deadline"):
                        step = anext(stream, END)
                        answer = await (step if begun else self._awake(step))
                    if answer is END:
                        return
                    begun = True
                    yield answer
            except Exception as problem:
                try:
                    deaths += await self._require_retry(problem, method, retry and not begun, deaths)
                    again = True
                except Exception as final:
                    raise as_known_error(final) or final from None
            finally:
                await self._close(stream)

    async def _require_retry(self, problem: Exception, method: str, retry: bool, deaths: int) -> int:
        """Return if the call may be made again, with whether that was one more death under it; else raise what failed.

        What a replica crashed over would crash the next one. A replica that was killed from outside is no such sign.
        What it has not begun, as it had lost a part before, is tried until there is another.
        """
        if retry and isinstance(as_known_error(problem), ReplicaLostError):
            observed().retried = self.name
            await asyncio.sleep(LOST_PAUSE_S)
            return 0
        if not (retry and deaths < MAX_DEATHS and _replica_died(problem)):
            raise problem
        if await self._crashed(getattr(problem, "actor_id", None)):
            logger.error(f"a replica of {self.name} crashed during {method}; the requests it had are not tried again")
            raise problem
        observed().retried = self.name
        logger.warning(f"a replica of {self.name} died during {method}; trying another")
        return 1

    async def _start(self, method: str, session: str, arguments: tuple[Any, ...], again: bool) -> Any:
        """`again`: an attempt has failed, with a replica that is gone or broken."""
        handle = self._handle.options(session_id=session) if session else self._handle
        return await self._awake(getattr(handle, method).remote(*arguments))

    def _open(self, method: str, arguments: tuple[Any, ...], options: dict[str, str], again: bool) -> Any:
        """A stream of answers, as `_start` for one."""
        handle = self._handle.options(stream=True, **{name: value for name, value in options.items() if value})
        return getattr(handle, method).remote(*arguments)

    async def _close(self, stream: Any) -> None:
        stream.cancel()

    async def _awake(self, answer: Awaitable[Any]) -> Any:
        """The answer, unless no replica has come up within the time to wake one."""
        if self._wake_timeout_s is None:
            return await answer
        waiting = asyncio.ensure_future(answer)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks the exception as seen
        try:
            done, _ = await asyncio.wait({waiting}, timeout=self._wake_timeout_s)
            if not done:
                await self._require_replica()
            return await waiting
        finally:
            waiting.cancel()

    async def _require_replica(self) -> None:
        try:
            await self.everywhere("describe", timeout_s=PRESENCE_TIMEOUT_S)
        except DeadlineExceededError:
            return  # a replica that is too busy to answer exists
        except UnavailableError:
            limit = f"{self._wake_timeout_s:g} s"
            raise UnavailableError(f"'{self.name}' was not up within {limit}; try again later") from None

    async def everywhere(self, method: str, *arguments: Any, timeout_s: float = EVERYWHERE_TIMEOUT_S) -> list[Any]:
        """The answers of all replicas; an exception takes the place of the answer of a replica that raised it."""
        response = self._handle.broadcast(method, *arguments)
        try:
            answers = await response.results_async(timeout_s=timeout_s, return_exceptions=True)
        except TimeoutError:
            raise DeadlineExceededError(f"not every replica of {self.name} answered within {timeout_s:g} s") from None
        except Exception as problem:
            raise as_known_error(problem) or problem from None
        if not answers:
            raise UnavailableError(f"{self.name} has no running replica")
        return [
            (as_known_error(answer) or answer) if isinstance(answer, BaseException) else answer for answer in answers
        ]

    async def answers_everywhere(self, method: str, *arguments: Any, timeout_s: float) -> list[Any]:
        """Like `everywhere`, without the replicas that failed, as long as one answered."""
        answers = await self.everywhere(method, *arguments, timeout_s=timeout_s)
        given = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not given:
            raise answers[0]
        return given


def required(upstreams: Iterable[Upstream]) -> list[Upstream]:
    """Those without which the service is not ready: language models count only where there is nothing else."""
    awake = [upstream for upstream in upstreams if not upstream.scales_to_zero]
    return [upstream for upstream in awake if not upstream.optional] or awake


def _replica_died(problem: BaseException) -> bool:
    """Whether the failure says nothing about the request, so that another replica may answer it."""
    known = problem if isinstance(problem, ServeAppError) else as_known_error(problem)
    if isinstance(known, ReplicaKilledError):
        return True
    if isinstance(problem, ServeAppError):
        return False
    if isinstance(problem, grpc.aio.AioRpcError):
        return problem.code() in CONNECTION_LOST
    return isinstance(problem, RayActorError)
