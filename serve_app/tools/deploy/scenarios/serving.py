"""The Serve configuration of a scenario: a file of configs/, with changes and placement for Kubernetes."""

import copy
from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import ConfigurationError, near_miss
from serve_app.settings import (
    LanguageModelSettings,
    Settings,
    application_of,
    from_project_root,
    read_config,
    settings_of,
)
from serve_app.tools.deploy.scenarios.fitting import demands_of, require_fit
from serve_app.tools.deploy.scenarios.scenario import Role, Scenario
from serve_app.tools.deploy.yaml_format import BlockDumper

MODELS = Path("/models/current")  # a pod's copy of the model repository
PLANS = Path("/plans")
KEYS = Path("/etc/serve_app/keys")
ROLE_LABEL = "serve-app/role"  # of Ray's nodes
CAPACITY = 1000  # of the custom resource that places a role's replicas on its pods; each replica takes 1


def serve_config(scenario: Scenario) -> dict[str, Any]:
    """The configuration for `serve run`, validated as `serve run` does."""
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
        hint = near_miss(unknown[0], roles, f"known: {', '.join(roles)}")
        raise ConfigurationError(f"deployments: unknown name {unknown[0]!r}{hint}")
    if scenario.workers:
        config["proxy_location"] = "EveryNode"  # KubeRay asks the proxy of every pod whether it is ready
        place(arguments, deployments, scenario, roles)
    application["deployments"] = list(deployments.values())
    require_fit(scenario, roles, demands_of(deployments, settings))
    return config


def located(scenario: Scenario) -> dict[str, Any]:
    """Paths in a pod that differ from those in a checkout."""
    changes: dict[str, Any] = {}
    if scenario.models:
        changes["detection"] = {"model_repository": str(MODELS), "plans": str(PLANS)}
    files = {"keys_file": scenario.keys, "admin_key_file": scenario.admin_key}
    if router := {setting: str(KEYS / key.key) for setting, key in files.items() if key}:
        changes["router"] = router
    return changes


def named(options: dict[str, Any]) -> dict[str, Any]:
    """Adds the name, for deployments that the file doesn't list."""
    return {name: value if value is None else {"name": name} | value for name, value in options.items()}


def merge(target: dict[str, Any], changes: dict[str, Any], place: str) -> None:
    """A JSON merge patch that merges named list items by name; null removes one."""
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
            hint = near_miss(name, [str(known) for known in things], f"known: {', '.join(map(str, things))}")
            raise ConfigurationError(f"{place}: unknown name {name!r}{hint}")
        if change is None:
            del things[name]
        else:
            merge(things[name], change, f"{place}.{name}")
    return list(things.values())


def roles_of(settings: Settings) -> dict[str, Role]:
    """The role of pods that each deployment runs on."""
    hosting: Role = "llm" if isinstance(settings.hosted, LanguageModelSettings) else "vision"
    roles: dict[str, Role] = {"router": hosting if settings.hosted else "routers"}
    if settings.playground:
        roles["playground"] = "routers"
    roles |= {triton.name: "vision" for triton in settings.separate}
    if settings.baseline:
        roles["baseline"] = "vision"
    return roles | {model.name: "llm" for model in settings.separate_llms}


def place(arguments: dict[str, Any], deployments: dict[str, Any], scenario: Scenario, roles: dict[str, Role]) -> None:
    """Vision and language models by a custom resource of their pods, routers by a node label.

    Serve builds the application on nodes with the label that its deployments select, so only pods whose image can
    build it have that label.
    """
    for name, role in roles.items():
        if role == "routers":
            options = actor_options(deployments, name)
            options["label_selector"] = {ROLE_LABEL: "routers"}
            if has_room(scenario, role):
                deployments[name].setdefault("max_surge_percent", 100)
            continue
        if role not in scenario.workers:
            raise ConfigurationError(
                f"{name} needs workers.{role}, but the scenario has {', '.join(scenario.workers)}: add the group, "
                f"or remove {name} by `changes`"
            )
        if role == "vision":
            options = actor_options(deployments, name)
            options["resources"] = {**options.get("resources", {}), role: 1}
    for model in arguments.get("llms") or ():
        model["resources"] = {**model.get("resources", {}), "llm": 1}


def has_room(scenario: Scenario, role: Role) -> bool:
    """For a replica more while one is replaced: Ray may add a pod. A pod with a GPU would cost more than the wait."""
    group = scenario.workers.get(role)
    return group is not None and group.max > group.min and not group.gpus


def actor_options(deployments: dict[str, Any], name: str) -> dict[str, Any]:
    options = deployments.setdefault(name, {"name": name})
    return options.setdefault("ray_actor_options", {})  # type: ignore[no-any-return]


def serve_config_text(scenario: Scenario) -> str:
    """For `serveConfigV2`; an unchanged file keeps its comments."""
    path = from_project_root(scenario.config)
    config = serve_config(scenario)
    if config == read_config(path):
        return path.read_text()
    return yaml.dump(config, Dumper=BlockDumper, sort_keys=False, width=120, allow_unicode=True)
