"""Composes the application: the only place that calls .bind()."""

import fnmatch
from typing import Any

from ray import serve

from serve_app.detection.baseline import TorchBaseline
from serve_app.detection.tracks import Track, tracks_of
from serve_app.errors import ConfigurationError
from serve_app.router.deployment import Router
from serve_app.settings import Settings, parse_settings
from serve_app.triton.deployment import TritonReplica

BASELINE = "baseline"


def build(args: dict[str, Any]) -> serve.Application:
    """What `import_path: serve_app.app:build` names; everything is checked before the first .bind()."""
    settings = parse_settings(args)
    tracks = route_tracks(settings)
    deployments: dict[str, serve.Application] = {
        triton.name: serve.deployment(TritonReplica)
        # Serve waits for requests first, then for the engine, and kills at this limit
        .options(name=triton.name, graceful_shutdown_timeout_s=triton.drain_timeout_s + 10)
        .bind(triton, settings.detection)
        for triton in settings.triton
    }
    if settings.baseline:
        baseline = serve.deployment(TorchBaseline).options(name=BASELINE)
        deployments[BASELINE] = baseline.bind(settings.baseline, settings.detection)
    return serve.deployment(serve.ingress()(Router)).options(name="router").bind(settings, tracks, deployments)


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
    if not routes:
        raise ConfigurationError("no deployment serves a track: see triton[].models")
    return routes
