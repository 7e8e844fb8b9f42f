"""A fake data plane, and the routes and the gRPC service over it."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from serve_app.errors import NotFoundError
from serve_app.router.admission import Admission
from serve_app.router.errors import HANDLERS
from serve_app.router.gate import Gate
from serve_app.router.kserve.grpc import KserveGrpc
from serve_app.router.kserve.http import KserveHttp
from serve_app.router.kserve.service import messages as pb
from serve_app.router.offload import Offload
from serve_app.router.requests import BoundBody
from serve_app.settings import RouterSettings
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.types.tensors import InferAnswer, Tensor


class Plane:
    """Has the model `echo`, which answers its inputs or what a test sets; keeps the requests."""

    def __init__(self):
        self.asked, self.changes = [], []
        self.inputs = [{"name": "x", "datatype": "INT32", "shape": [-1]}]
        self.max_batch_size = 0
        self.answers = None  # what `infer` and `stream` give: answers, or errors to raise
        self.is_ready, self.problem = True, None
        self.begun, self.ended, self.cancelled = [], [], []
        self.gate = asyncio.Event()
        self.gate.set()

    def _require(self, model):
        if self.problem:
            raise self.problem
        if model != "echo":
            raise NotFoundError(f"Request for unknown model: '{model}' is not found; available: echo")

    def _given(self, asked):
        self._require(asked.model)
        self.asked.append(asked)
        if self.answers is not None:
            return self.answers
        outputs = tuple(Tensor(f"{x.name}_out", x.datatype, x.shape, x.data) for x in asked.inputs)
        return [InferAnswer(asked.model, "1", asked.id, outputs)]

    async def infer(self, asked):
        (answer,) = self._given(asked)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(self, asked):
        self.begun.append(asked.id)
        try:
            for answer in self._given(asked):
                await self.gate.wait()
                if isinstance(answer, Exception):
                    raise answer
                yield answer
            self.ended.append(asked.id)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.append(asked.id)
            raise

    def server_metadata(self):
        return {"name": "serve_app", "version": "1.2", "extensions": ["statistics"]}

    async def ready(self):
        return self.is_ready

    async def model_ready(self, model, version):
        self.asked.append((model, version))
        return model == "echo" and self.is_ready

    async def metadata(self, model, version):
        self._require(model)
        return {"name": model, "versions": [str(version)], "inputs": self.inputs, "outputs": []}

    async def config(self, model, version):
        self._require(model)
        return {"name": model, "max_batch_size": self.max_batch_size}

    async def signature(self, model, version, deadline):
        config = await self.config(model, version)
        return await self.metadata(model, version), config["max_batch_size"] > 0

    async def statistics(self, model, version):
        self._require(model or "echo")
        return {"model_stats": [{"name": model or "all", "version": str(version)}]}

    async def index(self, only_ready=False):
        rows = [{"name": "b", "state": "READY"}, {"name": "a", "version": "1", "state": "READY"}, {"name": "c"}]
        return rows[: 2 if only_ready else 3]

    async def load(self, model, parameters):
        self._require(model)
        self.changes.append(("load", model, parameters))

    async def unload(self, model, dependents):
        self._require(model)
        self.changes.append(("unload", model, dependents))


@pytest.fixture
def plane():
    return Plane()


@pytest.fixture
def serve(plane):
    """A client of the routes; an unexpected failure is a 500, as behind a real server."""

    def over(key_file=None, **settings):
        routes = KserveHttp(
            plane, RouterSettings(**settings), Gate(RouterSettings(admin_key_file=key_file), None), Offload()
        ).routes()
        middleware = [Middleware(BoundBody, settings=RouterSettings(**settings))]
        app = Starlette(routes=routes, middleware=middleware, exception_handlers=HANDLERS)
        app.router.redirect_slashes = False
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://router"
        )

    return over


@pytest.fixture
async def client(serve):
    async with serve() as made:
        yield made


METHODS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}


class Context:
    """A call's metadata, and the status that it is answered with."""

    def __init__(self, **metadata):
        self._metadata = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        self.code, self.details, self.trailing = None, None, {}

    def invocation_metadata(self):
        return self._metadata

    def set_code(self, code):
        self.code = code

    def set_details(self, details):
        self.details = details

    def set_trailing_metadata(self, metadata):
        self.trailing = dict(metadata)


class Service(KserveGrpc):
    def __init__(self, plane, key_file=None):
        settings = RouterSettings(admin_key_file=key_file)
        self._plane, self._gate, self._router_settings = plane, Gate(settings, None), settings
        self._offload, self._admission = Offload(), Admission(RouterSettings(), ())
        self._metrics = RequestMetrics()


@pytest.fixture
def context():
    return Context


@pytest.fixture
def service(plane):
    """The methods of the gRPC service over the plane."""

    def over(key_file=None):
        return Service(plane, key_file)

    return over


@pytest.fixture
def ask(service):
    """Call a method with the fields of its request; the answer comes with its status and details."""

    async def call(method, request=None, key_file=None, metadata=None, **fields):
        called = Context(**metadata or {})
        asked = getattr(pb, METHODS[method].input_type.name)(**fields) if request is None else request
        answer = await getattr(service(key_file), method)(asked, called)
        assert type(answer) is getattr(pb, METHODS[method].output_type.name)
        return answer, called.code, called.details

    return call
