"""The model repository of a deployment: which of its models are served, and their configs and cards."""

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

EXPORTED = "from serve_app.triton.python_models."  # in the model.py of a model that `make models` wrote


@dataclass(frozen=True)
class RepositoryModel:
    """One folder of the repository; `backing` names the config to use if the model has several."""

    folder: Path
    backing: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def config(self) -> ModelConfig:
        """Parsed here because Triton reports what is wrong with a file to its log, not to its caller."""
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
        """Whether its config is another than Triton would read."""
        return self._config_path.name != "config.pbtxt"

    @property
    def steps(self) -> tuple[str, ...]:
        """The models an ensemble is made of; empty for any other."""
        return tuple(step.model_name for step in self.config.ensemble_scheduling.step)

    @property
    def instances(self) -> int:
        """How many processes the Python backend starts for it; 0 for other backends."""
        if self.config.backend != "python":
            return 0
        return sum(group.count or 1 for group in self.config.instance_group) or 1

    @property
    def is_exported(self) -> bool:
        """A Python model of this project's, or an ensemble: what their configs don't say, Triton can't find out."""
        sources = self.folder.glob("[0-9]*/model.py")
        ours = [EXPORTED in source.read_text() for source in sources] if self.config.backend == "python" else []
        return bool(self.steps) or (bool(ours) and all(ours))

    def card(self) -> ModelCard | None:
        """The card that `make models` wrote beside the newest version; other models have none."""
        cards = sorted(self.folder.glob("[0-9]*/model.json"), key=lambda path: int(path.parent.name))
        if not cards:
            return None
        try:
            values = json.loads(cards[-1].read_text())
            fields = {key: values[key] for key in ModelCard.__dataclass_fields__ if key in values}
            return ModelCard(**fields | {"labels": tuple(values["labels"])})
        except (ValueError, KeyError, TypeError) as problem:
            raise ModelLoadError(
                f"model {self.name!r}: {cards[-1]} is not a valid card ({problem}); run `make models` to rebuild it"
            ) from None


class ModelRepository:
    """A repository's folders, and those among them that one deployment serves."""

    def __init__(self, path: Path, patterns: Iterable[str], sizes: Iterable[str] | None, backing: str = "") -> None:
        """`sizes` limits the models that wildcards match; None: no limit."""
        self.path = path
        self.backing = backing
        if not path.is_dir():
            raise ConfigurationError(f"model repository {path} does not exist; run `make models` to build it")
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        self.all = {folder.name: RepositoryModel(folder, backing) for folder in folders}
        self.selected = self._select(tuple(patterns), None if sizes is None else set(sizes))

    @classmethod
    def of(cls, deployment: TritonSettings, detection: DetectionSettings) -> "ModelRepository":
        """The repository of a configured deployment; a polling server serves folders of every size."""
        sizes = None if deployment.control_mode == "poll" else detection.models
        path = deployment.model_repository or detection.model_repository
        return cls(path, deployment.models, sizes, backing_of(detection))

    def _select(self, patterns: tuple[str, ...], sizes: set[str] | None) -> dict[str, RepositoryModel]:
        """The models that match, and the steps of the ensembles among them."""
        names: set[str] = set()
        for pattern in patterns:
            matched = {name for name in self.all if fnmatch.fnmatchcase(name, pattern)}
            if not matched:
                raise ConfigurationError(
                    f"no model matches {pattern!r} in {self.path}; available: {', '.join(self.all) or 'none'}"
                )
            exact = pattern in self.all
            names |= matched if exact else {name for name in matched if not _of_other_size(name, sizes)}
        for name in list(names):
            for step in self.all[name].steps:
                if step not in self.all:
                    raise ModelLoadError(f"model {name!r}: its ensemble step {step!r} is not in {self.path}")
                names.add(step)
        return {name: self.all[name] for name in sorted(names)}

    def cards(self) -> dict[str, ModelCard]:
        """Every model's card; an ensemble has the card of its last step."""
        cards = {name: card for name, model in self.selected.items() if (card := model.card())}
        for name, model in self.selected.items():
            if model.steps and model.steps[-1] in cards:
                cards[name] = cards[model.steps[-1]]
        return cards


def backing_of(detection: DetectionSettings) -> str:
    """The name of the configs for the configured engine."""
    on_cpu = detection.engine == "onnxruntime" and detection.runs_on == "cpu"
    return f"{detection.engine}-cpu" if on_cpu else detection.engine


def _of_other_size(name: str, sizes: set[str] | None) -> bool:
    """Whether a wildcard leaves a model out because its size isn't configured; it may have no engine."""
    parts = name.split("_")
    return sizes is not None and len(parts) > 1 and parts[0] == "yolo" and parts[1] in SIZES and parts[1] not in sizes
