"""How the engines of one size are made: its weights, their graphs, and the files that its kind of engine runs from."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.detection.weights import Weights, find_weights
from serve_app.errors import ConfigurationError
from serve_app.settings import DetectionSettings
from serve_app.tools.export.calibration import calibration_key, calibration_squares
from serve_app.tools.export.layout import ModelFolder
from serve_app.types import ModelCard, Pixels, Thresholds

if TYPE_CHECKING:
    import onnx

# Raise it when the graphs that are made from the same weights change.
RECIPE = 2
ENGINE_FILES = {"openvino": ("model.xml", "model.bin"), "python-torch": ("model.pt",)}
GRAPH_FILES = ("model.onnx",)  # of every other engine; TensorRT's plans are made from it where they run
ASKED_OF_THE_REQUEST = ("openvino", "python-onnxruntime", "python-torch")  # engines whose thresholds aren't fixed


class SizeRecipe:
    """Everything about one size that is looked up or made once: weights, their hash, the ONNX graphs."""

    def __init__(self, settings: DetectionSettings, size: str) -> None:
        self.settings = settings
        self.size = size
        self.source = settings.models[size]  # type: ignore[index]
        self.files = ENGINE_FILES.get(settings.engine, GRAPH_FILES)
        self.fixed = None if settings.engine in ASKED_OF_THE_REQUEST else Thresholds(settings.confidence, settings.iou)
        self._finished: dict[str, Path] = {}

    @cached_property
    def weights(self) -> Weights:
        return find_weights(self.source.weights, self.settings.family, self.size, self.settings.weights_folder)

    @cached_property
    def key(self) -> str:
        """Changes whenever the engines have to be built again."""
        digest = hashlib.sha256(self.weights.path.read_bytes())
        digest.update(f"{RECIPE} {self.settings.image_size} {self.source.precision} {self.source.nms}".encode())
        digest.update(f"{self.settings.engine} {self.settings.runs_on} {self.fixed}".encode())
        if self.source.precision in ("int8", "fp8"):
            digest.update(calibration_key(self.settings.calibration).encode())
        return digest.hexdigest()[:16]

    def is_current(self, target: Path) -> bool:
        card = target / "1" / "model.json"
        if not card.is_file() or not all((target / "1" / name).is_file() for name in self.files):
            return False
        try:
            return bool(json.loads(card.read_text()).get("key") == self.key)
        except (ValueError, AttributeError):
            return False  # cut off while it was written

    def describe(self, folder: ModelFolder) -> str:
        engine = {"openvino": "OpenVINO"}.get(self.settings.engine, self.settings.engine)
        return f"{folder.graph} head, {engine} {self.source.precision}, from {self.weights.name}"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        from ultralytics import YOLO

        try:
            names = YOLO(self.weights.path, task="detect").names
        except Exception as problem:  # ultralytics unpickles: a broken file can raise anything
            raise ConfigurationError(f"weights {self.weights.path} can't be read: {problem}") from None
        return tuple(names[index] for index in sorted(names))

    @cached_property
    def graphs(self) -> dict[str, "onnx.ModelProto"]:
        import onnx

        from serve_app.detection.onnx_graph import accept_uint8, export_raw_head, free_output
        from serve_app.detection.onnx_nms import add_nms
        from serve_app.tools.export.configs import END2END, RAW, TIER
        from serve_app.tools.export.onnx_precision import reduced

        _ = self.labels  # unreadable weights are told here: the export's own errors are long
        with tempfile.TemporaryDirectory() as scratch:
            path = export_raw_head(self.weights.path, self.settings.image_size, Path(scratch), self.source.nms)
            raw = onnx.load(path)
        if self.settings.engine != "openvino":  # which reduces by its own means
            raw = reduced(raw, self.source.precision, self._calibration())
        end2end = add_nms(raw, self.fixed)
        if self.settings.engine != "openvino":
            free_output(raw)
        return {RAW: raw, END2END: end2end, TIER: accept_uint8(end2end)}

    def _calibration(self) -> Iterator[Pixels]:
        return calibration_squares(self.settings.calibration, self.settings.image_size)

    def build(self, target: Path, folder: ModelFolder) -> None:
        """Into a scratch folder first, the card last: a build that is cut off is built again."""
        assert folder.graph is not None
        with tempfile.TemporaryDirectory(dir=target, prefix=".build-") as scratch:
            twin = self._finished.setdefault(folder.graph, target / "1")
            if twin == target / "1":
                self._write(Path(scratch), folder.graph)
            else:  # quantizing takes a quarter of a minute: models of one graph share the work, not the file
                for name in self.files:
                    shutil.copyfile(twin / name, Path(scratch) / name)
            (target / "1" / "model.json").unlink(missing_ok=True)
            for name in self.files:
                os.replace(Path(scratch) / name, target / "1" / name)
        shutil.rmtree(target / "1" / "__pycache__", ignore_errors=True)
        (target / "labels.txt").write_text("\n".join(self.labels) + "\n")
        card = asdict(self.card(folder)) | {"key": self.key, "nms": self.source.nms}
        (target / "1" / "model.json").write_text(json.dumps(card, indent=2) + "\n")

    def _write(self, target: Path, graph: str) -> None:
        if self.settings.engine == "python-torch":
            shutil.copyfile(self.weights.path, target / "model.pt")
        elif self.settings.engine == "openvino":
            from serve_app.tools.export.openvino_graph import write_engine

            squares = self._calibration() if self.source.precision == "int8" else ()
            write_engine(self.graphs[graph], target / "model.xml", squares)
        else:
            import onnx

            onnx.save(self.graphs[graph], target / "model.onnx")

    def card(self, folder: ModelFolder) -> ModelCard:
        from serve_app.detection.onnx_nms import fixed_thresholds
        from serve_app.tools.export.configs import RAW

        suppresses = folder.graph != RAW and self.source.nms
        return ModelCard(
            name=folder.name,
            backend=self.settings.engine,
            device=self.settings.runs_on,
            precision=self.source.precision,
            image_size=self.settings.image_size,
            weights=self.weights.name,
            labels=self.labels,
            **(fixed_thresholds(self.fixed) if self.fixed and suppresses else {}),
        )
