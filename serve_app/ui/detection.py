"""The tab for pictures: one picture through two tracks, with boxes, class names and where the time went."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from gradio.processing_utils import save_bytes_to_cache

from serve_app.clients import RestDetector
from serve_app.detection.drawing import draw
from serve_app.errors import InvalidRequestError, NotFoundError, ServeAppError
from serve_app.settings import MAX_PIXELS, PROJECT_ROOT
from serve_app.types import PictureResult, Thresholds
from serve_app.ui.markup import badge, failure, figures, note, table
from serve_app.ui.service import Service

SAMPLES = (PROJECT_ROOT / "docs" / "shapes.jpg", *sorted((Path(__file__).parent / "samples").glob("*.jpg")))
TRACK = re.compile(r"/(pytorch/)?predict/\w+", re.ASCII)
DEFAULTS = Thresholds()
NOTHING = "Nothing to compare with"
WAITING = "Choose a picture, then Detect."


def as_dropped(_image: gr.Image, dropped: ImageData | None) -> str | None:
    """The file, whatever it is: whether it is a picture is the service's to say, not Gradio's."""
    return dropped.path if dropped else None


# In place: Gradio makes an image anew from its arguments when a sample is chosen, so one that is changed would be lost,
# and for a class of ours it would write a stub beside this file.
gr.Image.preprocess = as_dropped


@dataclass(frozen=True, slots=True)
class Seen:
    """What one track made of the picture."""

    result: PictureResult
    took_ms: float


class DetectionTab:
    """Its components, and what happens between them."""

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
                    self._most = gr.Slider(1, 300, DEFAULTS.max_detections, step=1, label="Most detections (max_det)")
                run = gr.Button("Detect", variant="primary", elem_id="detect")
            self._sides = [self._side(number) for number in (1, 2)]
        chosen = [track for track, _, _ in self._sides]
        shown = [one for _, drawn, told in self._sides for one in (drawn, told)]
        inputs = [self._picture, self._conf, self._iou, self._most, *chosen]
        run.click(self.detect, inputs, shown, show_progress="minimal", api_visibility="private")
        self.updated = chosen

    def _side(self, number: int) -> tuple[gr.Dropdown, gr.Image, gr.HTML]:
        with gr.Column(scale=3, min_width=340):
            track = gr.Dropdown([], label=f"Track {number}", elem_id=f"track-{number}", allow_custom_value=True)
            drawn = gr.Image(
                label="Detections", interactive=False, height=340, buttons=["download", "fullscreen"],
                elem_id=f"drawn-{number}",
            )  # fmt: skip
            told = gr.HTML(note(WAITING), elem_id=f"told-{number}")
        return track, drawn, told

    async def update(self) -> list[gr.Dropdown]:
        """What is served now; B beside D1 where there are both, as their designs differ most."""
        try:
            tracks = await self._service.tracks()
        except ServeAppError:
            return [gr.Dropdown(choices=[], value=None, info="The service doesn't answer: reload this page")] * 2
        choices = [(f"{track['track']} · {track['size']} · {track['summary']}", track["path"]) for track in tracks]
        if not choices:
            return [gr.Dropdown(choices=[], value=None, info="This service has no detection tracks")] * 2
        first, second = preferred(tracks)
        return [
            gr.Dropdown(choices=choices, value=first, info=""),
            gr.Dropdown(choices=[*choices, (NOTHING, "")], value=second, info=""),
        ]

    def detect(
        self, picture: str | None, conf: float, iou: float, most: float, *tracks: str | None
    ) -> Iterator[list[Any]]:
        """One track after the other, so that neither's time is spent on the other's work."""
        seen: list[Seen | ServeAppError | None] = [None] * len(tracks)
        content = Path(picture).read_bytes() if picture else b""
        for number, track in enumerate(tracks):
            if track:
                seen[number] = look(self._service.url, track, content, Thresholds(conf, iou, int(most)))
                yield self._show(content, seen, tracks)
        if not any(tracks):
            yield self._show(content, seen, tracks)

    def _show(
        self, content: bytes, seen: list[Seen | ServeAppError | None], tracks: tuple[str | None, ...]
    ) -> list[Any]:
        longest = max((one.took_ms for one in seen if isinstance(one, Seen)), default=1.0)
        shown: list[Any] = []
        for one, track in zip(seen, tracks, strict=True):
            if isinstance(one, Seen):
                drawn = draw(content, one.result.detections, MAX_PIXELS)
                shown += [save_bytes_to_cache(drawn, "detections.jpg", self._picture.GRADIO_CACHE), tell(one, longest)]
            elif one is not None:
                shown += [None, failure(one)]
            else:
                shown += [None, note("Waiting for the other track…" if track else WAITING)]
        return shown


def preferred(tracks: list[dict[str, Any]]) -> tuple[str, str]:
    """The two that a page begins with."""
    paths = {track["track"]: track["path"] for track in reversed(tracks)}
    first = paths.get("B") or tracks[0]["path"]
    others = [paths[name] for name in ("D1", "C", "A") if name in paths and paths[name] != first]
    return first, next(iter(others), "")


def look(url: str, track: str, picture: bytes, thresholds: Thresholds) -> Seen | ServeAppError:
    if not TRACK.fullmatch(track):  # else a visitor could send to any path from in here
        return NotFoundError(f"there is no track {track!r}")
    if not picture:
        return InvalidRequestError("Drop a picture on the left, or choose a sample.")
    with RestDetector(url, track) as detector:
        began = time.perf_counter()
        try:
            result = detector.detect(picture, thresholds)
        except ServeAppError as problem:
            return problem
        return Seen(result, (time.perf_counter() - began) * 1e3)


def tell(seen: Seen, longest_ms: float) -> str:
    """Names, times as a bar on the scale of the slower of the two, and each detection."""
    found = seen.result.detections
    names = Counter(one.class_name for one in found)
    chips = "".join(badge(f"{name} × {count}", True) for name, count in sorted(names.items()))
    rows = [
        (escape(one.class_name), f"{one.confidence:.2f}", f"{one.x1:.2f}, {one.y1:.2f} – {one.x2:.2f}, {one.y2:.2f}")
        for one in found
    ]
    size = f"{seen.result.width} × {seen.result.height}"
    told = figures((("objects", str(len(found))), ("ms round trip", f"{seen.took_ms:.1f}"), ("pixels", size)))
    told += times_of(seen, longest_ms)
    if not found:
        return told + note("Nothing was found at these thresholds.")
    return f'{told}<div class="chips">{chips}</div>' + table(("class", "confidence", "box"), rows)


def times_of(seen: Seen, longest_ms: float) -> str:
    stages = dict(asdict(seen.result.times))
    stages["transport"] = max(0.0, seen.took_ms - sum(stages.values()))
    width = 100 * seen.took_ms / longest_ms
    parts = "".join(
        f'<i class="stage-{number}" style="flex-grow: {ms:.3f}"></i>' for number, ms in enumerate(stages.values())
    )
    legend = "".join(
        f'<li><i class="stage-{number}"></i>{stage} <b>{ms:.1f}</b> ms</li>'
        for number, (stage, ms) in enumerate(stages.items())
    )
    return f'<div class="bar" style="width: {width:.1f}%">{parts}</div><ul class="legend">{legend}</ul>'
