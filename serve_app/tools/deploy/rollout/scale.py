"""Numbers of replicas and of pods: changed in a manifest, and brought into the running cluster."""

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from serve_app.errors import ConfigurationError, near_miss
from serve_app.llm.deployment import build_options
from serve_app.settings import application_of, settings_of
from serve_app.tools.deploy.api.connection import ConflictError
from serve_app.tools.deploy.api.objects import Manifest, Objects
from serve_app.tools.deploy.api.target import RAY_API, Target
from serve_app.tools.deploy.yaml_format import BlockDumper

ATTEMPTS = 5  # Ray's autoscaler writes the same object
SIZE = re.compile(r"([\w.-]+)=(\d+)(?:\.\.(\d+))?")


@dataclass(frozen=True, slots=True)
class Size:
    """From `least` to `most` of a Serve deployment, or of the pods of a group."""

    name: str
    least: int
    most: int


def size_of(text: str) -> Size:
    """`vision=2..6`, or `vision=2` for exactly two."""
    found = SIZE.fullmatch(text)
    if not found:
        raise ConfigurationError(f"{text!r}: expected NAME=NUMBER or NAME=LEAST..MOST, such as vision=2..6")
    name, least, most = found[1], int(found[2]), int(found[3] or found[2])
    if least > most or most == 0:
        raise ConfigurationError(f"{text!r}: expected at least 1, and the greater number last")
    return Size(name, least, most)


def scaled(service: Manifest, sizes: Sequence[Size]) -> Manifest:
    """The RayService with these sizes: of the deployment of that name, of the group, or of both."""
    changed = copy.deepcopy(service)
    cluster = changed["spec"]["rayClusterConfig"]
    groups = {one["groupName"]: one for one in cluster.get("workerGroupSpecs") or ()}
    config = yaml.safe_load(changed["spec"]["serveConfigV2"])
    deployments = deployments_of(config, variables_of(cluster))
    for size in sizes:
        if size.name not in deployments and size.name not in groups:
            known = [*deployments, *(name for name in groups if name not in deployments)]
            hint = near_miss(size.name, known, f"available: {', '.join(known)}")
            raise ConfigurationError(f"no deployment or group of workers {size.name!r}{hint}")
        if size.name in deployments:
            _scale_deployment(config, deployments[size.name], size)
        if size.name in groups:
            _scale_group(groups[size.name], size)
    if any(size.name in deployments for size in sizes):
        changed["spec"]["serveConfigV2"] = yaml.dump(config, Dumper=BlockDumper, sort_keys=False, allow_unicode=True)
    return changed


def deployments_of(config: dict[str, Any], variables: dict[str, str]) -> dict[str, dict[str, Any]]:
    """By name. A language model's options stand in `args`, but a change of them there would restart it."""
    found = {
        model.name: {"name": model.name, "autoscaling_config": options["autoscaling_config"]}
        for model in settings_of(config, variables).llms
        if (options := build_options(model)).get("autoscaling_config")
    }
    return found | {one["name"]: one for one in application_of(config).get("deployments") or ()}


def variables_of(cluster: Manifest) -> dict[str, str]:
    """Of the head, where the application is configured; those from Secrets aren't for configurations."""
    (container, *_) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container.get("env") or () if "value" in one}


def _scale_deployment(config: dict[str, Any], deployment: dict[str, Any], size: Size) -> None:
    listed = application_of(config).setdefault("deployments", [])
    if deployment not in listed:
        listed.append(deployment)
    if deployment.get("autoscaling_config"):
        deployment["autoscaling_config"] |= {"min_replicas": size.least, "max_replicas": size.most}
    elif size.least == size.most:
        deployment["num_replicas"] = size.least
    else:
        raise ConfigurationError(f"{size.name} doesn't scale by itself: give one number, or an autoscaling_config")


def _scale_group(group: dict[str, Any], size: Size) -> None:
    group |= {"minReplicas": size.least, "maxReplicas": size.most, "replicas": size.least}


def resize_clusters(objects: Objects, target: Target, service: Manifest, say: Callable[[str], None]) -> None:
    """KubeRay brings the numbers of a RayService into its next cluster only."""
    wanted = service["spec"]["rayClusterConfig"].get("workerGroupSpecs") or []
    for cluster in objects.list(RAY_API, "RayCluster", target.namespace):
        name = cluster["metadata"]["name"]
        if target.owns_cluster(name):
            for line in _resize(objects, target, name, wanted):
                say(line)


def _resize(objects: Objects, target: Target, name: str, wanted: Sequence[Manifest]) -> list[str]:
    for attempt in range(ATTEMPTS):
        cluster = objects.get(RAY_API, "RayCluster", name, target.namespace)
        groups, lines = _with_limits(cluster or {"spec": {}}, wanted)
        if cluster is None or not lines:
            return []
        try:
            version = cluster["metadata"]["resourceVersion"]
            objects.merge(cluster, {"metadata": {"resourceVersion": version}, "spec": {"workerGroupSpecs": groups}})
        except ConflictError:
            if attempt + 1 == ATTEMPTS:
                raise
        else:
            return [f"RayCluster/{name} {line}" for line in lines]
    return []


def _with_limits(cluster: Manifest, wanted: Iterable[Manifest]) -> tuple[list[Manifest], list[str]]:
    """Where Ray's autoscaler decides, the number of now is its own."""
    spec = cluster["spec"]
    keys = ("minReplicas", "maxReplicas") + (() if spec.get("enableInTreeAutoscaling") else ("replicas",))
    limits = {one["groupName"]: {key: one[key] for key in keys if key in one} for one in wanted}
    groups, lines = [], []
    for group in spec.get("workerGroupSpecs") or []:
        new = limits.get(group["groupName"], {})
        if any(group.get(key) != value for key, value in new.items()):
            lines.append(f"{group['groupName']}: {new['minReplicas']} to {new['maxReplicas']} pods")
        groups.append(group | new)
    return groups, lines
