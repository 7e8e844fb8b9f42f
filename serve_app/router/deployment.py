"""The Ray Serve deployment at the edge; it keeps no state, so any replica can answer anything."""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp

from serve_app.detection.tracks import Track
from serve_app.router.rest import DetectionRest, ServedTrack
from serve_app.settings import Settings


class Router:
    """Knows which deployment answers which track; the handles come from app.py."""

    def __init__(self, settings: Settings, tracks: Mapping[Track, str], deployments: Mapping[str, Any]) -> None:
        self._settings = settings
        self._deployments = deployments
        self._tracks = {
            track.path: ServedTrack(track, deployment, deployments[deployment]) for track, deployment in tracks.items()
        }

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return DetectionRest(self._settings, self._tracks, self._deployments).application()
