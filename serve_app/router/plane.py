"""The one data plane under every transport: which deployment has a model, and what can be asked of it."""

import asyncio
import importlib.metadata
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

from serve_app.errors import DeadlineExceededError, InvalidRequestError, NotFoundError, UnavailableError
from serve_app.router.statistics import merge_indexes, merge_statistics
from serve_app.router.upstream import Upstream, needed
from serve_app.telemetry.observation import observed
from serve_app.types.changes import ModelChange
from serve_app.types.tensors import InferAnswer, InferRequest

VERSION = importlib.metadata.version("serve_app")
PATIENCE_S = 5.0
REFRESH_INTERVAL_S = 0.2
NAMED = 20  # models that an error names
EXTENSIONS = (
    "classification", "sequence", "model_repository", "model_repository(unload_dependents)", "schedule_policy",
    "model_configuration", "binary_tensor_data", "parameters", "statistics",
)  # fmt: skip


class DataPlane:
    """Transports call it with protocol objects; it knows nothing of HTTP or gRPC."""

    def __init__(
        self,
        upstreams: Iterable[Upstream],
        owners: Mapping[str, str],
        controlled: str | None = None,
    ) -> None:
        """`owners` is what the configuration says of models; the rest comes from the deployments' own indexes.

        `controlled` names the deployment that takes models which nobody has.
        """
        self._upstreams = {upstream.name: upstream for upstream in upstreams}
        self._owners = dict(owners)
        self._controlled = controlled
        self._silent: list[str] = []
        self._refreshed = float("-inf")
        self._refreshing = asyncio.Lock()

    async def owner(self, model: str) -> Upstream:
        """The deployment that has a model; one that nobody knew may have been added to a repository."""
        if model not in self._owners:
            await self._refresh()
        try:
            upstream = self._upstreams[self._owners[model]]
            observed().model = model
            return upstream
        except KeyError:
            if self._silent:
                raise UnavailableError(
                    f"no replica of {', '.join(self._silent)} is there to ask for '{model}'"
                ) from None
            raise NotFoundError(f"Request for unknown model: '{model}' is not found; {self._named()}") from None

    def _named(self) -> str:
        names = sorted(self._owners)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"there is: {', '.join(names[:NAMED]) or 'nothing yet'}{more}"

    async def _refresh(self) -> None:
        """Ask the deployments after this moment; callers share, so that names that don't exist cost little."""
        arrived = time.monotonic()
        async with self._refreshing:
            if self._refreshed > arrived:
                return
            await asyncio.sleep(self._refreshed + REFRESH_INTERVAL_S - time.monotonic())
            began = time.monotonic()
            indexes = await self._indexes()
            absent = [name for name, index in indexes.items() if isinstance(index, BaseException)]
            self._silent = [name for name in absent if not self._upstreams[name].alone]  # whose names are known
            rows = [(row, name) for name, index in indexes.items() if isinstance(index, list) for row in index]
            # Two deployments may look at one repository: the model belongs to the one that has it loaded.
            for row, name in sorted(rows, key=lambda entry: _is_not_ready(entry[0])):
                self._owners.setdefault(row["name"], name)
            self._refreshed = began

    async def infer(self, asked: InferRequest) -> InferAnswer:
        upstream = await self.owner(asked.model)
        answer: InferAnswer = await upstream.call("infer", asked, deadline=asked.deadline, sequence=_sequence_of(asked))
        return answer

    async def stream(self, asked: InferRequest) -> AsyncGenerator[InferAnswer]:
        upstream = await self.owner(asked.model)
        answers = upstream.stream("stream", asked, deadline=asked.deadline, sequence=_sequence_of(asked))
        async for answer in answers:
            yield answer

    def server_metadata(self) -> dict[str, Any]:
        return {"name": "serve_app", "version": VERSION, "extensions": list(EXTENSIONS)}

    async def ready(self) -> bool:
        """Whether every deployment that must has a replica that answers."""
        indexes = await self._indexes()
        return all(isinstance(indexes[upstream.name], list) for upstream in needed(self._upstreams.values()))

    async def model_ready(self, model: str, version: int) -> bool:
        try:
            upstream = await self.owner(model)
            if upstream.alone:  # asked everywhere, because a call would wake it
                return any(await upstream.answers_everywhere("ready", model, version, patience_s=PATIENCE_S))
            return bool(await upstream.call("ready", model, version))
        except (NotFoundError, UnavailableError, DeadlineExceededError):
            return False

    async def metadata(self, model: str, version: int) -> dict[str, Any]:
        return dict(await (await self.owner(model)).call("metadata", model, version))

    async def config(self, model: str, version: int) -> dict[str, Any]:
        return dict(await (await self.owner(model)).call("config", model, version))

    async def statistics(self, model: str, version: int) -> dict[str, Any]:
        """Summed over the replicas; without a model, of all that are loaded."""
        if model:
            try:
                upstreams = [await self.owner(model)]
            except NotFoundError:  # Triton answers 400 here, and 404 everywhere else
                raise InvalidRequestError(f"requested model '{model}' is not available") from None
        else:
            upstreams = list(self._upstreams.values())
        rows = []
        for upstream in upstreams:
            try:
                answers = await upstream.everywhere("statistics", model, version, patience_s=PATIENCE_S)
            except UnavailableError:
                if model or not upstream.alone:
                    raise
                continue
            given = [answer for answer in answers if not isinstance(answer, BaseException)]
            if model and not given:
                raise answers[0]
            rows += merge_statistics(given)
        return {"model_stats": rows}

    async def index(self, only_ready: bool = False) -> list[dict[str, str]]:
        """Every model of every deployment, once; where replicas differ the reason says which is how."""
        rows = [row for name, index in (await self._indexes()).items() for row in self._rows(name, index)]
        once: dict[tuple[str, str], dict[str, str]] = {}
        for row in sorted(rows, key=_is_not_ready):
            once.setdefault((row["name"], row.get("version", "")), row)
        versioned = {name for name, version in once if version}
        rows = [row for row in rows if once[row["name"], row.get("version", "")] is row]
        rows = [row for row in rows if "version" in row or row["name"] not in versioned]
        return [row for row in rows if not only_ready or row.get("state") == "READY"]

    async def _indexes(self) -> dict[str, list[dict[str, str]] | BaseException]:
        """Of each deployment its index, or why there is none."""
        answers = await asyncio.gather(
            *(upstream.answers_everywhere("index", patience_s=PATIENCE_S) for upstream in self._upstreams.values()),
            return_exceptions=True,
        )
        return {
            name: answer if isinstance(answer, BaseException) else merge_indexes(answer)
            for name, answer in zip(self._upstreams, answers, strict=True)
        }

    def _rows(self, name: str, index: list[dict[str, str]] | BaseException) -> list[dict[str, str]]:
        if isinstance(index, list):
            return index
        if not self._upstreams[name].alone:
            raise index
        if not isinstance(index, UnavailableError):
            reason = str(index)
        else:
            reason = "asleep: a request wakes it" if self._upstreams[name].may_sleep else "no replica is up"
        return [{"name": name, "version": "1", "state": "UNAVAILABLE", "reason": reason}]

    async def load(self, model: str, parameters: Mapping[str, str | bytes]) -> None:
        upstream = await self._owner_for_load(model)
        await self._change(upstream, ModelChange(model, "load", dict(parameters)))
        self._owners.setdefault(model, upstream.name)

    async def unload(self, model: str, dependents: bool) -> None:
        try:
            upstream = await self.owner(model)
        except NotFoundError:
            return  # it isn't loaded, which is what was asked for
        await self._change(upstream, ModelChange(model, "unload", dependents=dependents))

    async def _owner_for_load(self, model: str) -> Upstream:
        """A model that nobody has may come with the request, whole: it goes to the first that takes any."""
        try:
            return await self.owner(model)
        except NotFoundError:
            if self._controlled is None:
                raise
            return self._upstreams[self._controlled]

    async def _change(self, upstream: Upstream, change: ModelChange) -> None:
        """On every replica; the first failure is the answer, with where it happened."""
        answers = await upstream.everywhere("change", change)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        failed = [(replica, problem) for replica, problem in answers if problem]
        if not failed:
            return
        replica, problem = failed[0]
        if len(failed) == len(answers):
            raise problem
        raise type(problem)(f"{problem.message} (on {len(failed)} of {len(answers)} replicas, first {replica})")


def _is_not_ready(row: Mapping[str, str]) -> bool:
    return row.get("state") != "READY"


def _sequence_of(asked: InferRequest) -> str:
    return f"{asked.model}/{asked.sequence.key}" if asked.sequence.key else ""
