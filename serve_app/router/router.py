"""The Ray Serve deployment at the edge; it keeps no state, so any replica can answer anything."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from ray import serve
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from serve_app.detection.tracks import Track
from serve_app.keys.leases import Call, Leases
from serve_app.router.admission import Admission, Admit
from serve_app.router.catalog import Catalog
from serve_app.router.deployments import Deployments
from serve_app.router.errors import HANDLERS
from serve_app.router.gate import Gate, RequireKey
from serve_app.router.hosted import Hosted, HostedUpstream
from serve_app.router.kserve.grpc import KserveGrpc
from serve_app.router.kserve.http import KserveHttp
from serve_app.router.observe import ObserveRequests
from serve_app.router.offload import Offload
from serve_app.router.openai import OpenAi
from serve_app.router.plane import DataPlane, ServedTrack
from serve_app.router.requests import BoundBody
from serve_app.router.rest.detection import DetectionRest
from serve_app.router.rest.documentation import Documentation
from serve_app.router.rest.home import Home
from serve_app.router.rest.metrics import Metrics
from serve_app.router.rest.operations import Operations
from serve_app.router.rest.playground import Playground
from serve_app.router.upstream import Upstream
from serve_app.settings import LanguageModelSettings, Settings
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.telemetry.replica import begin_replica, keep_what_is_loaded

COUNTER_TIMEOUT_S = 0.5  # a request waits for it only when a lease has ended
PLAYGROUND_TIMEOUT_S = 5.0  # how long a visitor waits while the playground has no replica


class Router(KserveGrpc):
    """Knows which deployment answers what; the handles come from app.py. Its methods are those of the gRPC service."""

    def __init__(
        self,
        settings: Settings,
        tracks: Mapping[Track, str],
        deployments: Mapping[str, Any],
        playground: Any = None,
        keys: Any = None,
        hosted: Upstream | None = None,
    ) -> None:
        begin_replica()
        self._settings, self._router_settings = settings, settings.router
        self._metrics = RequestMetrics()
        self._offload = Offload()
        self._admission = Admission(settings.router, [model.name for model in settings.llms])
        self._gate = Gate(settings.router, Leases(counter_call(keys), uuid.uuid4().hex, settings.router.keys_uncounted))
        models = {model.name: model for model in settings.llms}
        upstreams = {name: build_upstream(name, handle, models.get(name)) for name, handle in deployments.items()}
        if hosted:
            upstreams = {hosted.name: hosted} | upstreams
        self._playground = Upstream("playground", playground, PLAYGROUND_TIMEOUT_S) if playground else None
        self._plane = build_plane(settings, tracks, upstreams, self._playground)
        keep_what_is_loaded()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        routes = [  # tried in their order: what is asked most comes first
            *DetectionRest(self._plane, self._settings).routes(),
            *KserveHttp(self._plane, self._settings.router, self._gate, self._offload).routes(),
            *OpenAi(self._plane, self._settings, self._offload).routes(),
            *Metrics().routes(),
            *Operations(self._plane).routes(),
            *Documentation(self._plane.tracks.values(), with_playground=self._playground is not None).routes(),
            *self._home().routes(),
        ]
        if self._playground:
            routes += Playground(self._playground).routes()
        application = Starlette(
            routes=routes,
            middleware=[
                Middleware(ObserveRequests, metrics=self._metrics),
                Middleware(RequireKey, gate=self._gate, admission=self._admission),
                Middleware(Admit, admission=self._admission),
                Middleware(BoundBody, settings=self._settings.router),
            ],
            exception_handlers=HANDLERS,
        )
        application.router.redirect_slashes = False  # a path with a slash more is another path, as in Triton
        return application

    def _home(self) -> Home:
        models = [model.name for model in self._settings.llms]
        return Home(
            self._plane.tracks, models, with_playground=self._playground is not None,
            keys=self._router_settings.keys_file is not None,
        )  # fmt: skip


class HostingRouter(Router):
    """Holds a deployment as well: `POST /predict/nano` is answered in the process that took it."""

    async def __init__(  # type: ignore[misc]
        self,
        hosted: Hosted,
        settings: Settings,
        tracks: Mapping[Track, str],
        deployments: Mapping[str, Any],
        playground: Any = None,
        keys: Any = None,
    ) -> None:
        self._hosted = await hosted.start()
        own = serve.get_replica_context()
        handle = serve.get_deployment_handle(own.deployment, own.app_name)
        upstream = HostedUpstream(hosted, self._hosted, handle)
        super().__init__(settings, tracks, deployments, playground, keys, upstream)

    def __getattr__(self, name: str) -> Any:
        """The other routers call what it holds by this deployment's handle, and so does Serve (health, autoscaling)."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._hosted, name)

    async def __del__(self) -> None:
        """Serve calls this once no request is in flight any more."""
        if "_hosted" in vars(self):
            await self._hosted.close()


def counter_call(keys: Any) -> Call:
    """`keys` is the handle of the counter; None where no keys are asked for, and so nothing is counted."""
    upstream = Upstream("keys", keys) if keys else None

    async def call(method: str, *arguments: Any) -> Any:
        assert upstream is not None
        return await upstream.call(method, *arguments, deadline=time.time() + COUNTER_TIMEOUT_S)

    return call


def build_upstream(name: str, handle: Any, model: LanguageModelSettings | None) -> Upstream:
    return Upstream(name, handle, model.wake_timeout_s, model.scales_to_zero) if model else Upstream(name, handle)


def build_plane(
    settings: Settings, tracks: Mapping[Track, str], upstreams: Mapping[str, Upstream], playground: Upstream | None
) -> DataPlane:
    servers = {triton.name for triton in settings.triton} | {model.name for model in settings.llms}
    configured = {track.model: name for track, name in tracks.items() if name in servers}
    configured |= {model.name: model.name for model in settings.llms}
    controlled = [upstreams[triton.name] for triton in settings.triton if triton.control_mode == "explicit"]
    return DataPlane(
        Catalog([upstream for name, upstream in upstreams.items() if name in servers], configured),
        Deployments(upstreams.values(), playground),
        {track.path: ServedTrack(track, upstreams[name]) for track, name in tracks.items()},
        next(iter(controlled), None),
        [model.name for model in settings.llms],
    )
