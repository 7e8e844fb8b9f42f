"""KServe v2 over HTTP: each route parses a request, calls the data plane, and answers."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.errors import InvalidRequestError, NotFoundError, UnavailableError, UnsupportedError
from serve_app.router.gate import Gate
from serve_app.router.kserve.bodies import answer_body, json_bytes, raw_request, respond, split_body, write_json
from serve_app.router.kserve.documents import flag_field, read_request, require_text
from serve_app.router.kserve.generate import Generate
from serve_app.router.kserve.models import FIXED_SETTINGS, NO_SHARED_MEMORY, load_parameters, model_of
from serve_app.router.offload import Offload
from serve_app.router.parsing import parse_object
from serve_app.router.plane import DataPlane
from serve_app.router.requests import deadline_of, read_body
from serve_app.settings import RouterSettings

# Paths of Triton that clients get a reason for instead of "Not Found"
UNSUPPORTED = {
    "/v2/systemsharedmemory/{rest:path}": NO_SHARED_MEMORY,
    "/v2/cudasharedmemory/{rest:path}": NO_SHARED_MEMORY,
    "/v2/trace/setting": FIXED_SETTINGS,
    "/v2/models/{model}/trace/setting": FIXED_SETTINGS,
    "/v2/logging": FIXED_SETTINGS,
}
Endpoint = Callable[[Request], Awaitable[Response]]


class KserveHttp:
    """Every path of the protocol, with and without a version."""

    def __init__(self, plane: DataPlane, settings: RouterSettings, gate: Gate, offload: Offload) -> None:
        self._plane = plane
        self._offload = offload
        self._settings = settings
        self._gate = gate
        self._max_bytes = settings.max_body_mib << 20

    def routes(self) -> list[Route]:
        generate = Generate(self._plane, self._settings, self._max_bytes, self._offload)
        post_endpoints: list[tuple[str, Endpoint]] = [
            ("/infer", self.infer),
            ("/generate", generate.one),
            ("/generate_stream", generate.many),
        ]
        get_endpoints: list[tuple[str, Endpoint]] = [
            ("", self.metadata),
            ("/ready", self.model_ready),
            ("/config", self.config),
            ("/stats", self.statistics),
        ]
        # in this order: Starlette tries one route after the other, and inferences are asked most
        return [*_model_routes(post_endpoints, "POST"), *self._server_routes(), *_model_routes(get_endpoints, "GET")]

    def _server_routes(self) -> list[Route]:
        return [
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models", self.models),
            Route("/v2/models/stats", self.statistics),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/v2/repository/models/{model}/load", self.load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self.unload, methods=["POST"]),
            Route("/v2/repository/{repository}/index", self.index, methods=["POST"]),
            Route("/v2/repository/{repository}/models/{model}/{action}", self.named_repository, methods=["POST"]),
            *(Route(path, self.unsupported, methods=["GET", "POST"]) for path in UNSUPPORTED),
        ]

    async def infer(self, request: Request) -> Response:
        deadline = deadline_of(request.headers, self._settings)
        head, tail = split_body(request, await read_body(request, self._max_bytes))
        model, version = model_of(request)
        if head:
            whole = (model, version, head, tail, deadline)
            asked, as_binary = await self._offload.run(read_request, *whole, size=len(head), deadline=deadline)
        else:
            metadata, batched = await self._plane.signature(model, version, deadline)
            asked, as_binary = raw_request(model, version, tail, metadata, batched, deadline), {"": True}
        answer = await self._plane.infer(asked)
        size = json_bytes(answer, as_binary)
        body = await self._offload.run(answer_body, answer, as_binary, size=size, deadline=deadline)
        return await respond(request, *body)

    async def server_metadata(self, _request: Request) -> Response:
        return _json(self._plane.server_metadata())

    async def live(self, _request: Request) -> Response:
        return Response()

    async def ready(self, _request: Request) -> Response:
        if not await self._plane.ready():
            raise UnavailableError("not every deployment is ready; try again later")
        return Response()

    async def models(self, _request: Request) -> Response:
        """The names of ready models, as KServe's own servers list them; Triton has no such path."""
        return _json({"models": sorted({row["name"] for row in await self._plane.index(only_ready=True)})})

    async def model_ready(self, request: Request) -> Response:
        if not await self._plane.model_ready(*model_of(request)):
            return JSONResponse({"error": "Model version not ready"}, InvalidRequestError.status)
        return Response()

    async def metadata(self, request: Request) -> Response:
        return _json(await self._plane.metadata(*model_of(request)))

    async def config(self, request: Request) -> Response:
        return _json(await self._plane.config(*model_of(request)))

    async def statistics(self, request: Request) -> Response:
        model, version = model_of(request) if "model" in request.path_params else ("", -1)
        return _json(await self._plane.statistics(model, version))

    async def index(self, request: Request) -> Response:
        """A repository's name is ignored, as in Triton."""
        only_ready = flag_field(await self._document(request), "ready")
        return _json(await self._plane.index(only_ready))

    async def load(self, request: Request) -> Response:
        self._gate.require_control(request.headers)
        parameters = load_parameters((await self._document(request)).get("parameters", {}))
        await self._plane.load(require_text(model_of(request)[0], "the model's name"), parameters)
        return Response(media_type="application/json")

    async def unload(self, request: Request) -> Response:
        self._gate.require_control(request.headers)
        parameters = (await self._document(request)).get("parameters", {})
        dependents = parameters.get("unload_dependents", False) if isinstance(parameters, Mapping) else None
        if not isinstance(dependents, bool):
            raise InvalidRequestError("Unable to parse 'unload_dependents': it must be true or false")
        await self._plane.unload(require_text(model_of(request)[0], "the model's name"), dependents)
        return Response(media_type="application/json")

    async def named_repository(self, request: Request) -> Response:
        if request.path_params["action"] not in ("load", "unload"):
            raise NotFoundError("Not Found")
        raise UnsupportedError("'repository_name' specification is not supported")

    async def unsupported(self, request: Request) -> Response:
        raise UnsupportedError(f"{request.url.path}: {UNSUPPORTED[request.scope['route'].path]}")

    async def _document(self, request: Request) -> dict[str, Any]:
        body = await read_body(request, self._max_bytes)
        return await self._offload.run(parse_object, body, size=len(body)) if body else {}


def _model_routes(endpoints: Iterable[tuple[str, Endpoint]], method: str) -> Iterator[Route]:
    for path, endpoint in endpoints:
        for version in ("", "/versions/{version}"):
            yield Route(f"/v2/models/{{model}}{version}{path}", endpoint, methods=[method])


def _json(document: Any) -> Response:
    return Response(write_json(document), media_type="application/json")
