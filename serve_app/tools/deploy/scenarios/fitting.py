"""Checks that a replica of each deployment fits on a pod, and the fewest on all of them; others would wait for ever."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.settings import LanguageModelSettings, Settings
from serve_app.tools.deploy.scenarios.scenario import Group, Role, Scenario, WorkerGroup

SERVE_CPUS = 1.0  # Serve's default num_cpus
ROUNDING = 1e-6  # sums of tenths


@dataclass(frozen=True, slots=True)
class Demand:
    """What one replica needs from one pod, and how many there are at least."""

    cpus: float
    gpus: float
    replicas: int


def demands_of(deployments: Mapping[str, dict[str, Any]], settings: Settings) -> dict[str, Demand]:
    found = {}
    for name, options in deployments.items():
        actor = options.get("ray_actor_options") or {}
        found[name] = Demand(actor.get("num_cpus", SERVE_CPUS), actor.get("num_gpus", 0), least(options))
    if isinstance(settings.hosted, LanguageModelSettings):
        found["router"] = demand_of(settings.hosted)
    return found | {model.name: demand_of(model) for model in settings.separate_llms}


def demand_of(model: LanguageModelSettings) -> Demand:
    """All of its workers that run on one node."""
    here = -(-model.workers // model.nodes)
    gpus = model.num_gpus if model.accelerator == "gpu" else 0
    return Demand(model.num_cpus * here, gpus * here, least(model.deployment))


def least(options: Mapping[str, Any]) -> int:
    scaling = options.get("autoscaling_config")
    number = scaling.get("min_replicas", 1) if isinstance(scaling, Mapping) else options.get("num_replicas", 1)
    return number if isinstance(number, int) else 1  # `auto` begins with one


def require_fit(scenario: Scenario, roles: Mapping[str, Role], demands: Mapping[str, Demand]) -> None:
    places = {name: place_of(scenario, roles[name]) for name in demands}
    for name, demand in demands.items():
        require(name, demand, *places[name])
    for place, group in dict(places.values()).items():
        here = [demand for name, demand in demands.items() if places[name][0] == place]
        require_room(sum(demand.cpus * demand.replicas for demand in here), place, group)


def place_of(scenario: Scenario, role: Role) -> tuple[str, Group]:
    return (f"workers.{role}", scenario.workers[role]) if role in scenario.workers else ("head", scenario.head)


def require_room(cpus: float, place: str, group: Group) -> None:
    """Ray counts whole processors."""
    pods = group.max if isinstance(group, WorkerGroup) else 1
    if cpus > int(group.cpu) * pods + ROUNDING:
        each = f" on each of {pods} pods" if pods > 1 else ""
        raise ConfigurationError(
            f"the fewest replicas on {place} need {cpus:g} CPUs together, but Ray counts {int(group.cpu)} of "
            f"{group.cpu:g}{each}: --set {place}.cpu={math.ceil(cpus / pods)}"
        )


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
