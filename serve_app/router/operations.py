"""What operators ask: what is served, whether it is well, and whether it is warm."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.errors import DeadlineExceededError, UnavailableError
from serve_app.router.rest import ServedTrack
from serve_app.router.upstream import Upstream, needed

PATIENCE_S = 2.0
ABSENT = (UnavailableError, DeadlineExceededError)
# The worst state of a model on any replica is its state.
STATES = ("failed", "pending", "warming", "ready")


class Operations:
    """The endpoints beside those that answer requests of users."""

    def __init__(
        self, tracks: Mapping[str, ServedTrack], upstreams: Iterable[Upstream], playground: Upstream | None = None
    ) -> None:
        """`playground` is told of, and nothing waits for it."""
        self._tracks = tracks
        self._upstreams = tuple(upstreams)
        self._all = (*self._upstreams, playground) if playground else self._upstreams
        self._last_said: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/tracks", self.tracks),
            Route("/health", self.health),
            Route("/warmup", self.warmup, methods=["POST"]),
            Route("/warmup_status", self.warmup_status),
        ]

    async def tracks(self, _request: Request) -> Response:
        described = await self._describe_all(self._upstreams)
        rows = []
        for path, served in self._tracks.items():
            card = (described[served.upstream.name] or {}).get("tracks", {}).get(served.track.target)
            model = {"name": served.track.model} | (
                {"backend": card.backend, "device": card.device, "precision": card.precision} if card else {}
            )
            rows.append(
                {"track": served.track.design.name, "path": path, "size": served.track.size, "model": model,
                 "summary": served.track.design.summary, "ready": card is not None}
            )  # fmt: skip
        return JSONResponse({"tracks": rows})

    async def health(self, _request: Request) -> Response:
        """Live always; ready when every deployment that must answers, or is too busy to."""
        described = await self._describe_all(self._all)
        asleep = {upstream.name for upstream in self._upstreams if upstream.may_sleep}
        there = {name: one is not None or name in asleep for name, one in described.items()}
        ready = all(there[upstream.name] for upstream in needed(self._upstreams))
        body = {"live": True, "ready": ready, "deployments": there}
        return JSONResponse(body, 200 if ready else UnavailableError.status)

    async def warmup(self, _request: Request) -> Response:
        """Starts it on every replica of every deployment; /warmup_status follows it."""
        for upstream in self._upstreams:
            with suppress(*ABSENT if upstream.alone else ()):  # the status says it
                for answer in await upstream.everywhere("start_warming", patience_s=PATIENCE_S):
                    if isinstance(answer, BaseException):
                        raise answer
        return JSONResponse(await self._warming(), 202)

    async def warmup_status(self, _request: Request) -> Response:
        return JSONResponse(await self._warming())

    async def _warming(self) -> dict[str, Any]:
        deployments = {upstream.name: await self._warming_of(upstream) for upstream in self._upstreams}
        states = [model["state"] for models in deployments.values() for model in models.values()]
        return {"state": min(states, key=STATES.index, default="ready"), "deployments": deployments}

    async def _warming_of(self, upstream: Upstream) -> dict[str, dict[str, Any]]:
        """Each model of a deployment: its worst state, and on how many replicas it is ready."""
        try:
            replicas = await upstream.answers_everywhere("warming", patience_s=PATIENCE_S)
        except ABSENT:
            if not upstream.alone:
                raise
            if upstream.may_sleep:
                return {}
            return {upstream.name: {"state": "pending", "replicas_ready": 0, "replicas": 0}}
        models = sorted({model for replica in replicas for model in replica})
        merged = {}
        for model in models:
            seen = [replica[model] for replica in replicas if model in replica]
            worst = min(seen, key=lambda one: STATES.index(one["state"]))
            ready = sum(one["state"] == "ready" for one in seen)
            merged[model] = worst | {"replicas_ready": ready, "replicas": len(replicas)}
        return merged

    async def _describe_all(self, upstreams: Sequence[Upstream]) -> dict[str, dict[str, Any] | None]:
        answers = await asyncio.gather(*map(self._describe, upstreams))
        return {upstream.name: answer for upstream, answer in zip(upstreams, answers, strict=True)}

    async def _describe(self, upstream: Upstream) -> dict[str, Any] | None:
        """What a deployment says of itself, or said last when it is too busy now; None when it isn't there."""
        try:
            said = await upstream.answers_everywhere("describe", patience_s=PATIENCE_S)
            if said:
                self._last_said[upstream.name] = said[0]
            else:
                self._last_said.pop(upstream.name, None)
        except DeadlineExceededError:
            pass  # a queue of work is no illness: Serve's own health checks tell the two apart
        except Exception:  # whatever keeps it from answering, it isn't ready
            self._last_said.pop(upstream.name, None)
        return self._last_said.get(upstream.name)
