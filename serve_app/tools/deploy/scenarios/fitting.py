"""Checks that a replica of each deployment fits on a pod of its group; otherwise it would stay pending."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.settings import LanguageModelSettings, Settings
from serve_app.tools.deploy.scenarios.scenario import Group, Role, Scenario

SERVE_CPUS = 1.0  # Serve's default num_cpus


@dataclass(frozen=True, slots=True)
class Demand:
    """What one replica needs from one pod."""

    cpus: float
    gpus: float


def demands_of(deployments: Mapping[str, dict[str, Any]], settings: Settings) -> dict[str, Demand]:
    found = {}
    for name, options in deployments.items():
        actor = options.get("ray_actor_options") or {}
        found[name] = Demand(actor.get("num_cpus", SERVE_CPUS), actor.get("num_gpus", 0))
    return found | {model.name: demand_of(model) for model in settings.llms}


def demand_of(model: LanguageModelSettings) -> Demand:
    """All of its workers that run on one node."""
    workers = int(model.engine.get("tensor_parallel_size", 1)) * int(model.engine.get("pipeline_parallel_size", 1))
    here = -(-workers // model.nodes)
    return Demand(model.num_cpus * here, (model.num_gpus if model.accelerator == "gpu" else 0) * here)


def require_fit(scenario: Scenario, roles: Mapping[str, Role], demands: Mapping[str, Demand]) -> None:
    for name, demand in demands.items():
        role = roles[name]
        place, group = (
            (f"workers.{role}", scenario.workers[role]) if role in scenario.workers else ("head", scenario.head)
        )
        require(name, demand, place, group)


def require(name: str, demand: Demand, place: str, group: Group) -> None:
    if demand.gpus > group.gpus:
        raise ConfigurationError(
            f"{name} needs {demand.gpus:g} GPUs, but a pod of {place} has {group.gpus}: "
            f"--set {place}.gpus={-int(-demand.gpus // 1)}, or use a smaller engine"
        )
    if demand.cpus > int(group.cpu):
        raise ConfigurationError(
            f"{name} needs {demand.cpus:g} CPUs, but a pod of {place} has {int(group.cpu)}: "
            f"--set {place}.cpu={-int(-demand.cpus // 1)}"
        )
