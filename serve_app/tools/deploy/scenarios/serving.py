"""The Serve configuration of a scenario: a file of configs/, what Kubernetes changes in it, and who runs where."""

import copy
from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import ConfigurationError, near_miss
from serve_app.settings import Settings, application_of, from_project_root, read_config, settings_of
from serve_app.tools.deploy.scenarios.fitting import require_fit, wishes_of
from serve_app.tools.deploy.scenarios.scenario import Role, Scenario

MODELS = Path("/models/current")  # where a pod's copy of the model repository lies
PLANS = Path("/plans")
KEYS = Path("/etc/serve_app/keys")
ROLE_LABEL = "serve-app/role"  # of Ray's nodes
ROOM = 1000  # of the resource that places a role's replicas, on each of its pods; a replica takes 1


def serve_config(scenario: Scenario) -> dict[str, Any]:
    """What `serve run` would be given, checked as it checks it."""
    config = read_config(from_project_root(scenario.config))
    application = application_of(config)
    before = roles_of(settings_of(config, scenario.environment))
    arguments = application.setdefault("args", {})
    merge(arguments, located(scenario), "changes")
    merge(arguments, scenario.changes, "changes")
    settings = settings_of(config, scenario.environment)
    roles = roles_of(settings)
    gone = before.keys() - roles.keys()
    deployments = {one["name"]: one for one in application.get("deployments") or () if one["name"] not in gone}
    merge(deployments, named(scenario.deployments), "deployments")
    if unknown := [name for name in deployments if name not in roles]:
        hint = near_miss(unknown[0], roles, f"there is {', '.join(roles)}")
        raise ConfigurationError(f"deployments: nothing is called {unknown[0]!r}{hint}")
    if scenario.workers:
        place(arguments, deployments, scenario, roles)
    application["deployments"] = list(deployments.values())
    require_fit(scenario, roles, wishes_of(deployments, settings))
    return config


def located(scenario: Scenario) -> dict[str, Any]:
    """Files that lie elsewhere in a pod than in a checkout."""
    changes: dict[str, Any] = {}
    if scenario.models:
        changes["detection"] = {"model_repository": str(MODELS), "plans": str(PLANS)}
    if scenario.admin_key:
        changes["router"] = {"admin_key_file": str(KEYS / scenario.admin_key.key)}
    return changes


def named(options: dict[str, Any]) -> dict[str, Any]:
    """What is said of a deployment that the file doesn't mention gets its name."""
    return {name: value if value is None else {"name": name} | value for name, value in options.items()}


def merge(target: dict[str, Any], changes: dict[str, Any], place: str) -> None:
    """JSON merge patch, in which a list of things with names is changed by name: null takes one out."""
    for key, change in changes.items():
        here = f"{place}.{key}"
        present = target.get(key)
        if change is None and place == "deployments":
            target.pop(key, None)
        elif isinstance(change, dict) and isinstance(present, list) and present:
            target[key] = merged_list(present, change, here)
        elif isinstance(change, dict) and isinstance(present, dict):
            merge(present, change, here)
        else:
            target[key] = copy.deepcopy(change)


def merged_list(present: list[Any], changes: dict[str, Any], place: str) -> list[Any]:
    things = {one.get("name"): one for one in present if isinstance(one, dict)}
    for name, change in changes.items():
        if name not in things:
            hint = near_miss(name, [str(known) for known in things], f"there is {', '.join(map(str, things))}")
            raise ConfigurationError(f"{place}: nothing is called {name!r}{hint}")
        if change is None:
            del things[name]
        else:
            merge(things[name], change, f"{place}.{name}")
    return list(things.values())


def roles_of(settings: Settings) -> dict[str, Role]:
    """Which kind of pod each deployment wants."""
    roles: dict[str, Role] = {"router": "routers"}
    if settings.playground:
        roles["playground"] = "routers"
    roles |= {triton.name: "vision" for triton in settings.triton}
    if settings.baseline:
        roles["baseline"] = "vision"
    return roles | {model.name: "llm" for model in settings.llms}


def place(arguments: dict[str, Any], deployments: dict[str, Any], scenario: Scenario, roles: dict[str, Role]) -> None:
    """Vision and language models by a resource that only their pods have; routers by a label.

    Serve builds the application on nodes with the one label that its deployments ask for, so the label is on pods
    whose image can build it, and on them alone.
    """
    for name, role in roles.items():
        if role == "routers":
            options = actor_options(deployments, name)
            options["label_selector"] = {ROLE_LABEL: "routers"}
            continue
        if role not in scenario.workers:
            raise ConfigurationError(
                f"{name} wants pods of workers.{role}, and the scenario has {', '.join(scenario.workers)}: add them, "
                "or take it out by `changes`"
            )
        if role == "vision":
            options = actor_options(deployments, name)
            options["resources"] = {**options.get("resources", {}), role: 1}
    for model in arguments.get("llms") or ():
        model["resources"] = {**model.get("resources", {}), "llm": 1}


def actor_options(deployments: dict[str, Any], name: str) -> dict[str, Any]:
    options = deployments.setdefault(name, {"name": name})
    return options.setdefault("ray_actor_options", {})  # type: ignore[no-any-return]


def serve_config_text(scenario: Scenario) -> str:
    """For `serveConfigV2`; a file that nothing is changed in comes through with its comments."""
    path = from_project_root(scenario.config)
    config = serve_config(scenario)
    if config == read_config(path):
        return path.read_text()
    return yaml.dump(config, Dumper=PlainDumper, sort_keys=False, width=120, allow_unicode=True)


class PlainDumper(yaml.SafeDumper):
    """Without `&id001`: what is there twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
