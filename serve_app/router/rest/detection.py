"""Detection over REST: a picture or many in, boxes or the drawn picture out."""

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.detection.drawing import draw
from serve_app.detection.tracks import Track
from serve_app.errors import InvalidRequestError, NotAnImageError, NotFoundError, UnreadableImageError
from serve_app.router.errors import reason_of
from serve_app.router.plane import DataPlane, ServedTrack
from serve_app.router.requests import deadline_of
from serve_app.router.rest.pictures import PictureRequest, read_flag, read_pictures, read_thresholds
from serve_app.settings import Settings
from serve_app.telemetry.observation import observed
from serve_app.types import PictureResult, TrackAnswer

# Why a picture was refused, as metrics name it
REFUSAL_REASONS = {kind.status: reason_of(kind) for kind in (NotAnImageError, UnreadableImageError)}


class DetectionRest:
    """The predict endpoints."""

    def __init__(self, plane: DataPlane, settings: Settings) -> None:
        self._plane = plane
        self._settings = settings

    def routes(self) -> list[Route]:
        return [
            Route("/predict/{target}", self.predict, methods=["POST"]),
            Route("/pytorch/predict/{target}", self.predict, methods=["POST"]),
        ]

    async def predict(self, request: Request) -> Response:
        """One picture gives one result; several, or a form with `images`, give a list."""
        started = time.perf_counter()
        deadline = deadline_of(request.headers, self._settings.router)
        served = self._served(request)
        thresholds = read_thresholds(request.query_params, self._settings.detection)
        annotate = read_flag(request.query_params, "annotate")
        sent = await read_pictures(request)
        if annotate and sent.many:
            raise InvalidRequestError("annotate=true takes one picture: send it as `image`, or as the body")
        answer = await self._plane.detect(served, sent.pictures, thresholds, deadline)
        if annotate and answer.results[0].error is None:
            return await self._draw(sent, answer.results[0])
        return _json_answer(served.track, answer, sent.many, (time.perf_counter() - started) * 1e3)

    def _served(self, request: Request) -> ServedTrack:
        prefix = "/pytorch/predict/" if request.scope["route"].path.startswith("/pytorch") else "/predict/"
        path = prefix + request.path_params["target"]
        if path not in self._plane.tracks:
            raise NotFoundError(f"no track at {path}; available: {', '.join(self._plane.tracks)}")
        return self._plane.tracks[path]

    async def _draw(self, sent: PictureRequest, result: PictureResult) -> Response:
        limit = self._settings.detection.max_pixels
        jpeg = await asyncio.to_thread(draw, sent.pictures[0], result.detections, limit)
        return Response(jpeg, media_type="image/jpeg")


def _json_answer(track: Track, answer: TrackAnswer, many: bool, total_ms: float) -> JSONResponse:
    model = {"name": answer.model, "backend": answer.backend, "device": answer.device}
    head = {"track": track.design.name, "model": model}
    if many:
        results = [_picture_document(result, total_ms) for result in answer.results]
        return JSONResponse(head | {"status": "success", "results": results})
    (result,) = answer.results
    if result.error is not None:
        observed().refused = REFUSAL_REASONS.get(result.error_status, "")
        return JSONResponse({"error": result.error}, result.error_status)
    return JSONResponse({"status": "success"} | head | _picture_document(result, total_ms))


def _picture_document(result: PictureResult, total_ms: float) -> dict[str, Any]:
    if result.error is not None:
        return {"status": "error", "error": result.error, "code": result.error_status}
    times = {stage: round(value, 3) for stage, value in result.times.by_stage().items()}
    return {
        "status": "success",
        "image": {"width": result.width, "height": result.height},
        "num_detections": len(result.detections),
        "detections": [
            {"x1": detection.x1, "y1": detection.y1, "x2": detection.x2, "y2": detection.y2,
             "confidence": detection.confidence, "class": detection.class_id, "class_name": detection.class_name}
            for detection in result.detections
        ],
        "timing_ms": times | {"total": round(total_ms, 3)},
    }  # fmt: skip
