"""What a change of a RayService makes KubeRay do: Serve's configuration in place, a new cluster, or nothing at all."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.changing.applying import Trial

ROLLOUT = "serve-app/rollout"  # an annotation of the head's template: another value is another cluster
# what KubeRay leaves out when it compares clusters, because its autoscaler changes it
SCALED = ("replicas", "minReplicas", "maxReplicas")


class Change(Enum):
    CREATE = "a new service"
    NONE = "nothing of the RayService changes"
    IN_PLACE = "in place: Serve updates its applications in the running cluster"
    GROUPS = "in place: the running cluster gets the worker groups that were added"
    SCALE = "nothing yet: KubeRay gives a running cluster no other numbers of replicas, only its next one"
    NEW_CLUSTER = "a new cluster beside the running one, which then takes over"
    FROZEN = "nothing: upgradeStrategy None keeps the running cluster as it is"
    SETTINGS = "in place: settings of the RayService that leave its cluster as it is"


@dataclass(frozen=True, slots=True)
class Plan:
    change: Change
    paths: tuple[str, ...] = ()  # what differs

    def __str__(self) -> str:
        shown = ", ".join(self.paths[:6]) + (", …" if len(self.paths) > 6 else "")
        return self.change.value + (f" (differs: {shown})" if shown else "")

    @property
    def replaces_the_cluster(self) -> bool:
        return self.change is Change.NEW_CLUSTER


def plan_of(trial: Trial) -> Plan:
    if trial.before is None:
        return Plan(Change.CREATE)
    before = trial.before["spec"]
    after = (trial.after or trial.manifest)["spec"]
    paths = tuple(_differing(before, after))
    cluster = _cluster_change(before.get("rayClusterConfig") or {}, after.get("rayClusterConfig") or {})
    if cluster is Change.NEW_CLUSTER and (after.get("upgradeStrategy") or {}).get("type") == "None":
        cluster = Change.FROZEN
    serve = before.get("serveConfigV2") != after.get("serveConfigV2")
    if cluster in (None, Change.SCALE) and serve:
        return Plan(Change.IN_PLACE, paths)
    if cluster is not None:
        return Plan(cluster, paths)
    return Plan(Change.SETTINGS if paths else Change.NONE, paths)


def _cluster_change(before: Manifest, after: Manifest) -> Change | None:
    if before == after:
        return None
    old, new = _compared(before), _compared(after)
    if old == new:
        return Change.SCALE
    groups = len(old.get("workerGroupSpecs") or [])
    if (new.get("workerGroupSpecs") or [])[groups:]:
        new["workerGroupSpecs"] = new["workerGroupSpecs"][:groups]
        if _with_groups(old) == _with_groups(new):
            return Change.GROUPS
    return Change.NEW_CLUSTER


def _compared(cluster: Manifest) -> Manifest:
    found = copy.deepcopy(cluster)
    found.pop("upgradeStrategy", None)
    for group in found.get("workerGroupSpecs") or []:
        for key in SCALED:
            group.pop(key, None)
        (group.get("scaleStrategy") or {}).pop("workersToDelete", None)
    return found


def _with_groups(cluster: Manifest) -> Manifest:
    return cluster | {"workerGroupSpecs": cluster.get("workerGroupSpecs") or []}


def require_strategy(plan: Plan, strategy: str | None) -> None:
    """What was asked for can't always be had."""
    if strategy == "in-place" and plan.replaces_the_cluster:
        raise ConfigurationError(
            f"--strategy in-place: more than Serve's configuration differs ({', '.join(plan.paths[:6])}), so KubeRay "
            "would make a new cluster; leave these as they are, or take --strategy new-cluster"
        )
    if strategy == "new-cluster" and not plan.replaces_the_cluster:
        raise ConfigurationError(
            "--strategy new-cluster: the scenario has upgrade.strategy none, with which KubeRay makes no new cluster; "
            "--set upgrade.strategy=new-cluster"
        )


def with_rollout(service: Manifest, live: Manifest | None, anew: bool) -> Manifest:
    """The annotation that once forced a new cluster stays, or the next `up` would make yet another one."""
    value = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if anew else rollout_of(live)
    if value is None:
        return service
    marked = copy.deepcopy(service)
    metadata = marked["spec"]["rayClusterConfig"]["headGroupSpec"]["template"].setdefault("metadata", {})
    metadata.setdefault("annotations", {})[ROLLOUT] = value
    return marked


def rollout_of(live: Manifest | None) -> str | None:
    below: Any = live or {}
    for key in ("spec", "rayClusterConfig", "headGroupSpec", "template", "metadata", "annotations"):
        below = below.get(key) or {}
    value: str | None = below.get(ROLLOUT)
    return value


def has_given_up(live: Manifest | None) -> bool:
    """KubeRay does nothing more with a RayService that didn't start in time; only one made anew starts."""
    conditions = ((live or {}).get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one.get("reason") == "InitializingTimeout" for one in conditions)


def _differing(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Paths to what differs, no deeper than a person reads."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differing(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differing(old, new, f"{path}[{_name_of(new, index)}]")
    else:
        yield path


def _name_of(item: Any, index: int) -> str:
    return str(item.get("name") or item.get("groupName") or index) if isinstance(item, dict) else str(index)
