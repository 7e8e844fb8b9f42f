"""The model repository as the server reads it: links to the real one, with changed configs and added plans."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serve_app.errors import ModelLoadError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.triton.plans import LocalPlans, Report
from serve_app.triton.repository import ModelRepository, RepositoryModel

PLAN, GRAPH = "model.plan", "model.onnx"
PlanFor = Callable[[str, Path, int], Path]  # of a model's name, its graph and its largest batch


@dataclass(frozen=True, slots=True)
class Preparation:
    """What the configuration changes in models, beyond their own configs."""

    instances: Mapping[str, int] = field(default_factory=dict)
    device: str | None = None  # for models that have a `device` parameter
    plan_for: PlanFor | None = None  # builds a TensorRT plan; None: plans must be in the repository
    configs: Mapping[str, ModelConfig] = field(default_factory=dict)  # by model, in place of its own

    @classmethod
    def of(cls, triton: TritonSettings, detection: DetectionSettings, report: Report) -> "Preparation":
        return cls(triton.instances, detection.runs_on, LocalPlans(detection.plans, report).plan_for)

    def overlay_of(self, repository: ModelRepository) -> "Overlay | None":
        """None if the server can read the repository as it is."""
        if not any(self._changes(model, model.name in repository.selected) for model in repository.all.values()):
            return None
        overlay = Overlay(repository, self)
        try:
            overlay.refresh(*repository.selected)
        except BaseException:
            overlay.close()
            raise
        return overlay

    def _changes(self, model: RepositoryModel, selected: bool) -> bool:
        """Folders that aren't selected are checked too, since they may be loaded later; they may be unreadable."""
        try:
            return bool(self.config_of(model) or self.graphs_of(model))
        except ModelLoadError:
            if selected:
                raise
            return False

    def config_of(self, model: RepositoryModel) -> ModelConfig | None:
        """Its config, if it differs from the one that Triton would read."""
        changed = ModelConfig()
        changed.CopyFrom(self.configs.get(model.name, model.config))
        if count := self.instances.get(model.name):
            if not changed.instance_group:
                changed.instance_group.add()
            for group in changed.instance_group:
                group.count = count
        if self.device and "device" in changed.parameters:
            changed.parameters["device"].string_value = self.device
        return changed if model.has_other_config or changed != model.config else None

    def graphs_of(self, model: RepositoryModel) -> list[Path]:
        """The graphs that need a plan: those of versions without one."""
        of_tensorrt = model.config.platform == "tensorrt_plan" or model.config.backend == "tensorrt"
        if self.plan_for is None or not of_tensorrt:
            return []
        graphs = sorted(model.folder.glob(f"[0-9]*/{GRAPH}"))
        return [graph for graph in graphs if not graph.with_name(PLAN).exists()]


class Overlay:
    """A folder that exists as long as the server.

    Triton forgets a config given with a load call as soon as it loads an ensemble over the model.
    """

    def __init__(self, repository: ModelRepository, preparation: Preparation) -> None:
        self._repository = repository
        self._preparation = preparation
        self._folder = tempfile.TemporaryDirectory(prefix="serve_app-repository-")
        self.path = Path(self._folder.name)
        for name, model in repository.all.items():
            (self.path / name).symlink_to(model.folder.absolute())

    def refresh(self, *names: str) -> None:
        """Bring models, and the steps of ensembles, up to date with the repository; building plans may take minutes."""
        for name in self._with_steps(names):
            model = RepositoryModel(self._repository.path / name, self._repository.backing)
            config, graphs = self._preparation.config_of(model), self._preparation.graphs_of(model)
            self._clear(self.path / name)
            if config or graphs:
                self._write(model, config, graphs)
            else:
                (self.path / name).symlink_to(model.folder.absolute())

    def _with_steps(self, names: Iterable[str]) -> dict[str, None]:
        found: dict[str, None] = {}
        for name in names:
            folder = self._repository.path / name
            if folder.is_dir():  # a model that came with its load request has no folder
                found[name] = None
                found |= self._with_steps(RepositoryModel(folder, self._repository.backing).steps)
        return found

    def _write(self, model: RepositoryModel, config: ModelConfig | None, graphs: list[Path]) -> None:
        target = self.path / model.name
        target.mkdir()
        for entry in model.folder.iterdir():
            if entry.name == "config.pbtxt" and config:
                (target / entry.name).write_text(text_format.MessageToString(config))
            elif any(graph.parent == entry for graph in graphs):
                (target / entry.name).mkdir()
                for file in entry.iterdir():
                    (target / entry.name / file.name).symlink_to(file.absolute())
            else:
                (target / entry.name).symlink_to(entry.absolute())
        for graph in graphs:
            assert self._preparation.plan_for is not None
            plan = self._preparation.plan_for(model.name, graph, model.config.max_batch_size)
            (target / graph.parent.name / PLAN).symlink_to(plan.absolute())

    def _clear(self, target: Path) -> None:
        """Remove links, and keep what they point to."""
        if target.is_symlink():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)

    def close(self) -> None:
        self._folder.cleanup()
