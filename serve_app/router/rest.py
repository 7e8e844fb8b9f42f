"""Detection over REST."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ray.serve.exceptions import BackPressureError
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serve_app.detection.tracks import Track
from serve_app.errors import NotFoundError, UnavailableError
from serve_app.router.errors import HANDLERS
from serve_app.router.limits import LimitBody
from serve_app.router.pictures import read_pictures, read_thresholds
from serve_app.settings import Settings
from serve_app.types import PictureResult, TrackAnswer

HEALTH_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class ServedTrack:
    """A track, and the deployment that answers it."""

    track: Track
    deployment: str
    handle: Any


class DetectionRest:
    """The endpoints; each parses, calls a handle and answers."""

    def __init__(self, settings: Settings, tracks: Mapping[str, ServedTrack], deployments: Mapping[str, Any]) -> None:
        self._settings = settings
        self._tracks = tracks
        self._deployments = deployments
        self._last_said: dict[str, dict[str, Any]] = {}

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/pytorch/predict/{target}", self.predict, methods=["POST"]),
                Route("/predict/{target}", self.predict, methods=["POST"]),
                Route("/tracks", self.tracks),
                Route("/v2/models/{model}/stats", self.statistics),
                Route("/health", self.health),
            ],
            middleware=[Middleware(LimitBody, max_bytes=self._settings.router.max_body_mib << 20)],
            exception_handlers=HANDLERS,
        )

    async def predict(self, request: Request) -> JSONResponse:
        started = time.perf_counter()
        path = get_route_path(request.scope)
        served = self._tracks.get(path)
        if served is None:
            raise NotFoundError(f"no track at {path}; there is: {', '.join(self._tracks)}")
        thresholds = read_thresholds(request.query_params, self._settings.detection)
        sent = await read_pictures(request)
        answer: TrackAnswer = await served.handle.detect.remote(served.track.target, sent.pictures, thresholds)
        head = _head(served.track, answer)
        total_ms = (time.perf_counter() - started) * 1e3
        if sent.many:
            results = [_picture(result, total_ms) for result in answer.results]
            return JSONResponse(head | {"status": "success", "results": results})
        (result,) = answer.results
        if result.error is not None:
            return JSONResponse({"error": result.error}, result.error_status)
        return JSONResponse({"status": "success"} | head | _picture(result, total_ms))

    async def tracks(self, _request: Request) -> JSONResponse:
        described = await self._describe_all()
        rows = []
        for path, served in self._tracks.items():
            card = (described[served.deployment] or {}).get("tracks", {}).get(served.track.target)
            model = {"name": served.track.model} | (
                {"backend": card.backend, "device": card.device, "precision": card.precision} if card else {}
            )
            rows.append(
                {"track": served.track.design.name, "path": path, "size": served.track.size, "model": model,
                 "summary": served.track.design.summary, "ready": card is not None}
            )  # fmt: skip
        return JSONResponse({"tracks": rows})

    async def statistics(self, request: Request) -> JSONResponse:
        """Triton's statistics of a model, from whichever deployment has it."""
        model = request.path_params["model"]
        for name, described in (await self._describe_all()).items():
            if described and any(row["name"] == model for row in described.get("models", [])):
                return JSONResponse(await self._deployments[name].statistics.remote(model))
        raise NotFoundError(f"no model {model!r} is served")

    async def health(self, _request: Request) -> JSONResponse:
        """Live always; ready when every deployment answers, or is too busy to."""
        described = await self._describe_all()
        ready = {name: one is not None for name, one in described.items()}
        body = {"live": True, "ready": all(ready.values()), "deployments": ready}
        return JSONResponse(body, 200 if all(ready.values()) else UnavailableError.status)

    async def _describe_all(self) -> dict[str, dict[str, Any] | None]:
        answers = await asyncio.gather(*(self._describe(name) for name in self._deployments))
        return dict(zip(self._deployments, answers, strict=True))

    async def _describe(self, name: str) -> dict[str, Any] | None:
        """What a deployment says of itself, or said last when it is too busy now; None when it isn't there."""
        try:
            async with asyncio.timeout(HEALTH_PATIENCE_S):
                self._last_said[name] = await self._deployments[name].describe.remote()
        except (TimeoutError, BackPressureError):
            pass  # a queue of work is no illness: Serve's own health checks tell the two apart
        except Exception:  # whatever keeps it from answering, it isn't ready
            self._last_said.pop(name, None)
        return self._last_said.get(name)


def _head(track: Track, answer: TrackAnswer) -> dict[str, Any]:
    model = {"name": answer.model, "backend": answer.backend, "device": answer.device}
    return {"track": track.design.name, "model": model}


def _picture(result: PictureResult, total_ms: float) -> dict[str, Any]:
    if result.error is not None:
        return {"status": "error", "error": result.error, "code": result.error_status}
    times = {stage: round(value, 3) for stage, value in asdict(result.times).items()}
    return {
        "status": "success",
        "image": {"width": result.width, "height": result.height},
        "num_detections": len(result.detections),
        "detections": [
            {"x1": found.x1, "y1": found.y1, "x2": found.x2, "y2": found.y2, "confidence": found.confidence,
             "class": found.class_id, "class_name": found.class_name}
            for found in result.detections
        ],
        "timing_ms": times | {"total": round(total_ms, 3)},
    }  # fmt: skip
