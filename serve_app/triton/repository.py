"""The model repository as a deployment sees it: which models it serves, and what they are."""

import fnmatch
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.settings import SIZES, DetectionSettings, TritonSettings
from serve_app.types import ModelCard


@dataclass(frozen=True)
class RepositoryModel:
    """One folder of the repository; `backing` names the config that is wanted where a model has several."""

    folder: Path
    backing: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def config(self) -> ModelConfig:
        """Parsed here because Triton tells its log, not its caller, what is wrong with a file."""
        path = self._config_path
        try:
            return text_format.Parse(path.read_text(), ModelConfig())
        except OSError as problem:
            raise ModelLoadError(f"model {self.name!r}: {path}: {problem.strerror}") from None
        except (text_format.ParseError, UnicodeDecodeError) as problem:
            raise ModelLoadError(f"model {self.name!r}: {path}: {problem}") from None

    @property
    def _config_path(self) -> Path:
        other = self.folder / "configs" / f"{self.backing}.pbtxt"
        return other if self.backing and other.is_file() else self.folder / "config.pbtxt"

    @property
    def has_other_config(self) -> bool:
        """Whether its config isn't the one that Triton would read."""
        return self._config_path.name != "config.pbtxt"

    @property
    def steps(self) -> tuple[str, ...]:
        """The models an ensemble is made of; empty for any other."""
        return tuple(step.model_name for step in self.config.ensemble_scheduling.step)

    @property
    def instances(self) -> int:
        """Processes that the Python backend starts for it; 0 for a model of another backend."""
        if self.config.backend != "python":
            return 0
        return sum(group.count or 1 for group in self.config.instance_group) or 1

    def card(self) -> ModelCard | None:
        """What the export wrote beside the newest engine; foreign models have none."""
        cards = sorted(self.folder.glob("[0-9]*/model.json"), key=lambda path: int(path.parent.name))
        if not cards:
            return None
        try:
            values = json.loads(cards[-1].read_text())
            fields = {key: values[key] for key in ModelCard.__dataclass_fields__ if key in values}
            return ModelCard(**fields | {"labels": tuple(values["labels"])})
        except (ValueError, KeyError, TypeError) as problem:
            raise ModelLoadError(
                f"model {self.name!r}: {cards[-1]} can't be read: {problem}; run `make models`"
            ) from None


class ModelRepository:
    """A repository's folders, narrowed to what one deployment serves."""

    def __init__(self, path: Path, patterns: Iterable[str], sizes: Iterable[str] | None, backing: str = "") -> None:
        """`sizes` narrows what wildcards mean; None leaves nothing out."""
        self.path = path
        self.backing = backing
        if not path.is_dir():
            raise ConfigurationError(f"model repository {path}: no such folder; `make models` builds it")
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        self.all = {folder.name: RepositoryModel(folder, backing) for folder in folders}
        self.selected = self._select(tuple(patterns), None if sizes is None else set(sizes))

    @classmethod
    def of(cls, deployment: TritonSettings, detection: DetectionSettings) -> "ModelRepository":
        """What a configured deployment serves; a polling server takes every folder, also of other sizes."""
        sizes = None if deployment.control_mode == "poll" else detection.models
        path = deployment.model_repository or detection.model_repository
        return cls(path, deployment.models, sizes, backing_of(detection))

    def _select(self, patterns: tuple[str, ...], sizes: set[str] | None) -> dict[str, RepositoryModel]:
        """What the patterns name, and what ensembles among it need."""
        names: set[str] = set()
        for pattern in patterns:
            matched = {name for name in self.all if fnmatch.fnmatchcase(name, pattern)}
            if not matched:
                raise ConfigurationError(
                    f"no model matches {pattern!r} in {self.path}; there is: {', '.join(self.all) or 'nothing'}"
                )
            exact = pattern in self.all
            names |= matched if exact else {name for name in matched if not _of_other_size(name, sizes)}
        for name in list(names):
            for step in self.all[name].steps:
                if step not in self.all:
                    raise ModelLoadError(f"model {name!r}: its step {step!r} is not in {self.path}")
                names.add(step)
        return {name: self.all[name] for name in sorted(names)}

    def cards(self) -> dict[str, ModelCard]:
        """Every model's card; an ensemble has that of its last step, the engine."""
        cards = {name: card for name, model in self.selected.items() if (card := model.card())}
        for name, model in self.selected.items():
            if model.steps and model.steps[-1] in cards:
                cards[name] = cards[model.steps[-1]]
        return cards


def backing_of(detection: DetectionSettings) -> str:
    """What the configs for the configured engine are called."""
    on_cpu = detection.engine == "onnxruntime" and detection.runs_on == "cpu"
    return f"{detection.engine}-cpu" if on_cpu else detection.engine


def _of_other_size(name: str, sizes: set[str] | None) -> bool:
    """`*` means what is configured: folders of sizes that aren't served may have no engine."""
    parts = name.split("_")
    return sizes is not None and len(parts) > 1 and parts[0] == "yolo" and parts[1] in SIZES and parts[1] not in sizes
