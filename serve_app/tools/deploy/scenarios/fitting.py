"""Whether a replica of each deployment fits on a pod of its group: what doesn't would wait for ever."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.settings import LanguageModelSettings, Settings
from serve_app.tools.deploy.scenarios.scenario import Group, Role, Scenario

SERVE_CPUS = 1.0  # what Serve sets aside for a replica that says nothing


@dataclass(frozen=True, slots=True)
class Wish:
    """What one pod must have for one replica, or for one machine's part of it."""

    cpus: float
    gpus: float


def wishes_of(deployments: Mapping[str, dict[str, Any]], settings: Settings) -> dict[str, Wish]:
    found = {}
    for name, options in deployments.items():
        actor = options.get("ray_actor_options") or {}
        found[name] = Wish(actor.get("num_cpus", SERVE_CPUS), actor.get("num_gpus", 0))
    return found | {model.name: wish_of(model) for model in settings.llms}


def wish_of(model: LanguageModelSettings) -> Wish:
    """All of its workers, where they may not stretch over machines."""
    workers = int(model.engine.get("tensor_parallel_size", 1)) * int(model.engine.get("pipeline_parallel_size", 1))
    here = -(-workers // model.nodes)
    return Wish(model.num_cpus * here, (model.num_gpus if model.accelerator == "gpu" else 0) * here)


def require_fit(scenario: Scenario, roles: Mapping[str, Role], wishes: Mapping[str, Wish]) -> None:
    for name, wish in wishes.items():
        role = roles[name]
        place, group = (
            (f"workers.{role}", scenario.workers[role]) if role in scenario.workers else ("head", scenario.head)
        )
        require(name, wish, place, group)


def require(name: str, wish: Wish, place: str, group: Group) -> None:
    if wish.gpus > group.gpus:
        raise ConfigurationError(
            f"{name} takes {wish.gpus:g} GPUs of one machine, and a pod of {place} has {group.gpus}: "
            f"--set {place}.gpus={-int(-wish.gpus // 1)}, or a smaller engine"
        )
    if wish.cpus > int(group.cpu):
        raise ConfigurationError(
            f"{name} takes {wish.cpus:g} processors of one machine, and a pod of {place} has {int(group.cpu)}: "
            f"--set {place}.cpu={-int(-wish.cpus // 1)}"
        )
