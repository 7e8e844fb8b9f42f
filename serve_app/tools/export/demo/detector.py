"""Trains the demo detector on drawn scenes, evaluates it on held-out ones, and ships it."""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.tools.export.demo.scenes import HELD_OUT_SIZES, MODEL_SIDE, write_dataset
from serve_app.tools.export.demo.shapes import CLASS_NAMES

DETECTOR_FILE = "demo-yolo11n.pt"
ARCHITECTURE = "yolo11n.yaml"
GOAL_MAP50 = 0.9
HELD_OUT_SCENES = 250
HELD_OUT_SEED = 9001
_VALIDATION_SCENES = 16  # the trainer needs a validation set; it never sees the held-out scenes
_VALIDATION_SEED = 7001


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the trainer: the scenes to draw, and the training arguments."""

    name: str
    seed: int
    scenes: int
    sizes: tuple[tuple[int, int], ...]
    unit: float | None
    max_shapes: int
    imgsz: int
    epochs: int
    batch: int
    lr0: float
    warmup_epochs: float


STAGES = (
    # Most of the training uses crops of large scenes: a quarter of the computation, the same sizes in pixels.
    Stage("cut-outs", 1001, 5000, ((320, 320),), 1.0, 5, 320, 10, 16, 2e-3, 0.5),
    # Then whole pictures as in use: letterbox borders, many shapes, blurred enlargements.
    Stage("pictures", 2001, 1000, HELD_OUT_SIZES, None, 12, MODEL_SIDE, 3, 8, 3e-4, 0.1),
)


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean average precision on drawn scenes, by ultralytics' own validator."""

    map50: float
    map50_95: float

    def __str__(self) -> str:
        return f"mAP50 {self.map50:.4f}, mAP50-95 {self.map50_95:.4f}"


def _keep_freed_memory() -> None:
    """Let glibc reuse large blocks; returning them to the system at each step doubles the time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 1 << 28)


def _load(model: str | Path, threads: int) -> Any:
    """An ultralytics model that runs on this many threads, with telemetry off."""
    import torch
    from ultralytics import YOLO
    from ultralytics.utils.events import events

    events.enabled = False
    yolo = YOLO(model, task="detect")

    def configure(run: Any) -> None:
        # Ultralytics leaves one core idle, and its default memory layout is slower on CPUs.
        torch.set_num_threads(threads)
        run.model.to(memory_format=torch.channels_last)

    yolo.add_callback("on_train_start", configure)
    yolo.add_callback("on_val_start", lambda _: torch.set_num_threads(threads))
    return yolo


def _trainer_arguments(stage: Stage, data: Path, work: Path) -> dict[str, Any]:
    return {
        "data": str(data),
        "imgsz": stage.imgsz,
        "epochs": stage.epochs,
        "batch": stage.batch,
        "nbs": stage.batch,
        "optimizer": "AdamW",
        "lr0": stage.lr0,
        "lrf": 0.02,
        "cos_lr": True,
        "warmup_epochs": stage.warmup_epochs,
        "warmup_bias_lr": 0.0,
        # Scenes vary by themselves, so cheap augmentation suffices.
        "mosaic": 0.0,
        "close_mosaic": 0,
        "flipud": 0.5,
        "scale": 0.2,
        "hsv_h": 0.0,
        "hsv_s": 0.2,
        "hsv_v": 0.2,
        "cache": "ram",
        "workers": 0,
        "device": "cpu",
        "seed": stage.seed,
        "amp": False,  # the AMP check would download a model
        "plots": False,  # plots would download fonts
        "val": False,
        "project": str(work / "runs"),
        "name": stage.name,
        "exist_ok": True,
    }


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _draw_for(stage: Stage, work: Path) -> Path:
    """Draw the stage's scenes and return the path of the trainer's data file."""
    folder = _emptied(work / stage.name)
    parts = (("train", stage.scenes, stage.seed), ("validation", _VALIDATION_SCENES, _VALIDATION_SEED))
    for part, count, seed in parts:
        drawn = write_dataset(
            folder / part, count, seed, sizes=stage.sizes, unit=stage.unit, max_shapes=stage.max_shapes
        )
    data = folder / "data.yaml"
    lines = drawn.read_text().replace("train: images", "train: train/images")
    data.write_text(lines.replace("val: images", "val: validation/images"))
    return data


def _train(stages: Sequence[Stage], work: Path, threads: int) -> Path:
    """Run the stages, each from the weights of the one before, and return the last weights."""
    weights: str | Path = ARCHITECTURE
    for number, stage in enumerate(stages, start=1):
        print(f"[{number}/{len(stages)}] {stage.name}: {stage.scenes} scenes at {stage.imgsz} px", flush=True)
        yolo = _load(weights, threads)
        yolo.train(pretrained=number > 1, **_trainer_arguments(stage, _draw_for(stage, work), work))
        weights = Path(yolo.trainer.last)
    return Path(weights)


def _pack(weights: Path) -> bytes:
    """The checkpoint in half precision with class names, without paths and dates."""
    import torch

    model = torch.load(weights, map_location="cpu", weights_only=False)["model"].half()
    model.args = {"task": "detect", "imgsz": MODEL_SIDE}
    vars(model).pop("pt_path", None)  # the path of the previous stage's weights
    checkpoint = {
        "epoch": -1,
        "model": model,
        "train_args": dict(model.args),
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def measure(
    weights: Path,
    work: Path,
    *,
    scenes: int = HELD_OUT_SCENES,
    sizes: Sequence[tuple[int, int]] = HELD_OUT_SIZES,
    threads: int | None = None,
) -> Quality:
    """Evaluate weights on held-out scenes, letterboxed to 640 x 640."""
    data = write_dataset(_emptied(work / "held-out"), scenes, HELD_OUT_SEED, sizes=sizes)
    found = _load(weights, threads or os.cpu_count() or 1).val(
        data=str(data),
        imgsz=MODEL_SIDE,
        batch=8,
        rect=False,
        workers=0,
        device="cpu",
        plots=False,
        verbose=False,
        project=str(work / "runs"),
        name="measure",
        exist_ok=True,
    )
    return Quality(float(found.box.map50), float(found.box.map))


def ship(packed: Path, destination: Path, quality: Quality, *, force: bool) -> str | None:
    """Replace the shipped weights if the new ones are good enough, or return why they aren't."""
    if quality.map50 < GOAL_MAP50 and not force:
        return (
            f"{destination} is unchanged: mAP50 must be at least {GOAL_MAP50}, got {quality.map50:.4f}. "
            f"The new weights are in {packed}; --force ships them anyway."
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    new = destination.with_suffix(".new")
    new.write_bytes(packed.read_bytes())
    new.replace(destination)
    return None


def train_detector(folder: Path, work: Path, *, force: bool = False, threads: int | None = None) -> int:
    """Train, evaluate and ship the demo detector; return an exit status."""
    start = time.monotonic()
    _keep_freed_memory()
    threads = threads or os.cpu_count() or 1
    packed = work / DETECTOR_FILE
    packed.parent.mkdir(parents=True, exist_ok=True)
    packed.write_bytes(_pack(_train(STAGES, work, threads)))
    quality = measure(packed, work, threads=threads)
    refusal = ship(packed, folder / DETECTOR_FILE, quality, force=force)
    minutes = (time.monotonic() - start) / 60
    print(f"demo detector ({', '.join(CLASS_NAMES)}): {quality} on {HELD_OUT_SCENES} held-out scenes")
    print(refusal or f"shipped as {folder / DETECTOR_FILE} after {minutes:.0f} minutes", flush=True)
    return 1 if refusal else 0
