"""Detection over this service's REST endpoints."""

from typing import Any

import httpx

from serve_app.clients.detection.detector import DEFAULTS, Detector
from serve_app.clients.errors import error_of, unreachable
from serve_app.keys.headers import key_headers
from serve_app.types import Detection, PictureResult, StageTimes, Thresholds

FIELDS = ("x1", "y1", "x2", "y2", "confidence", "class", "class_name")


class RestDetector(Detector):
    """`track` is the last part of /predict/{track}, such as `nano`, or a whole path, such as /pytorch/predict/nano."""

    def __init__(
        self, url: str = "http://localhost:8000", track: str = "nano", timeout_s: float = 60.0, key: str = ""
    ) -> None:
        self.model = ""  # known after the first answer
        self._path = track if track.startswith("/") else f"/predict/{track}"
        self._client = httpx.Client(base_url=url, timeout=timeout_s, headers=key_headers(key))

    def detect(self, picture: bytes, thresholds: Thresholds = DEFAULTS) -> PictureResult:
        answer = self._request("POST", self._path, content=picture, params=_query(thresholds))
        self.model = answer["model"]["name"]
        size = answer["image"]
        found = tuple(Detection(*(one[name] for name in FIELDS)) for one in answer["detections"])
        times = {stage: ms for stage, ms in answer["timing_ms"].items() if stage != "total"}
        return PictureResult(size["width"], size["height"], found, StageTimes(**times))

    def statistics(self) -> dict[str, Any]:
        return self._request("GET", f"/v2/models/{self.model}/stats")

    def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as problem:
            raise unreachable(str(self._client.base_url), problem) from None
        try:
            document: dict[str, Any] = answer.json()
        except ValueError:
            raise error_of(answer.status_code, f"not an answer of this service: {answer.text[:80]!r}") from None
        if not answer.is_success:
            raise error_of(answer.status_code, str(document.get("error", document)))
        return document

    def close(self) -> None:
        self._client.close()


def _query(thresholds: Thresholds) -> dict[str, str]:
    query = {
        "conf": f"{thresholds.confidence:g}",
        "iou": f"{thresholds.iou:g}",
        "max_det": f"{thresholds.max_detections}",
    }
    if thresholds.classes is not None:
        query["classes"] = ",".join(map(str, thresholds.classes))
    return query
