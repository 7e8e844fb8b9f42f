"""Composes the application: the only place that calls .bind()."""

import fnmatch
import logging
from typing import Any

import ray
from ray import serve
from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY
from ray.serve.config import RequestRouterConfig
from ray.serve.context import _get_global_client as get_global_client

from serve_app.detection.baseline import TorchBaseline
from serve_app.detection.tracks import Track, tracks_of
from serve_app.errors import ConfigurationError
from serve_app.keys.counter import KeyCounter
from serve_app.llm.deployment import build_options
from serve_app.llm.late import LateLanguageModel
from serve_app.router.hosted import Hosted
from serve_app.router.router import HostingRouter, Router
from serve_app.settings import (
    DetectionSettings,
    LanguageModelSettings,
    PlaygroundSettings,
    Settings,
    TritonSettings,
    parse_settings,
    require_closed,
)
from serve_app.triton.replica import TritonReplica
from serve_app.ui.replica import PlaygroundReplica
from serve_app.versions import give_each_deployment_its_own

logger = logging.getLogger("ray.serve")
BASELINE = "baseline"
ROUTER_DRAIN_S = 10  # beyond what a request may take: a router that is replaced finishes its streams
ENGINE_STOP_S = 10
ROUTER_REQUESTS = 1024  # where a router holds a language model and `deployments:` says no other number
PLAYGROUND_DRAIN_S = 5  # its sessions end with it, so waiting longer gains nothing
# A replica is replaced after three failed checks: after six seconds if it says so, after half a minute if it hangs.
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = 2, 10
CONSISTENT_HASHING = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


def build(args: dict[str, Any]) -> serve.Application:
    """The application of `import_path: serve_app.app:build`; everything is checked before the first .bind()."""
    settings = parse_settings(args)
    client = get_global_client(raise_if_no_controller_running=False) if ray.is_initialized() else None
    if client:
        require_closed(settings, client.http_config.host)
    tracks = route_tracks(settings)
    warn_without_haproxy()
    give_each_deployment_its_own()
    deployments = {triton.name: bind_triton(triton, settings.detection) for triton in settings.separate}
    deployments |= {model.name: bind_language_model(model) for model in settings.separate_llms}
    if settings.baseline:
        baseline = serve.deployment(TorchBaseline).options(name=BASELINE)
        deployments[BASELINE] = baseline.bind(settings.baseline, settings.detection)
    playground = bind_playground(settings.playground) if settings.playground else None
    keys = bind_keys() if settings.router.keys_file else None
    arguments = settings.as_routed, tracks, deployments
    drain_s = settings.router.request_timeout_s + ROUTER_DRAIN_S
    if settings.hosted is None:
        router = serve.deployment(serve.ingress()(Router)).options(name="router", graceful_shutdown_timeout_s=drain_s)
        return router.bind(*arguments, playground=playground, keys=keys)
    hosted, options = host(settings.hosted, settings.detection, drain_s)
    router = serve.deployment(serve.ingress()(HostingRouter)).options(name="router", **options)
    return router.bind(hosted, *arguments, playground=playground, keys=keys)


def host(
    one: TritonSettings | LanguageModelSettings, detection: DetectionSettings, drain_s: float
) -> tuple[Hosted, dict[str, Any]]:
    """What the routers hold, and their options, which are as its own replicas would have them."""
    if isinstance(one, TritonSettings):
        return Hosted(one.name, TritonReplica, (one, detection), one.max_ongoing_requests), options_of(one, drain_s)
    options = language_model_options(one)
    limit = options.pop("max_ongoing_requests")
    options["graceful_shutdown_timeout_s"] = max(options["graceful_shutdown_timeout_s"], drain_s + ENGINE_STOP_S)
    hosted = Hosted(one.name, LateLanguageModel, (one,), limit, {"in_router": True})
    return hosted, options | {"max_ongoing_requests": ROUTER_REQUESTS, "max_queued_requests": -1}


def bind_triton(triton: TritonSettings, detection: DetectionSettings) -> serve.Application:
    return serve.deployment(TritonReplica).options(name=triton.name, **options_of(triton)).bind(triton, detection)


def options_of(triton: TritonSettings, drain_s: float = 0) -> dict[str, Any]:
    """Serve waits for requests first, `drain_s` at least, then for the engine, and kills at this limit."""
    options: dict[str, Any] = {
        "graceful_shutdown_timeout_s": max(triton.drain_timeout_s, drain_s) + ENGINE_STOP_S,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
    }
    if triton.sequences:
        options["request_router_config"] = RequestRouterConfig(request_router_class=CONSISTENT_HASHING)
    return options


def bind_playground(playground: PlaygroundSettings) -> serve.Application:
    """One replica: the page's sessions live in its process."""
    return (
        serve.deployment(PlaygroundReplica)
        .options(
            name="playground", num_replicas=1, max_ongoing_requests=256, graceful_shutdown_timeout_s=PLAYGROUND_DRAIN_S
        )
        .bind(playground)
    )


def bind_keys() -> serve.Application:
    """One replica, which counts for all routers."""
    return (
        serve.deployment(KeyCounter)
        .options(name="keys", num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0})
        .bind()
    )


def bind_language_model(model: LanguageModelSettings) -> serve.Application:
    return serve.deployment(LateLanguageModel, name=model.name, **language_model_options(model)).bind(model)


def language_model_options(model: LanguageModelSettings) -> dict[str, Any]:
    try:
        options = build_options(model)
        serve.deployment(LateLanguageModel, name=model.name, **options)  # which checks them
    except (ValueError, TypeError) as problem:
        raise ConfigurationError(f"llms: {model.name}: {problem}") from None
    return options


def warn_without_haproxy() -> None:
    if not RAY_SERVE_ENABLE_HA_PROXY:
        logger.warning(
            "HAProxy is off, and Serve's own proxy handles a tenth of the requests: "
            "set RAY_SERVE_ENABLE_HA_PROXY=1 for every Ray process, as configs/ray.env does"
        )


def route_tracks(settings: Settings) -> dict[Track, str]:
    """Each track with the first deployment that serves its model."""
    routes = {}
    for track in tracks_of(settings.detection.models, settings.baseline_sizes):
        if track.design.kind == "baseline":
            routes[track] = BASELINE
            continue
        for triton in settings.triton:
            if any(fnmatch.fnmatchcase(track.model, pattern) for pattern in triton.models):
                routes[track] = triton.name
                break
    if not routes and any(triton.model_repository is None for triton in settings.triton):
        raise ConfigurationError("no deployment serves any track: triton[].models matches none of the detection models")
    return routes
