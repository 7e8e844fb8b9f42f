"""Load: clients that send again when they are answered (closed loop), or requests at a Poisson rate (open loop)."""

# `scripts/load` is for load over hours, with Locust's page; this is for measuring: it costs little of the processor,
# and its open loop counts latency from the time when a request was due.

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from serve_app.tools.bench.connection import Connection, Response
from serve_app.tools.bench.report import count_errors, percentiles

TIMEOUT_S = 60.0
PATIENCE_S = 60.0  # for the first answer of each client, after the end of a closed loop
BUSY_GENERATOR = 0.8  # of a core; above it the generator may limit the result


@dataclass(frozen=True, slots=True)
class Load:
    """`rate_per_s` makes it an open loop, which does not slow down with the service."""

    clients: int = 16
    duration_s: float = 10.0
    warmup_s: float = 2.0
    rate_per_s: float | None = None

    def __str__(self) -> str:
        return f"{self.rate_per_s:g}/s" if self.rate_per_s else f"{self.clients} clients"


@dataclass(frozen=True, slots=True)
class Reply:
    """An empty error is a success; `first_byte_s` is a value of time.perf_counter()."""

    error: str = ""
    first_byte_s: float | None = None


Send = Callable[[int], Awaitable[Reply]]  # of the number of the request
Check = Callable[[Response], str]  # returns what is wrong with a response of status 200


@dataclass(slots=True)
class LoadResult:
    """Measured after the warm-up."""

    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    generator_share: float = 0.0  # of one core, taken by the load generator
    first_byte_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)  # open loop: delays between due time and sending

    @property
    def throughput(self) -> float:
        return len(self.latencies_ms) / self.wall_s if self.wall_s else 0.0

    @property
    def percentiles_ms(self) -> dict[str, float]:
        return percentiles(self.latencies_ms)

    @property
    def warnings(self) -> list[str]:
        if self.generator_share <= BUSY_GENERATOR:
            return []
        return [f"the load generator took {self.generator_share:.0%} of a core and may be the limit"]

    @property
    def problems(self) -> list[str]:
        return count_errors(self.errors) or ([] if self.latencies_ms else ["no answer within the time"])


class LoadGenerator:
    """Calls `send` for each request, with the requests' numbers."""

    def __init__(self, load: Load, send: Send) -> None:
        self._load, self._send = load, send
        self._result = LoadResult(wall_s=load.duration_s)
        self._numbers = count()
        self._start_s = self._end_s = 0.0

    async def run(self) -> LoadResult:
        self._start_s = time.perf_counter() + self._load.warmup_s
        self._end_s = self._start_s + self._load.duration_s
        loop = self._open_loop if self._load.rate_per_s else self._closed_loop
        await asyncio.gather(loop(), self._measure_share())
        return self._result

    async def _measure_share(self) -> None:
        await asyncio.sleep(max(0.0, self._start_s - time.perf_counter()))
        before, started = time.thread_time(), time.perf_counter()
        await asyncio.sleep(max(0.0, self._end_s - time.perf_counter()))
        self._result.generator_share = (time.thread_time() - before) / (time.perf_counter() - started)

    async def _closed_loop(self) -> None:
        async def client() -> None:
            while self._is_open(started := time.perf_counter()):
                await self._request(started)
                await asyncio.sleep(0)  # a refusal may return without giving way to other tasks

        await asyncio.gather(*(client() for _ in range(self._load.clients)))

    def _is_open(self, now_s: float) -> bool:
        """Longer than planned until there is an answer per client: otherwise a slow service would have no numbers."""
        few = len(self._result.latencies_ms) + self._result.errors.total() < self._load.clients
        return now_s < self._end_s or (few and now_s < self._end_s + PATIENCE_S)

    async def _open_loop(self) -> None:
        assert self._load.rate_per_s
        due_s = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while due_s < self._end_s:
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                self._result.late_ms.append((time.perf_counter() - due_s) * 1e3)
                tasks.create_task(self._request(due_s))
                due_s += random.expovariate(self._load.rate_per_s)
        self._result.wall_s = time.perf_counter() - self._start_s

    async def _request(self, due_s: float) -> None:
        reply = await self._send(next(self._numbers))
        now_s = time.perf_counter()
        if self._load.rate_per_s:
            if due_s < self._start_s:
                return
        elif now_s < self._start_s or not self._is_open(now_s):
            return
        else:
            self._result.wall_s = max(self._result.wall_s, now_s - self._start_s)
        if reply.error:
            self._result.errors[reply.error] += 1
            return
        self._result.latencies_ms.append((now_s - due_s) * 1e3)
        if reply.first_byte_s is not None:
            self._result.first_byte_ms.append((reply.first_byte_s - due_s) * 1e3)


class HttpClients:
    """Sends prepared requests round robin; an idle connection is used again."""

    def __init__(self, url: str, requests: Sequence[bytes], check: Check | None, timeout_s: float) -> None:
        self._url, self._requests, self._check, self._timeout_s = url, requests, check, timeout_s
        self._idle: list[Connection] = []

    async def send(self, number: int) -> Reply:
        connection: Connection | None = None
        try:
            connection = self._idle.pop() if self._idle else await Connection.open(self._url)
            response = await connection.send(self._requests[number % len(self._requests)], self._timeout_s)
        except (OSError, TimeoutError) as problem:
            if connection:
                connection.close()
            return Reply(type(problem).__name__)
        self._idle.append(connection)
        if response.status != 200:
            return Reply(str(response.status))
        return Reply(self._check(response) if self._check else "", response.first_byte_s)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


def run_http_load(
    url: str, requests: Sequence[bytes], load: Load, check: Check | None = None, timeout_s: float = TIMEOUT_S
) -> LoadResult:
    async def run() -> LoadResult:
        clients = HttpClients(url, requests, check, timeout_s)
        try:
            return await LoadGenerator(load, clients.send).run()
        finally:
            clients.close()

    return asyncio.run(run())
