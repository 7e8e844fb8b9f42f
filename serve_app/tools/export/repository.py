"""Builds what a model repository lacks, step by step, and leaves alone what is up to date."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serve_app.errors import ConfigurationError
from serve_app.settings import DetectionSettings
from serve_app.tools.export.configs import PREPROCESS_MAX_BATCH
from serve_app.tools.export.layout import ModelFolder, kind_of, repository_layout
from serve_app.tools.export.recipe import SizeRecipe
from serve_app.tools.export.tiers import PREPROCESS

Report = Callable[[str], None]
READER_THREADS = 4  # of DALI's, for what a GPU's decoder leaves to the processor


def build_repository(settings: DetectionSettings, report: Report, force: bool = False) -> int:
    """Bring the repository up to date; returns how many folders were built."""
    folders = list(repository_layout(list(settings.models), settings.image_size, kind_of(settings.engine)))
    recipes: dict[str, SizeRecipe] = {size: SizeRecipe(settings, size) for size in settings.models}
    settings.model_repository.mkdir(parents=True, exist_ok=True)
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
        written += _write_reader(settings, report, force)
    if stale:
        report(f"built {len(stale)} models in {time.monotonic() - started:.1f} s")
    return len(stale) + written


def build_plans(settings: DetectionSettings, report: Report) -> bool:
    """TensorRT's plans ahead of the replicas, which build what they miss; False where none can be built."""
    from serve_app.triton.plans import LocalPlans

    plans = LocalPlans(settings.plans, report)
    if reason := plans.missing():
        report(f"no plans built here: {reason}. A replica builds its own at its first start, in minutes")
        return False
    for folder in repository_layout(list(settings.models), settings.image_size, kind_of(settings.engine)):
        target = settings.model_repository / folder.name
        if folder.graph:
            max_batch = _max_batch_of((target / "config.pbtxt").read_text())
            plans.plan_for(folder.name, target / "1" / "model.onnx", max_batch)
    return True


def _max_batch_of(config: str) -> int:
    found = re.search(r"^\s*max_batch_size:\s*(\d+)", config, re.MULTILINE)
    return int(found[1]) if found else 0


def _write_plain_files(target: Path, folder: ModelFolder) -> bool:
    """config.pbtxt, its alternatives and model.py, where there are none: an edited one is the user's."""
    version = target / "1"
    version.mkdir(parents=True, exist_ok=True)
    files = {target / "config.pbtxt": folder.config, version / "model.py": folder.model_py}
    files |= {target / "configs" / f"{name}.pbtxt": text for name, text in folder.alternatives.items()}
    missing = {path: text for path, text in files.items() if text is not None and not path.exists()}
    wanted = _side_of(folder.config)
    for config in files.keys() - missing.keys():
        if config.suffix == ".pbtxt" and (side := _side_of(config.read_text())) not in (None, wanted):
            raise ConfigurationError(
                f"{config} is for pictures of {side} pixels, detection.image_size is {wanted}: "
                "delete the file to have it written anew"
            )
    for path, text in missing.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return bool(missing)


def _write_reader(settings: DetectionSettings, report: Report, force: bool) -> bool:
    """The pipeline for Triton's DALI backend, where that reads the pictures."""
    if settings.runs_on == "cpu" or settings.engine not in ("tensorrt", "onnxruntime"):
        return False
    from serve_app.triton.python_models.dali_pipeline import recipe_of, write_pipeline

    target = settings.model_repository / PREPROCESS / "1" / "model.dali"
    card = target.with_name("model.dali.json")
    key = recipe_of(settings.image_size, PREPROCESS_MAX_BATCH, READER_THREADS)
    if target.is_file() and card.is_file() and card.read_text() == key and not force:
        return False
    card.unlink(missing_ok=True)
    report(f"{PREPROCESS}: DALI's pipeline for the GPU")
    write_pipeline(target, settings.image_size, PREPROCESS_MAX_BATCH, READER_THREADS)
    card.write_text(key)
    return True


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
