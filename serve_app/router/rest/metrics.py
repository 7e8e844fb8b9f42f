"""GET /metrics: the metrics of every node's Ray agent as one text, with Triton's under Triton's own names."""

import asyncio
import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterable

import aiohttp
import ray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.errors import UnavailableError

logger = logging.getLogger("ray.serve")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TIMEOUT = aiohttp.ClientTimeout(total=5)
FRESH_S = 1.0  # how long callers get the same text
# Ray puts `ray_` before every name, and `_total` behind a counter's. configs/monitoring/ says the same to Prometheus.
TRITON_NAME = re.compile(r"ray_(nv_\w+?)(?:_total)?(?=[{ ])")
FAMILY = re.compile(r"# (?:HELP|TYPE) (\S+)")


class Metrics:
    """One fixed path for Ray's agents, whose ports change with every start."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()
        self._text = ""
        self._read_at = float("-inf")

    def routes(self) -> list[Route]:
        return [Route("/metrics", self.metrics)]

    async def metrics(self, _request: Request) -> Response:
        async with self._one_at_a_time:
            if time.monotonic() - self._read_at > FRESH_S:
                self._text = await self._read()
                self._read_at = time.monotonic()
        return Response(self._text, media_type=CONTENT_TYPE)

    async def _read(self) -> str:
        addresses = await asyncio.to_thread(agents)
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            texts = await asyncio.gather(*(fetch(session, address) for address in addresses))
        if not any(texts):
            raise UnavailableError("no node's metrics could be read; try again")
        return await asyncio.to_thread(merge, texts)


def agents() -> list[str]:
    """Where each node of the cluster exposes its metrics."""
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ray.nodes()
        if node["Alive"] and node["MetricsExportPort"] > 0
    ]


async def fetch(session: aiohttp.ClientSession, address: str) -> str:
    try:
        async with session.get(address) as answer:
            answer.raise_for_status()
            return await answer.text()
    except (aiohttp.ClientError, TimeoutError) as problem:  # the other nodes' metrics are still useful
        logger.warning(f"no metrics from {address}: {problem!r}")
        return ""


def merge(texts: Iterable[str]) -> str:
    """The nodes' series grouped by family, as the format requires; comments once."""
    given = [TRITON_NAME.sub(r"\1", text) for text in texts if text]
    if len(given) == 1:
        return given[0]
    comments: dict[str, dict[str, None]] = defaultdict(dict)
    series: dict[str, list[str]] = defaultdict(list)
    for text in given:
        family = ""
        for line in text.splitlines():
            if found := FAMILY.match(line):
                family = found[1]
                comments[family][line] = None
            elif line:
                series[family].append(line)
    lines = [line for family, known in comments.items() for line in (*known, *series[family])]
    return "\n".join([*series[""], *lines, ""])
