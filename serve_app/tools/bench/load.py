"""Load: so many clients, each of which asks again when it is answered, or requests at random times of a mean rate."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serve_app.tools.bench.connection import Answer, Connection

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate_per_s` makes it an open loop, in which a slow service gets no mercy."""

    url: str
    requests: Sequence[bytes]
    clients: int
    duration_s: float
    warmup_s: float = 2.0
    rate_per_s: float | None = None
    timeout_s: float = TIMEOUT_S


@dataclass(slots=True)
class Outcome:
    """What was measured after the warm-up."""

    took_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    generator_share: float = 0.0  # of one core, by the load itself
    first_ms: list[float] = field(default_factory=list)  # to the first byte of the answer's body
    late_ms: list[float] = field(default_factory=list)  # open loop: how much after their time requests were sent


class Generator:
    def __init__(self, plan: Plan, check: Callable[[Answer], str] = lambda _: "") -> None:
        """`check` says what is wrong with an answer, or nothing."""
        self._plan = plan
        self._check = check
        self._outcome = Outcome()
        self._begin_s = self._end_s = 0.0
        self._next = 0

    def run(self) -> Outcome:
        return asyncio.run(self._run())

    async def _run(self) -> Outcome:
        plan = self._plan
        self._begin_s = time.perf_counter() + plan.warmup_s
        self._end_s = end_s = self._begin_s + plan.duration_s
        work = self._open_loop(end_s) if plan.rate_per_s else self._closed_loop(end_s)
        watch = asyncio.create_task(self._watch_processor(end_s))
        await work
        self._outcome.wall_s = time.perf_counter() - self._begin_s if plan.rate_per_s else plan.duration_s
        await watch
        return self._outcome

    async def _watch_processor(self, end_s: float) -> None:
        await asyncio.sleep(max(0.0, self._begin_s - time.perf_counter()))
        before, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(max(0.0, end_s - time.perf_counter()))
        self._outcome.generator_share = (time.process_time() - before) / (time.perf_counter() - began)

    async def _closed_loop(self, end_s: float) -> None:
        async def client() -> None:
            connection: Connection | None = None
            while time.perf_counter() < end_s:
                connection = await self._one(connection, time.perf_counter())
            if connection:
                connection.close()

        await asyncio.gather(*(client() for _ in range(self._plan.clients)))

    async def _open_loop(self, end_s: float) -> None:
        assert self._plan.rate_per_s
        idle: list[Connection | None] = []
        tasks: set[asyncio.Task[None]] = set()
        due_s = time.perf_counter()

        async def one(due: float) -> None:
            self._outcome.late_ms.append((time.perf_counter() - due) * 1e3)
            idle.append(await self._one(idle.pop() if idle else None, due))

        while due_s < end_s:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            task = asyncio.create_task(one(due_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due_s += random.expovariate(self._plan.rate_per_s)
        await asyncio.gather(*tasks)
        for connection in idle:
            if connection:
                connection.close()

    async def _one(self, connection: Connection | None, due_s: float) -> Connection | None:
        """A time counts from when the request was due, so that a stalled service can't hide it."""
        request = self._plan.requests[self._next % len(self._plan.requests)]
        self._next += 1
        problem, first_s = "", 0.0
        try:
            connection = connection or await Connection.open(self._plan.url)
            answer = await connection.ask(request, self._plan.timeout_s)
            first_s = answer.first_s
            problem = self._check(answer) if answer.status == 200 else str(answer.status)
        except (OSError, TimeoutError) as trouble:
            problem = type(trouble).__name__
            if connection:
                connection.close()
            connection = None
        if self._counts(due_s, time.perf_counter()):
            if problem:
                self._outcome.errors[problem] += 1
            else:
                self._outcome.took_ms.append((time.perf_counter() - due_s) * 1e3)
                self._outcome.first_ms.append((first_s - due_s) * 1e3)
        return connection

    def _counts(self, due_s: float, answered_s: float) -> bool:
        """Open loops count what was due in time, closed ones what was answered: their end would dilute their rate."""
        if self._plan.rate_per_s:
            return due_s >= self._begin_s
        return self._begin_s <= answered_s < self._end_s
