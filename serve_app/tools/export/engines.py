"""Builds the engine files of one model size: from its weights through ONNX graphs to what its engine runs."""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.detection.weights import Weights, find_weights
from serve_app.errors import ConfigurationError
from serve_app.settings import DetectionSettings
from serve_app.tools.export.calibration import calibration_key, calibration_squares
from serve_app.tools.export.configs import END2END, RAW, TIER
from serve_app.tools.export.layout import ModelFolder
from serve_app.types import ModelCard, Thresholds

if TYPE_CHECKING:
    import onnx

# Increase it when the graphs built from the same weights change.
GRAPHS_VERSION = 2
ENGINE_FILES = {"openvino": ("model.xml", "model.bin"), "python-torch": ("model.pt",)}
GRAPH_FILES = ("model.onnx",)  # of every other engine; TensorRT's plans are built from it on the GPU that runs them
THRESHOLDS_BY_REQUEST = ("openvino", "python-onnxruntime", "python-torch")  # the others have them built in


class EngineBuilder:
    """Builds engines of one size; weights are looked up, and graphs exported, once."""

    def __init__(self, settings: DetectionSettings, size: str) -> None:
        self.settings = settings
        self.size = size
        self.source = settings.models[size]  # type: ignore[index]
        self.files = ENGINE_FILES.get(settings.engine, GRAPH_FILES)
        by_request = settings.engine in THRESHOLDS_BY_REQUEST
        self.fixed = None if by_request else Thresholds(settings.confidence, settings.iou)
        self._finished: dict[str, Path] = {}

    @cached_property
    def weights(self) -> Weights:
        return find_weights(self.source.weights, self.settings.family, self.size, self.settings.weights_folder)

    @cached_property
    def key(self) -> str:
        """A hash of everything that the engines are built from."""
        digest = hashlib.sha256(self.weights.path.read_bytes())
        digest.update(f"{GRAPHS_VERSION} {self.settings.image_size} {self.source.precision} {self.source.nms}".encode())
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
        except (ValueError, AttributeError):  # an incomplete file
            return False

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
        from serve_app.tools.export.onnx_precision import reduced

        _ = self.labels  # reports unreadable weights in one line, where the export would raise a long error
        with tempfile.TemporaryDirectory() as scratch:
            path = export_raw_head(self.weights.path, self.settings.image_size, Path(scratch), self.source.nms)
            raw = onnx.load(path)
        if self.settings.engine != "openvino":  # OpenVINO's engines are reduced when they are written
            squares = calibration_squares(self.settings.calibration, self.settings.image_size)
            raw = reduced(raw, self.source.precision, squares)
        end2end = add_nms(raw, self.fixed)
        if self.settings.engine != "openvino":
            free_output(raw)
        return {RAW: raw, END2END: end2end, TIER: accept_uint8(end2end)}

    def build(self, target: Path, folder: ModelFolder) -> None:
        """Build in a scratch folder and write the card last, so that an interrupted build is repeated."""
        assert folder.graph is not None
        with tempfile.TemporaryDirectory(dir=target, prefix=".build-") as scratch:
            same_graph = self._finished.setdefault(folder.graph, target / "1")
            if same_graph == target / "1":
                self._write(Path(scratch), folder.graph)
            else:  # copied, because quantizing takes 15 seconds
                for name in self.files:
                    shutil.copyfile(same_graph / name, Path(scratch) / name)
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

            int8 = self.source.precision == "int8"
            squares = calibration_squares(self.settings.calibration, self.settings.image_size) if int8 else ()
            write_engine(self.graphs[graph], target / "model.xml", squares)
        else:
            import onnx

            onnx.save(self.graphs[graph], target / "model.onnx")

    def card(self, folder: ModelFolder) -> ModelCard:
        from serve_app.detection.onnx_nms import fixed_thresholds

        has_nms = folder.graph != RAW and self.source.nms
        return ModelCard(
            name=folder.name,
            backend=self.settings.engine,
            device=self.settings.runs_on,
            precision=self.source.precision,
            image_size=self.settings.image_size,
            weights=self.weights.name,
            labels=self.labels,
            **(fixed_thresholds(self.fixed) if self.fixed and has_nms else {}),
        )
