"""OpenAI's API: the paths that exist, which model a request means, and its answer as it comes from the replica."""

import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.errors import InvalidRequestError, NotFoundError, UnavailableError
from serve_app.router.deadlines import deadline_of
from serve_app.router.errors import openai_error, tellable
from serve_app.router.events import EventStream
from serve_app.router.kserve.bodies import read_body
from serve_app.router.kserve.documents import parse_object
from serve_app.router.upstream import Upstream
from serve_app.settings import LanguageModelSettings, Settings
from serve_app.telemetry.observation import observed

ENDPOINTS = ("chat/completions", "completions", "embeddings")
PASSED_ON = ("x-request-id", "traceparent", "tracestate")  # no other header of a caller is a replica's business
EVENT = "data: "
LAST_EVENT = "data: [DONE]\n\n"
ADAPTER_MARK = ":"  # ray.serve.llm's own: `model:adapter`


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a name in a request leads to; `adapter` is what the replica fetches for it first."""

    upstream: Upstream
    settings: LanguageModelSettings
    adapter: str = ""


class OpenAi:
    """A thin transport: requests are vLLM's to understand, in the replica."""

    def __init__(self, settings: Settings, upstreams: Mapping[str, Upstream]) -> None:
        self._settings = settings.router
        self._created = int(time.time())
        self._models: dict[str, ServedModel] = {}
        for model in settings.llms:
            self._models[model.name] = ServedModel(upstreams[model.name], model)
        for model in settings.llms:
            for adapter in model.fixed_adapters:
                self._models.setdefault(adapter, ServedModel(upstreams[model.name], model))

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{model:path}", self.model),
            *(Route(f"/v1/{endpoint}", self._endpoint(endpoint), methods=["POST"]) for endpoint in ENDPOINTS),
        ]

    async def models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self._models]})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._card(request.path_params["model"]))

    def _card(self, name: str) -> dict[str, Any]:
        served = self._find(name)
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "serve_app",
            "root": served.settings.name,
            "parent": None if name == served.settings.name else served.settings.name,
            "max_model_len": served.settings.engine.get("max_model_len"),
        }

    def _find(self, name: Any) -> ServedModel:
        """A name may be left out where there is one model only, as vLLM allows."""
        if name is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        there_is = f"there is: {', '.join(self._models) or 'none'}"
        if not isinstance(name, str) or not name:
            raise InvalidRequestError(f"`model` must name the model; {there_is}")
        if name in self._models:
            return self._models[name]
        model, _, adapter = name.partition(ADAPTER_MARK)
        base = self._models.get(model)
        if base and base.settings.adapters and adapter:
            return ServedModel(base.upstream, base.settings, adapter=name)
        raise NotFoundError(f"The model `{name}` does not exist; {there_is}")

    def _endpoint(self, endpoint: str) -> Any:
        async def answer(request: Request) -> Response:
            deadline = deadline_of(request.headers, self._settings)
            document = parse_object(await read_body(request, self._settings.max_body_mib << 20))
            served = self._find(document.get("model"))
            observed().model = served.settings.name
            headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
            pieces = served.upstream.stream(
                "openai", endpoint, document, headers, deadline, deadline=deadline, adapter=served.adapter
            )
            return await _respond(pieces)

        return answer


async def _respond(pieces: AsyncGenerator[tuple[int, str]]) -> Response:
    """What fails before the first event is a plain error; later, an event is all that is left to tell it."""
    status, text = await anext(pieces)
    if text.startswith(EVENT):
        return EventStream(_events(text, pieces), pieces)
    with suppress(Exception):  # the answer is here already
        async for _ in pieces:  # Serve counts a stream that is left before its end as cancelled
            pass
    headers = {"Retry-After": str(UnavailableError.retry_after_s)} if status == UnavailableError.status else None
    return Response(text, status, headers, "application/json")


async def _events(first: str, pieces: AsyncGenerator[tuple[int, str]]) -> AsyncGenerator[str]:
    try:
        yield first
        async for _, text in pieces:
            yield text
    except Exception as problem:
        told = tellable(problem)
        yield EVENT + json.dumps(openai_error(told.message, told.status)) + "\n\n"
        yield LAST_EVENT
