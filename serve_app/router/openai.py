"""OpenAI's API: its paths, the model that a request names, and the replica's answer as it comes."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.errors import InvalidRequestError, NotFoundError, UnavailableError
from serve_app.router.errors import openai_error, public_error
from serve_app.router.offload import Offload
from serve_app.router.parsing import parse_object
from serve_app.router.plane import DataPlane, TextRequest
from serve_app.router.requests import deadline_of, read_body
from serve_app.router.streaming import EventStream
from serve_app.settings import LanguageModelSettings, Settings

ENDPOINTS = ("chat/completions", "completions", "embeddings")
FORWARDED = ("x-request-id", "traceparent", "tracestate")  # a replica needs no other header of the caller
EVENT = "data: "
LAST_EVENT = "data: [DONE]\n\n"
ADAPTER_MARK = ":"  # ray.serve.llm's own: `model:adapter`


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a name in a request stands for; `adapter` is what the replica loads for it first."""

    settings: LanguageModelSettings
    adapter: str = ""


class OpenAi:
    """A thin transport: the replica, which has vLLM, reads the requests."""

    def __init__(self, plane: DataPlane, settings: Settings, offload: Offload) -> None:
        self._plane = plane
        self._offload = offload
        self._settings = settings.router
        self._created = int(time.time())
        self._models: dict[str, ServedModel] = {}
        for model in settings.llms:
            self._models[model.name] = ServedModel(model)
        for model in settings.llms:
            for adapter in model.fixed_adapters:
                self._models.setdefault(adapter, ServedModel(model))

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
        """The name may be omitted if only one model is served, as in vLLM."""
        if name is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        available = f"available: {', '.join(self._models) or 'none'}"
        if not isinstance(name, str) or not name:
            raise InvalidRequestError(f"`model` must be the name of a model; {available}")
        if name in self._models:
            return self._models[name]
        model, _, adapter = name.partition(ADAPTER_MARK)
        base = self._models.get(model)
        if base and base.settings.adapters and adapter:
            return ServedModel(base.settings, adapter=name)
        raise NotFoundError(f"The model `{name}` does not exist; {available}")

    def _endpoint(self, endpoint: str) -> Any:
        async def answer(request: Request) -> Response:
            deadline = deadline_of(request.headers, self._settings)
            body = await read_body(request, self._settings.max_body_mib << 20)
            document = await self._offload.run(parse_object, body, size=len(body), deadline=deadline)
            served = self._find(document.get("model"))
            headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
            text = TextRequest(served.settings.name, endpoint, document, headers, deadline, served.adapter, len(body))
            return await _respond(self._plane.complete(text))

        return answer


async def _respond(pieces: AsyncGenerator[tuple[int, str]]) -> Response:
    """What fails before the first event is a plain error; a later failure can only be sent as an event."""
    status, text = await anext(pieces)
    if text.startswith(EVENT):
        return EventStream(_events(text, pieces), pieces)
    with suppress(Exception):  # the answer is complete already
        async for _ in pieces:  # Serve counts a stream that isn't read to its end as cancelled
            pass
    headers = {"Retry-After": str(UnavailableError.retry_after_s)} if status == UnavailableError.status else None
    return Response(text, status, headers, "application/json")


async def _events(first: str, pieces: AsyncGenerator[tuple[int, str]]) -> AsyncGenerator[str]:
    try:
        yield first
        async for _, text in pieces:
            yield text
    except Exception as problem:
        error = public_error(problem)
        yield EVENT + json.dumps(openai_error(error.message, error.status)) + "\n\n"
        yield LAST_EVENT
