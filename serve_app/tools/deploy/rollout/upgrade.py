"""What KubeRay does with a change of a RayService: an in-place update, a new cluster, or nothing."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.rollout.apply import DryRun, content_of

ROLLOUT = "serve-app/rollout"  # annotation of the head's pod template: a new value makes KubeRay create a new cluster
CONFIGURATION = "serveConfigV2"
HURRIES = "; the running cluster takes the new configuration at once as well, --strategy staged leaves it as it is"
# KubeRay ignores these when it compares clusters: the autoscaler changes them.
SCALED = ("replicas", "minReplicas", "maxReplicas")


class Change(Enum):
    CREATE = "a new service"
    NONE = "no change to the RayService"
    IN_PLACE = "in-place update: Serve updates its applications in the running cluster"
    GROUPS = "in-place update: the new worker groups join the running cluster"
    SCALE = "in-place update: groups of workers get other limits"
    NEW_CLUSTER = "new cluster: it takes over from the running one once it serves"
    FROZEN = "no effect: upgrade.strategy none keeps the running cluster unchanged"
    SETTINGS = "in-place update of RayService settings; its cluster doesn't change"


@dataclass(frozen=True, slots=True)
class Plan:
    change: Change
    paths: tuple[str, ...] = ()  # of the fields that differ

    def __str__(self) -> str:
        shown = ", ".join(self.paths[:6]) + (", …" if len(self.paths) > 6 else "")
        return self.change.value + (f" (changed: {shown})" if shown else "") + (HURRIES if self.hurries else "")

    @property
    def hurries(self) -> bool:
        """KubeRay gives a new Serve configuration to the running cluster too (ray-project/kuberay#3423)."""
        return self.replaces_cluster and CONFIGURATION in self.paths

    @property
    def replaces_cluster(self) -> bool:
        return self.change is Change.NEW_CLUSTER


def plan_of(run: DryRun) -> Plan:
    if run.before is None:
        return Plan(Change.CREATE)
    before = content_of(run.before)["spec"]
    after = content_of(run.after or run.manifest)["spec"]
    paths = tuple(_differing(before, after))
    cluster = _cluster_change(before.get("rayClusterConfig") or {}, after.get("rayClusterConfig") or {})
    if cluster is Change.NEW_CLUSTER and (after.get("upgradeStrategy") or {}).get("type") == "None":
        cluster = Change.FROZEN
    serve = before.get(CONFIGURATION) != after.get(CONFIGURATION)
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
    had, has = old.pop("workerGroupSpecs", []), new.pop("workerGroupSpecs", [])
    if old == new and has[len(had) :] and has[: len(had)] == had:
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


def require_strategy(plan: Plan, strategy: str | None) -> None:
    if strategy == "in-place" and plan.replaces_cluster:
        raise ConfigurationError(
            f"--strategy in-place: this change needs a new cluster ({', '.join(plan.paths[:6])}); "
            "undo it, or use --strategy new-cluster"
        )
    if strategy == "new-cluster" and not plan.replaces_cluster:
        raise ConfigurationError(
            "--strategy new-cluster: the scenario's upgrade.strategy is none; add --set upgrade.strategy=new-cluster"
        )


def with_configuration_of(live: Manifest, service: Manifest) -> Manifest:
    """The first stage: what runs now, in the new cluster."""
    return service | {"spec": service["spec"] | {CONFIGURATION: live["spec"].get(CONFIGURATION)}}


def with_rollout_mark(service: Manifest, live: Manifest | None, new_cluster: bool) -> Manifest:
    """Keeps the annotation that forced a new cluster: without it the next `up` would create another one."""
    value = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if new_cluster else rollout_mark_of(live)
    if value is None:
        return service
    marked = copy.deepcopy(service)
    metadata = marked["spec"]["rayClusterConfig"]["headGroupSpec"]["template"].setdefault("metadata", {})
    metadata.setdefault("annotations", {})[ROLLOUT] = value
    return marked


def rollout_mark_of(live: Manifest | None) -> str | None:
    below: Any = live or {}
    for key in ("spec", "rayClusterConfig", "headGroupSpec", "template", "metadata", "annotations"):
        below = below.get(key) or {}
    value: str | None = below.get(ROLLOUT)
    return value


def has_timed_out(live: Manifest | None) -> bool:
    """KubeRay ignores a RayService that didn't initialize in time; only a new one starts."""
    conditions = ((live or {}).get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one.get("reason") == "InitializingTimeout" for one in conditions)


def _differing(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Paths of the fields that differ; lists of different lengths differ as a whole."""
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
