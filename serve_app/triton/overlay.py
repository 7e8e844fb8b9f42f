"""The model repository as the server reads it: links to the real one, with other configs and plans where there are."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serve_app.export.plans import LocalPlans, Report
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.triton.repository import ModelRepository, RepositoryModel

PLAN, GRAPH = "model.plan", "model.onnx"
PlanFor = Callable[[str, Path, int], Path]  # of a model's name, its graph and its largest batch


class Overlay:
    """A folder that lives as long as the server.

    A config given with a load call would be lost as soon as an ensemble over the model is loaded.
    """

    def __init__(
        self, repository: ModelRepository, configs: Mapping[str, ModelConfig], plan_for: PlanFor | None = None
    ) -> None:
        self._repository = repository
        self._plan_for = plan_for
        self._folder = tempfile.TemporaryDirectory(prefix="serve_app-repository-")
        self.path = Path(self._folder.name)
        for name, model in repository.all.items():
            if name in configs or self._plans(model):
                self._write(model, configs.get(name))
            else:
                (self.path / name).symlink_to(model.folder.absolute())

    def _write(self, model: RepositoryModel, config: ModelConfig | None) -> None:
        target = self.path / model.name
        target.mkdir()
        for entry in model.folder.iterdir():
            if entry.name == "config.pbtxt" and config:
                (target / entry.name).write_text(text_format.MessageToString(config))
            elif entry.name.isdigit() and self._plans(model):
                (target / entry.name).mkdir()
                for file in entry.iterdir():
                    (target / entry.name / file.name).symlink_to(file.absolute())
            else:
                (target / entry.name).symlink_to(entry.absolute())

    def _plans(self, model: RepositoryModel) -> bool:
        return self._plan_for is not None and needs_plan(model)

    def add_plans(self, name: str) -> None:
        """Every version's plan beside its graph; takes minutes where one has to be built."""
        model = self._repository.all.get(name)
        if model is None:
            return
        for step in model.steps:
            self.add_plans(step)
        if self._plan_for is None or not self._plans(model):
            return
        for graph in sorted((self.path / name).glob(f"*/{GRAPH}")):
            plan = graph.with_name(PLAN)
            if not plan.exists():
                plan.symlink_to(self._plan_for(name, graph, model.config.max_batch_size).absolute())

    def close(self) -> None:
        self._folder.cleanup()


@dataclass(frozen=True, slots=True)
class Preparation:
    """What the configuration says of models, beyond what their own configs do."""

    instances: Mapping[str, int]
    device: str | None = None  # for models that have it as a parameter
    plan_for: PlanFor | None = None  # TensorRT's; without it they must be in the repository

    @classmethod
    def of(cls, triton: TritonSettings, detection: DetectionSettings, report: Report) -> "Preparation":
        return cls(triton.instances, detection.runs_on, LocalPlans(detection.plans, report).plan_for)

    def overlay_of(self, repository: ModelRepository) -> Overlay | None:
        """None where the server can read the repository as it is; else every model that starts has its plan."""
        configs = {name: config for name, model in repository.all.items() if (config := self._config_of(model))}
        plans = self.plan_for if any(needs_plan(model) for model in repository.all.values()) else None
        if not (configs or plans):
            return None
        overlay = Overlay(repository, configs, plans)
        try:
            for name in repository.selected:
                overlay.add_plans(name)
        except BaseException:
            overlay.close()
            raise
        return overlay

    def _config_of(self, model: RepositoryModel) -> ModelConfig | None:
        """Its config, where it isn't the one that Triton would read."""
        changed = ModelConfig()
        changed.CopyFrom(model.config)
        if count := self.instances.get(model.name):
            if not changed.instance_group:
                changed.instance_group.add()
            for group in changed.instance_group:
                group.count = count
        if self.device and "device" in changed.parameters:
            changed.parameters["device"].string_value = self.device
        return changed if model.has_other_config or changed != model.config else None


def needs_plan(model: RepositoryModel) -> bool:
    return bool(model.config.platform == "tensorrt_plan" or model.config.backend == "tensorrt")
