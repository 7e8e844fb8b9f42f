"""The command line of `scripts/build_models`."""

import argparse
import logging
import os
import sys
from pathlib import Path

from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.settings import SIZES, DetectionSettings, ModelSource, parse_settings, read_config, settings_of
from serve_app.tools.export.repository import build_plans, build_repository


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, default=Path("configs/serve.yaml"), help="default: %(default)s")
    parser.add_argument("--repository", type=Path, help="build there instead of where the configuration says")
    parser.add_argument("--size", choices=SIZES, help="build this size only, served or not")
    parser.add_argument("--weights", help="with --size: auto, demo or a .pt file")
    parser.add_argument("--precision", choices=["f32", "bf16", "f16", "int8", "fp8"], help="with --size")
    parser.add_argument("--force", action="store_true", help="build again what is up to date")
    parser.add_argument(
        "--plans-only",
        action="store_true",
        help="TensorRT's plans of a repository that is there, which isn't written to",
    )
    return parser.parse_args(arguments)


def wanted(options: argparse.Namespace) -> DetectionSettings | None:
    """The configuration's `detection`, narrowed by the flags; None where nothing serves it."""
    settings = settings_of(read_config(options.config))
    if not (settings.more_than_languages or options.size):
        return None
    detection = settings.detection
    changes: dict[str, object] = {}
    if options.repository:
        changes["model_repository"] = options.repository.resolve()
    if options.size:
        source = detection.models.get(options.size, ModelSource())
        fields = {key: getattr(options, key) for key in ("weights", "precision") if getattr(options, key)}
        changes["models"] = {options.size: source.model_copy(update=fields)}
    changed = detection.model_copy(update=changes)  # which checks nothing
    return parse_settings({"detection": changed.model_dump()}).detection


def build_only_plans(detection: DetectionSettings) -> None:
    if detection.engine != "tensorrt":
        raise ConfigurationError(f"--plans-only: plans are TensorRT's, and detection.engine is {detection.engine}")
    if not build_plans(detection, report):
        raise ConfigurationError("--plans-only: no plan could be built")


def report(line: str) -> None:
    print(line, flush=True)


def main(description: str, arguments: list[str] | None = None) -> None:
    options = parse(description, arguments)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    os.environ.setdefault("YOLO_VERBOSE", "false")  # its banner says nothing that the steps don't
    try:
        detection = wanted(options)
        if detection is None:
            print(f"{options.config} serves no pictures: no models to build")
            return
        if options.plans_only:
            build_only_plans(detection)
            return
        built = build_repository(detection, report, force=options.force)
        if detection.engine == "tensorrt":
            build_plans(detection, report)
    except (ServeAppError, OSError) as problem:
        sys.exit(f"error: {problem}")
    if not built:
        print("models are up to date")
