"""Builds what a model repository lacks, step by step, and leaves alone what is up to date."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.detection.weights import Weights, find_weights
from serve_app.errors import ConfigurationError
from serve_app.export.layout import ModelFolder, repository_layout
from serve_app.settings import DetectionSettings
from serve_app.types import ModelCard

if TYPE_CHECKING:
    import onnx

# Raise it when the graphs that are made from the same weights change.
RECIPE = 1
ENGINE_FILES = ("model.xml", "model.bin")
Report = Callable[[str], None]


def build_repository(settings: DetectionSettings, report: Report, force: bool = False) -> int:
    """Bring the repository up to date; returns how many folders were built."""
    folders = list(repository_layout(list(settings.models), settings.image_size))
    recipes: dict[str, SizeRecipe] = {size: SizeRecipe(settings, size) for size in settings.models}
    written = sum(_write_plain_files(settings.model_repository / folder.name, folder) for folder in folders)
    stale = [
        folder
        for folder in folders
        if folder.graph and (force or not recipes[folder.size].is_current(settings.model_repository / folder.name))
    ]
    started = time.monotonic()
    with _build_lock(settings.model_repository):
        for number, folder in enumerate(stale, 1):
            report(f"[{number}/{len(stale)}] {folder.name}: {recipes[folder.size].describe(folder)}")
            recipes[folder.size].build(settings.model_repository / folder.name, folder)
    if stale:
        report(f"built {len(stale)} models in {time.monotonic() - started:.1f} s")
    return len(stale) + written


def _write_plain_files(target: Path, folder: ModelFolder) -> bool:
    """config.pbtxt and model.py, where there are none: an edited one is the user's."""
    version = target / "1"
    version.mkdir(parents=True, exist_ok=True)
    files = {target / "config.pbtxt": folder.config, version / "model.py": folder.model_py}
    missing = {path: text for path, text in files.items() if text is not None and not path.exists()}
    config = target / "config.pbtxt"
    if config not in missing and (side := _side_of(config.read_text())) not in (None, _side_of(folder.config)):
        raise ConfigurationError(
            f"{config} is for pictures of {side} pixels, detection.image_size is {_side_of(folder.config)}: "
            "delete the file to have it written anew"
        )
    for path, text in missing.items():
        path.write_text(text)
    return bool(missing)


def _side_of(config: str) -> int | None:
    """The side of the square in a config's `images`, whichever order its dimensions have."""
    found = re.search(r'name: "images"[^}]*?dims: \[ (?:3, )?(\d+), \d+', config)
    return int(found[1]) if found else None


@contextmanager
def _build_lock(repository: Path) -> Iterator[None]:
    """Two builds of one repository would leave half of each."""
    import fcntl

    with (repository / ".build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another build is running in {repository}") from None
        yield


class SizeRecipe:
    """Everything about one size that is looked up or made once: weights, their hash, the ONNX graphs."""

    def __init__(self, settings: DetectionSettings, size: str) -> None:
        self.settings = settings
        self.size = size
        self.source = settings.models[size]  # type: ignore[index]
        self._finished: dict[str, Path] = {}

    @cached_property
    def weights(self) -> Weights:
        return find_weights(self.source.weights, self.settings.family, self.size, self.settings.weights_folder)

    @cached_property
    def key(self) -> str:
        """Changes whenever the engines have to be built again."""
        digest = hashlib.sha256(self.weights.path.read_bytes())
        digest.update(f"{RECIPE} {self.settings.image_size} {self.source.precision} {self.source.nms}".encode())
        if self.source.precision == "int8":
            digest.update(str(self.settings.calibration).encode())
        return digest.hexdigest()[:16]

    def is_current(self, target: Path) -> bool:
        card = target / "1" / "model.json"
        if not card.is_file() or not all((target / "1" / name).is_file() for name in ENGINE_FILES):
            return False
        try:
            return bool(json.loads(card.read_text()).get("key") == self.key)
        except (ValueError, AttributeError):
            return False  # cut off while it was written

    def describe(self, folder: ModelFolder) -> str:
        return f"{folder.graph} head, OpenVINO {self.source.precision}, from {self.weights.name}"

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

        from serve_app.export.configs import END2END, RAW, TIER
        from serve_app.export.onnx_graph import accept_uint8, add_nms, export_raw_head

        _ = self.labels  # unreadable weights are told here: the export's own errors are long
        with tempfile.TemporaryDirectory() as scratch:
            path = export_raw_head(self.weights.path, self.settings.image_size, Path(scratch), self.source.nms)
            raw = onnx.load(path)
        end2end = add_nms(raw)
        return {RAW: raw, END2END: end2end, TIER: accept_uint8(end2end)}

    def build(self, target: Path, folder: ModelFolder) -> None:
        """Into a scratch folder first, the card last: a build that is cut off is built again."""
        from serve_app.export.openvino_graph import write_engine

        assert folder.graph is not None
        with tempfile.TemporaryDirectory(dir=target, prefix=".build-") as scratch:
            twin = self._finished.setdefault(folder.graph, target / "1")
            if twin == target / "1":
                graph = self.graphs[folder.graph]
                write_engine(graph, Path(scratch) / "model.xml", self.source.precision, self.settings.calibration)
            else:  # quantizing takes a quarter of a minute: models of one graph share the work, not the file
                for name in ENGINE_FILES:
                    shutil.copyfile(twin / name, Path(scratch) / name)
            (target / "1" / "model.json").unlink(missing_ok=True)
            for name in ENGINE_FILES:
                os.replace(Path(scratch) / name, target / "1" / name)
        shutil.rmtree(target / "1" / "__pycache__", ignore_errors=True)
        (target / "labels.txt").write_text("\n".join(self.labels) + "\n")
        (target / "1" / "model.json").write_text(json.dumps(self.card(folder) | {"key": self.key}, indent=2) + "\n")

    def card(self, folder: ModelFolder) -> dict[str, object]:
        return asdict(
            ModelCard(
                name=folder.name,
                backend="openvino",
                device="cpu",
                precision=self.source.precision,
                image_size=self.settings.image_size,
                weights=self.weights.name,
                labels=self.labels,
            )
        )
