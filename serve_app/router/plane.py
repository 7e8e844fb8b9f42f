"""The one data plane under every transport: inference, detection, text, and the control of models."""

import importlib.metadata
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from serve_app.detection.tracks import Track
from serve_app.errors import DeadlineExceededError, InvalidRequestError, NotFoundError, UnavailableError
from serve_app.keys.expected import expected_tokens
from serve_app.router.catalog import Catalog
from serve_app.router.deployments import Deployments
from serve_app.router.statistics import merge_statistics
from serve_app.router.upstream import Upstream
from serve_app.telemetry.observation import observed
from serve_app.types import InferAnswer, InferRequest, ModelChange, Thresholds, TrackAnswer

VERSION = importlib.metadata.version("serve_app")
TIMEOUT_S = 5.0
EXTENSIONS = (
    "classification", "sequence", "model_repository", "model_repository(unload_dependents)", "schedule_policy",
    "model_configuration", "binary_tensor_data", "parameters", "statistics",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServedTrack:
    """A track, and the deployment that answers it."""

    track: Track
    upstream: Upstream


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A request of OpenAI's API for one language model; `adapter` is what the replica loads for it first."""

    model: str
    endpoint: str
    document: Mapping[str, Any]
    headers: Mapping[str, str]
    deadline: float
    adapter: str = ""
    size: int = 0  # of its body


class DataPlane:
    """Transports call it with protocol objects; it knows nothing of HTTP or gRPC."""

    def __init__(
        self,
        catalog: Catalog,
        deployments: Deployments,
        tracks: Mapping[str, ServedTrack] | None = None,
        controlled: Upstream | None = None,
        languages: Collection[str] = (),
    ) -> None:
        """`tracks` are by their paths; `controlled` takes the load of a model that no deployment has.

        `languages` are the names of language models.
        """
        self._catalog = catalog
        self._controlled = controlled
        self._languages = frozenset(languages)
        self.deployments = deployments
        self.tracks = dict(tracks or {})

    async def infer(self, request: InferRequest) -> InferAnswer:
        options = {"deadline": request.deadline} | _session_of(request)
        async with self._metered(request.model, _size_of(request), request.parameters):
            answer: InferAnswer = await self._call(request.model, "infer", request, **options)
            observed().tokens += answer.tokens
        return answer

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferAnswer]:
        metered = self._metered(request.model, _size_of(request), request.parameters)
        async with metered, aclosing(self._stream(request)) as answers:
            async for answer in answers:
                observed().tokens += answer.tokens
                yield answer

    async def _stream(self, request: InferRequest) -> AsyncGenerator[InferAnswer]:
        upstream = await self._owner(request.model)
        options = {"deadline": request.deadline} | _session_of(request)
        begun = False
        try:
            async with aclosing(upstream.stream("stream", request, **options)) as answers:
                async for answer in answers:
                    begun = True
                    yield answer
        except NotFoundError:
            moved = None if begun else await self._catalog.moved(request.model, upstream)
            if moved is None:
                raise
            async with aclosing(moved.stream("stream", request, **options)) as answers:
                async for answer in answers:
                    yield answer

    async def detect(
        self, served: ServedTrack, pictures: Sequence[bytes], thresholds: Thresholds, deadline: float
    ) -> TrackAnswer:
        observation = observed()
        observation.track, observation.model = served.track.design.name, served.track.model
        self._require_allowed(served.track.model)
        answer: TrackAnswer = await served.upstream.call(
            "detect", served.track.target, pictures, thresholds, deadline, deadline=deadline
        )
        observation.times = [result.times for result in answer.results if result.error is None]
        return answer

    async def complete(self, request: TextRequest) -> AsyncGenerator[tuple[int, str]]:
        """Status and text of each piece of the answer."""
        observed().model = request.model
        self._require_allowed(request.model)
        arguments = (request.endpoint, request.document, request.headers, request.deadline)
        metered = request.model, request.size, request.document, request.endpoint != "embeddings"
        pieces = self.deployments[request.model].stream(
            "openai", *arguments, deadline=request.deadline, adapter=request.adapter
        )
        async with self._metered(*metered), aclosing(pieces):
            async for status, text, tokens in pieces:
                observed().tokens += tokens
                if text:
                    yield status, text

    @asynccontextmanager
    async def _metered(
        self, model: str, size: int, options: Mapping[str, Any], answers: bool = True
    ) -> AsyncIterator[None]:
        """Count the tokens of a language model against the limits of the caller's key."""
        caller = observed().caller
        if caller and model in self._languages:
            async with caller.tokens(expected_tokens(size, options, answers)):
                yield
        else:
            yield

    def _require_allowed(self, model: str) -> None:
        caller = observed().caller
        if caller:
            caller.require_model(model)

    async def _owner(self, model: str) -> Upstream:
        self._require_allowed(model)
        upstream = await self._catalog.owner(model)
        observed().model = model
        return upstream

    async def _call(self, model: str, method: str, *arguments: Any, **options: Any) -> Any:
        """Ask the deployment that has the model; if it doesn't know it any more, the one that has it by now."""
        upstream = await self._owner(model)
        try:
            return await upstream.call(method, *arguments, **options)
        except NotFoundError:
            moved = await self._catalog.moved(model, upstream)
            if moved is None:
                raise
            return await moved.call(method, *arguments, **options)

    def server_metadata(self) -> dict[str, Any]:
        return {"name": "serve_app", "version": VERSION, "extensions": list(EXTENSIONS)}

    async def ready(self) -> bool:
        return await self._catalog.ready()

    async def model_ready(self, model: str, version: int) -> bool:
        try:
            upstream = await self._owner(model)
            if upstream.optional:  # asked everywhere, because a call would wake it
                return any(await upstream.answers_everywhere("ready", model, version, timeout_s=TIMEOUT_S))
            return bool(await upstream.call("ready", model, version))
        except (NotFoundError, UnavailableError, DeadlineExceededError):
            return False

    async def metadata(self, model: str, version: int, deadline: float | None = None) -> dict[str, Any]:
        return dict(await self._call(model, "metadata", model, version, deadline=deadline))

    async def config(self, model: str, version: int, deadline: float | None = None) -> dict[str, Any]:
        return dict(await self._call(model, "config", model, version, deadline=deadline))

    async def signature(self, model: str, version: int, deadline: float) -> tuple[dict[str, Any], bool]:
        """A model's metadata, and whether the first dimension of its inputs is the batch; part of a request for it."""
        metadata = await self.metadata(model, version, deadline)
        config = await self.config(model, version, deadline)
        return metadata, config.get("max_batch_size", 0) > 0

    async def statistics(self, model: str, version: int) -> dict[str, Any]:
        """Summed over the replicas; without a model, of all that are loaded."""
        if model:
            try:
                upstreams = [await self._owner(model)]
            except NotFoundError:  # Triton answers 400 here, and 404 everywhere else
                raise InvalidRequestError(f"requested model '{model}' is not available") from None
        else:
            upstreams = self._catalog.upstreams
        rows = []
        for upstream in upstreams:
            try:
                answers = await upstream.everywhere("statistics", model, version, timeout_s=TIMEOUT_S)
            except UnavailableError:
                if model or not upstream.optional:
                    raise
                continue
            given = [answer for answer in answers if not isinstance(answer, BaseException)]
            if model and not given:
                raise answers[0]
            rows += merge_statistics(given)
        return {"model_stats": rows}

    async def index(self, only_ready: bool = False) -> list[dict[str, str]]:
        return await self._catalog.index(only_ready)

    async def load(self, model: str, parameters: Mapping[str, str | bytes]) -> None:
        """A model that no deployment has may come whole with the request, to the deployment that is `controlled`."""
        _require_model_name(model)
        try:
            upstream = await self._owner(model)
        except NotFoundError:
            if self._controlled is None:
                raise
            upstream = self._controlled
        await self._change(upstream, ModelChange(model, "load", dict(parameters)))

    async def unload(self, model: str, dependents: bool) -> None:
        _require_model_name(model)
        try:
            upstream = await self._owner(model)
        except NotFoundError:
            return  # it isn't loaded, which is all that an unload is for
        await self._change(upstream, ModelChange(model, "unload", dependents=dependents))

    async def _change(self, upstream: Upstream, change: ModelChange) -> None:
        """On every replica; the first failure is the answer, with where it happened."""
        answers = await upstream.everywhere("change", change)
        await self._catalog.refresh()
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


def _require_model_name(model: str) -> None:
    """A model is a folder of the repository; a path would lead out of it."""
    if model in ("", ".", "..") or "/" in model or "\\" in model:
        raise InvalidRequestError(f"{model[:80]!r} is not a model's name: it must be a single path segment")


def _size_of(request: InferRequest) -> int:
    return sum(len(tensor.data) for tensor in request.inputs)


def _session_of(request: InferRequest) -> dict[str, Any]:
    """A sequence goes to one replica; in its middle no other replica can go on with it."""
    if not request.sequence.key:
        return {}
    return {"session": f"{request.model}/{request.sequence.key}", "retry": request.sequence.start}
