"""The deployments behind the router: which of them answer, what they say of themselves, and how warm they are."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from serve_app.errors import DeadlineExceededError, UnavailableError
from serve_app.router.upstream import Upstream, required

TIMEOUT_S = 2.0
ABSENT = (UnavailableError, DeadlineExceededError)
STATES = ("failed", "pending", "warming", "ready")  # worst first: the worst state on any replica is the model's


class Deployments:
    """Every deployment that answers requests, and the playground, which nothing waits for."""

    def __init__(self, upstreams: Iterable[Upstream], playground: Upstream | None = None) -> None:
        self._upstreams = {upstream.name: upstream for upstream in upstreams}
        self._playground = playground
        self._last_description: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> Upstream:
        return self._upstreams[name]

    async def health(self) -> tuple[bool, dict[str, bool]]:
        """Whether every required deployment is there, and of each whether it is.

        A deployment is there if it answers or is too busy to; one that scales to zero is there while it sleeps.
        """
        upstreams = [*self._upstreams.values(), *([self._playground] if self._playground else [])]
        described = await self._describe_all(upstreams)
        presence = {one.name: one.scales_to_zero or described[one.name] is not None for one in upstreams}
        return all(presence[one.name] for one in required(self._upstreams.values())), presence

    async def describe(self) -> dict[str, dict[str, Any] | None]:
        """What each deployment says of itself; None of one that isn't there."""
        return await self._describe_all(self._upstreams.values())

    async def _describe_all(self, upstreams: Iterable[Upstream]) -> dict[str, dict[str, Any] | None]:
        upstreams = list(upstreams)
        answers = await asyncio.gather(*map(self._describe, upstreams))
        return {upstream.name: answer for upstream, answer in zip(upstreams, answers, strict=True)}

    async def _describe(self, upstream: Upstream) -> dict[str, Any] | None:
        """The last description counts while a deployment is too busy to give another."""
        try:
            (description, *_) = await upstream.answers_everywhere("describe", timeout_s=TIMEOUT_S)
            self._last_description[upstream.name] = description
        except DeadlineExceededError:
            pass  # a queue of work is no failure: Serve's own health checks tell the two apart
        except Exception:  # whatever keeps it from answering, it isn't ready
            self._last_description.pop(upstream.name, None)
        return self._last_description.get(upstream.name)

    async def warm_up(self) -> None:
        """Start it on every replica; `warm_up_status` follows it."""
        for upstream in self._upstreams.values():
            with suppress(*ABSENT if upstream.optional else ()):  # `warm_up_status` shows that it is absent
                for answer in await upstream.everywhere("start_warming", timeout_s=TIMEOUT_S):
                    if isinstance(answer, BaseException):
                        raise answer

    async def warm_up_status(self) -> dict[str, Any]:
        """The worst state of all, and each model's."""
        deployments = {name: await self._warm_up_of(upstream) for name, upstream in self._upstreams.items()}
        states = [model["state"] for models in deployments.values() for model in models.values()]
        return {"state": min(states, key=STATES.index, default="ready"), "deployments": deployments}

    async def _warm_up_of(self, upstream: Upstream) -> dict[str, dict[str, Any]]:
        try:
            replicas = await upstream.answers_everywhere("warming", timeout_s=TIMEOUT_S)
        except ABSENT:
            if not upstream.optional:
                raise
            if upstream.scales_to_zero:
                return {}
            return {upstream.name: {"state": "pending", "replicas_ready": 0, "replicas": 0}}
        return {model: _worst(model, replicas) for model in sorted({model for one in replicas for model in one})}


def _worst(model: str, replicas: list[Mapping[str, dict[str, Any]]]) -> dict[str, Any]:
    """A model's worst state, and on how many replicas it is ready."""
    seen = [replica[model] for replica in replicas if model in replica]
    worst = min(seen, key=lambda one: STATES.index(one["state"]))
    ready = sum(one["state"] == "ready" for one in seen)
    return worst | {"replicas_ready": ready, "replicas": len(replicas)}
