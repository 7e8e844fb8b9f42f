"""Builds a model repository: writes missing configs, and builds the engines that are missing or out of date."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serve_app.errors import ConfigurationError
from serve_app.settings import DetectionSettings
from serve_app.tools.export.configs import PREPROCESS, PREPROCESS_MAX_BATCH
from serve_app.tools.export.engines import EngineBuilder
from serve_app.tools.export.layout import ModelFolder, kind_of, repository_layout

Report = Callable[[str], None]
DALI_THREADS = 4  # for the part of decoding that stays on the CPU


def build_repository(settings: DetectionSettings, report: Report, force: bool = False) -> int:
    """Bring the repository up to date and return how many folders changed."""
    folders = list(repository_layout(list(settings.models), settings.image_size, kind_of(settings.engine)))
    builders: dict[str, EngineBuilder] = {size: EngineBuilder(settings, size) for size in settings.models}
    settings.model_repository.mkdir(parents=True, exist_ok=True)
    written = sum(_write_plain_files(settings.model_repository / folder.name, folder) for folder in folders)
    stale = [
        folder
        for folder in folders
        if folder.graph and (force or not builders[folder.size].is_current(settings.model_repository / folder.name))
    ]
    started = time.monotonic()
    with _build_lock(settings.model_repository):
        for number, folder in enumerate(stale, 1):
            report(f"[{number}/{len(stale)}] {folder.name}: {builders[folder.size].describe(folder)}")
            builders[folder.size].build(settings.model_repository / folder.name, folder)
        written += _write_dali_pipeline(settings, report, force)
    if stale:
        report(f"built {len(stale)} models in {time.monotonic() - started:.1f} s")
    return len(stale) + written


def build_plans(settings: DetectionSettings, report: Report) -> bool:
    """Build TensorRT's plans before replicas start; return False where none can be built."""
    from serve_app.triton.plans import LocalPlans

    plans = LocalPlans(settings.plans, report)
    if reason := plans.missing():
        report(f"no TensorRT plans built: {reason}. Replicas build missing plans at their first start, in minutes")
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
    """Write config.pbtxt, its alternatives and model.py where they are missing; files that exist may be edited ones."""
    version = target / "1"
    version.mkdir(parents=True, exist_ok=True)
    files = {target / "config.pbtxt": folder.config, version / "model.py": folder.model_py}
    files |= {target / "configs" / f"{name}.pbtxt": text for name, text in folder.alternatives.items()}
    missing = {path: text for path, text in files.items() if text is not None and not path.exists()}
    wanted = _side_of(folder.config)
    for config in files.keys() - missing.keys():
        if config.suffix == ".pbtxt" and (side := _side_of(config.read_text())) not in (None, wanted):
            raise ConfigurationError(
                f"{config} is for an image_size of {side}, but detection.image_size is {wanted}: "
                "delete the file, and it will be written again"
            )
    for path, text in missing.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return bool(missing)


def _write_dali_pipeline(settings: DetectionSettings, report: Report, force: bool) -> bool:
    """Write the pipeline that Triton's DALI backend loads, for engines that use that backend."""
    if settings.runs_on == "cpu" or settings.engine not in ("tensorrt", "onnxruntime"):
        return False
    from serve_app.triton.python_models.dali_pipeline import pipeline_key, write_pipeline

    target = settings.model_repository / PREPROCESS / "1" / "model.dali"
    card = target.with_name("model.dali.json")
    key = pipeline_key(settings.image_size, PREPROCESS_MAX_BATCH, DALI_THREADS)
    if target.is_file() and card.is_file() and card.read_text() == key and not force:
        return False
    card.unlink(missing_ok=True)
    report(f"{PREPROCESS}: DALI pipeline for the GPU")
    write_pipeline(target, settings.image_size, PREPROCESS_MAX_BATCH, DALI_THREADS)
    card.write_text(key)
    return True


def _side_of(config: str) -> int | None:
    """The side of the square that a config's `images` has, channels first or last."""
    found = re.search(r'name: "images"[^}]*?dims: \[ (?:3, )?(\d+), \d+', config)
    return int(found[1]) if found else None


@contextmanager
def _build_lock(repository: Path) -> Iterator[None]:
    """Two builds of one repository at once would mix their files."""
    import fcntl

    with (repository / ".build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another build is running in {repository}") from None
        yield
