"""The model repository as the server reads it: links to the real one, with other configs and plans where there are."""

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
    """What the configuration says of models, beyond what their own configs do."""

    instances: Mapping[str, int] = field(default_factory=dict)
    device: str | None = None  # for models that have it as a parameter
    plan_for: PlanFor | None = None  # TensorRT's; without it they must be in the repository
    configs: Mapping[str, ModelConfig] = field(default_factory=dict)  # that take the place of a model's own

    @classmethod
    def of(cls, triton: TritonSettings, detection: DetectionSettings, report: Report) -> "Preparation":
        return cls(triton.instances, detection.runs_on, LocalPlans(detection.plans, report).plan_for)

    def overlay_of(self, repository: ModelRepository) -> "Overlay | None":
        """None where the server can read the repository as it is; else every model that starts is made ready."""
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
        """A folder that isn't served may be anything: it is looked at in case it is loaded later."""
        try:
            return bool(self.config_of(model) or self.graphs_of(model))
        except ModelLoadError:
            if selected:
                raise
            return False

    def config_of(self, model: RepositoryModel) -> ModelConfig | None:
        """Its config, where it isn't the one that Triton would read."""
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
        """Those that a plan has to be had for: every version's that doesn't bring its own."""
        of_tensorrt = model.config.platform == "tensorrt_plan" or model.config.backend == "tensorrt"
        if self.plan_for is None or not of_tensorrt:
            return []
        graphs = sorted(model.folder.glob(f"[0-9]*/{GRAPH}"))
        return [graph for graph in graphs if not graph.with_name(PLAN).exists()]


class Overlay:
    """A folder that lives as long as the server.

    A config given with a load call would be lost as soon as an ensemble over the model is loaded.
    """

    def __init__(self, repository: ModelRepository, preparation: Preparation) -> None:
        self._repository = repository
        self._preparation = preparation
        self._folder = tempfile.TemporaryDirectory(prefix="serve_app-repository-")
        self.path = Path(self._folder.name)
        for name, model in repository.all.items():
            (self.path / name).symlink_to(model.folder.absolute())

    def refresh(self, *names: str) -> None:
        """Make models, and the steps of ensembles, what they are in the repository by now; plans may take minutes."""
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
            if folder.is_dir():  # what came with a load request has no folder
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
        """Links go, what they lead to stays."""
        if target.is_symlink():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)

    def close(self) -> None:
        self._folder.cleanup()
