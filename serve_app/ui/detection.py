"""The Detect tab: one picture through two tracks, with boxes, class names and times by stage."""

import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from gradio.processing_utils import hash_bytes

from serve_app.clients import RestDetector
from serve_app.detection.drawing import draw
from serve_app.errors import InvalidRequestError, NotFoundError, ServeAppError
from serve_app.settings import PROJECT_ROOT
from serve_app.types import MAX_PIXELS, PictureResult, Thresholds
from serve_app.ui.html import badge, failure, figures, note, table
from serve_app.ui.service import Service

SAMPLES = (PROJECT_ROOT / "docs" / "shapes.jpg", *sorted((Path(__file__).parent / "samples").glob("*.jpg")))
TRACK = re.compile(r"/(pytorch/)?predict/\w+", re.ASCII)
DEFAULTS = Thresholds()
NO_TRACK = "No second track"
START = "Choose a picture and press Detect."


def file_path(_image: gr.Image, uploaded: ImageData | None) -> str | None:
    """The file as it was uploaded: the service decides whether it is a picture, not Gradio."""
    return uploaded.path if uploaded else None


# On the class: Gradio rebuilds the component when a sample is chosen, and writes a stub file for each subclass.
gr.Image.preprocess = file_path


@dataclass(frozen=True, slots=True)
class TrackResult:
    """One track's detections, the file of the picture with them drawn on it, and the time of the request."""

    picture: PictureResult
    drawn: str
    round_trip_ms: float


class DetectionTab:
    """Components and events."""

    def __init__(self, service: Service) -> None:
        self._service = service
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self._picture = gr.Image(
                    value=str(SAMPLES[0]), label="Picture", sources=["upload", "clipboard"], height=300,
                    buttons=["fullscreen"], elem_id="picture",
                )  # fmt: skip
                gr.Examples([[str(path)] for path in SAMPLES], self._picture, label="Samples", elem_id="samples")
                with gr.Group():
                    self._conf = gr.Slider(0, 1, DEFAULTS.confidence, step=0.01, label="Confidence (conf)")
                    self._iou = gr.Slider(0, 1, DEFAULTS.iou, step=0.01, label="Overlap (iou)")
                    self._max_detections = gr.Slider(
                        1, 300, DEFAULTS.max_detections, step=1, label="Maximum detections (max_det)"
                    )
                run = gr.Button("Detect", variant="primary", elem_id="detect")
            self._sides = [self._side(number) for number in (1, 2)]
        tracks = [track for track, _, _ in self._sides]
        outputs = [output for _, drawn, result in self._sides for output in (drawn, result)]
        inputs = [self._picture, self._conf, self._iou, self._max_detections, *tracks]
        run.click(self.detect, inputs, outputs, show_progress="minimal", api_visibility="private")
        self.updated = tracks

    def _side(self, number: int) -> tuple[gr.Dropdown, gr.Image, gr.HTML]:
        with gr.Column(scale=3, min_width=340):
            track = gr.Dropdown([], label=f"Track {number}", elem_id=f"track-{number}", allow_custom_value=True)
            drawn = gr.Image(
                label="Detections", interactive=False, height=340, buttons=["download", "fullscreen"],
                elem_id=f"drawn-{number}",
            )  # fmt: skip
            result = gr.HTML(note(START), elem_id=f"result-{number}")
        return track, drawn, result

    async def update(self, visitor: gr.Request | None = None) -> list[gr.Dropdown]:
        """The tracks that can be chosen."""
        try:
            tracks = await self._service.seen_by(visitor).tracks()
        except ServeAppError:
            return [
                gr.Dropdown(choices=[], value=None, info="The service doesn't answer; reload this page to try again")
            ] * 2
        choices = [(f"{track['track']} · {track['size']} · {track['summary']}", track["path"]) for track in tracks]
        if not choices:
            return [gr.Dropdown(choices=[], value=None, info="This service has no detection tracks")] * 2
        first, second = default_tracks(tracks)
        return [
            gr.Dropdown(choices=choices, value=first, info=""),
            gr.Dropdown(choices=[*choices, (NO_TRACK, "")], value=second, info=""),
        ]

    def detect(
        self,
        picture: str | None,
        conf: float,
        iou: float,
        max_detections: float,
        first: str | None,
        second: str | None = None,
        visitor: gr.Request | None = None,
    ) -> Iterator[list[Any]]:
        """One track after the other, so that neither slows the other down."""
        tracks = (first, second)
        service = self._service.seen_by(visitor)
        results: list[TrackResult | ServeAppError | None] = [None] * len(tracks)
        content = Path(picture).read_bytes() if picture else b""
        for number, track in enumerate(tracks):
            if track:
                thresholds = Thresholds(conf, iou, int(max_detections))
                results[number] = run_track(service, track, content, thresholds, self._picture.GRADIO_CACHE)
                yield self._outputs(results, tracks)
        if not any(tracks):
            yield self._outputs(results, tracks)

    def _outputs(self, results: list[TrackResult | ServeAppError | None], tracks: tuple[str | None, ...]) -> list[Any]:
        longest_ms = max((one.round_trip_ms for one in results if isinstance(one, TrackResult)), default=1.0)
        outputs: list[Any] = []
        for result, track in zip(results, tracks, strict=True):
            if isinstance(result, TrackResult):
                outputs += [result.drawn, result_html(result, longest_ms)]
            elif result is not None:
                outputs += [None, failure(result)]
            else:
                outputs += [None, note("Waiting for the other track…" if track else START)]
        return outputs


def default_tracks(tracks: list[dict[str, Any]]) -> tuple[str, str]:
    """The two that are chosen first: B and D1 if served, as their designs differ most."""
    paths = {track["track"]: track["path"] for track in reversed(tracks)}
    first = paths.get("B") or tracks[0]["path"]
    others = [paths[name] for name in ("D1", "C", "A") if name in paths and paths[name] != first]
    return first, next(iter(others), "")


def run_track(
    service: Service, track: str, picture: bytes, thresholds: Thresholds, folder: str
) -> TrackResult | ServeAppError:
    """`folder` is Gradio's, for the picture with the detections drawn on it."""
    if not TRACK.fullmatch(track):  # else a visitor could send requests to any path of the service
        return NotFoundError(f"no track at {track!r}")
    if not picture:
        return InvalidRequestError("Upload a picture or choose a sample.")
    with RestDetector(service.url, track, key=service.key) as detector:
        started_s = time.perf_counter()
        try:
            result = detector.detect(picture, thresholds)
        except ServeAppError as error:
            return error
        round_trip_ms = (time.perf_counter() - started_s) * 1e3
    drawn = draw(picture, result.detections, MAX_PIXELS)
    return TrackResult(result, keep_file(drawn, "detections.jpg", Path(folder)), round_trip_ms)


def keep_file(content: bytes, name: str, folder: Path) -> str:
    """The path at which Gradio serves it. Two tracks or visitors may have the same picture: a browser that loads it
    must not see it written again, as Gradio's own function would.
    """
    path = folder / hash_bytes(content) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{uuid.uuid4().hex}")
    written.write_bytes(content)
    os.replace(written, path)
    return str(path.resolve())


def result_html(result: TrackResult, longest_ms: float) -> str:
    """Counts by class, times by stage on the scale of the slower track, and each detection."""
    found = result.picture.detections
    names = Counter(one.class_name for one in found)
    chips = "".join(badge(f"{name} × {count}", True) for name, count in sorted(names.items()))
    rows = [
        (escape(one.class_name), f"{one.confidence:.2f}", f"{one.x1:.2f}, {one.y1:.2f} – {one.x2:.2f}, {one.y2:.2f}")
        for one in found
    ]
    size = f"{result.picture.width} × {result.picture.height}"
    html = figures((("objects", str(len(found))), ("ms round trip", f"{result.round_trip_ms:.1f}"), ("pixels", size)))
    html += times_html(result, longest_ms)
    if not found:
        return html + note("Nothing was found at these thresholds.")
    return f'{html}<div class="chips">{chips}</div>' + table(("class", "confidence", "box"), rows)


def times_html(result: TrackResult, longest_ms: float) -> str:
    stages = result.picture.times.by_stage()
    stages["transport"] = max(0.0, result.round_trip_ms - sum(stages.values()))
    width = 100 * result.round_trip_ms / longest_ms
    parts = "".join(
        f'<i class="stage-{number}" style="flex-grow: {ms:.3f}"></i>' for number, ms in enumerate(stages.values())
    )
    legend = "".join(
        f'<li><i class="stage-{number}"></i>{stage} <b>{ms:.1f}</b> ms</li>'
        for number, (stage, ms) in enumerate(stages.items())
    )
    return f'<div class="bar" style="width: {width:.1f}%">{parts}</div><ul class="legend">{legend}</ul>'
