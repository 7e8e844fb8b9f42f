"""The command line of `scripts/build_models`."""

import argparse
import logging
import os
import sys
from pathlib import Path

from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.settings import SIZES, DetectionSettings, ModelSource, parse_settings, read_config, settings_of
from serve_app.tools.export.repository import build_plans, build_repository


def main(description: str, arguments: list[str] | None = None) -> None:
    options = _parse(description, arguments)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    os.environ.setdefault("YOLO_VERBOSE", "false")  # ultralytics' banner
    try:
        detection = _detection_settings(options)
        if detection is None:
            print(f"{options.config} configures no detection: no models to build")
        elif options.plans_only:
            _build_only_plans(detection)
        else:
            _build(detection, options.force)
    except (ServeAppError, OSError) as problem:
        sys.exit(f"error: {problem}")


def _parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, default=Path("configs/serve.yaml"), help="default: %(default)s")
    parser.add_argument("--repository", type=Path, help="folder to build in; default: as the configuration says")
    parser.add_argument("--size", choices=SIZES, help="build only this size, even if the configuration lacks it")
    parser.add_argument("--weights", help="with --size: auto, demo or a .pt file")
    parser.add_argument("--precision", choices=["f32", "bf16", "f16", "int8", "fp8"], help="with --size")
    parser.add_argument("--force", action="store_true", help="rebuild models that are up to date")
    parser.add_argument(
        "--plans-only",
        action="store_true",
        help="build only the TensorRT plans of an existing repository, which may be read-only",
    )
    return parser.parse_args(arguments)


def _detection_settings(options: argparse.Namespace) -> DetectionSettings | None:
    """The configuration's `detection` changed by the flags; None where nothing serves it."""
    settings = settings_of(read_config(options.config))
    if not (settings.serves_detection or options.size):
        return None
    detection = settings.detection
    changes: dict[str, object] = {}
    if options.repository:
        changes["model_repository"] = options.repository.resolve()
    if options.size:
        source = detection.models.get(options.size, ModelSource())
        fields = {key: getattr(options, key) for key in ("weights", "precision") if getattr(options, key)}
        changes["models"] = {options.size: source.model_copy(update=fields)}
    changed = detection.model_copy(update=changes)  # does not validate
    return parse_settings({"detection": changed.model_dump()}).detection


def _build(detection: DetectionSettings, force: bool) -> None:
    built = build_repository(detection, _report, force=force)
    if detection.engine == "tensorrt":
        build_plans(detection, _report)
    if not built:
        print("models are up to date")


def _build_only_plans(detection: DetectionSettings) -> None:
    if detection.engine != "tensorrt":
        raise ConfigurationError(f"--plans-only needs detection.engine tensorrt, got {detection.engine}")
    if not build_plans(detection, _report):
        raise ConfigurationError("--plans-only: no plans were built")


def _report(line: str) -> None:
    print(line, flush=True)
