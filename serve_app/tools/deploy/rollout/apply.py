"""Applies manifests in order, one object at a time; applying them again finishes an interrupted run."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.errors import NotFoundError
from serve_app.tools.deploy.api.objects import Manifest, Objects, label

KEPT = frozenset({"Namespace", "PersistentVolumeClaim"})  # they contain more than their manifests
BOOKKEEPING = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")


@dataclass(frozen=True, slots=True)
class DryRun:
    """What applying a manifest would do; `after` is None if its namespace doesn't exist yet."""

    manifest: Manifest
    before: Manifest | None
    after: Manifest | None

    @property
    def changes(self) -> bool:
        return self.before is None or self.after is None or content_of(self.before) != content_of(self.after)


def content_of(live: Manifest) -> Manifest:
    """An object without its status and the cluster's bookkeeping."""
    content = {key: copy.deepcopy(value) for key, value in live.items() if key != "status"}
    for key in BOOKKEEPING:
        content["metadata"].pop(key, None)
    if live["kind"] == "RayService":
        content["spec"] = without_empty(live.get("spec") or {})
    return content


def without_empty(value: Any) -> Any:
    """KubeRay's operator writes the whole object, with empty fields of its own and without those that we gave."""
    if isinstance(value, dict):
        kept = {key: without_empty(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in ({}, [], None)}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


def dry_run_all(objects: Objects, manifests: Sequence[Manifest], force: bool = False) -> list[DryRun]:
    """The cluster validates them as when applying, webhooks included, and changes nothing."""
    return [dry_run(objects, manifest, force) for manifest in manifests]


def dry_run(objects: Objects, manifest: Manifest, force: bool = False) -> DryRun:
    before = objects.live(manifest)
    try:
        return DryRun(manifest, before, objects.apply(manifest, dry_run=True, force=force))
    except NotFoundError:
        if before is None and manifest["metadata"].get("namespace"):
            return DryRun(manifest, None, None)
        raise


def apply_all(objects: Objects, runs: Sequence[DryRun], say: Callable[[str], None], force: bool = False) -> None:
    """What wouldn't change isn't touched: our empty fields in place of the operator's would be a new generation."""
    for run in runs:
        if run.changes:
            objects.apply(run.manifest, force=force)
        done = "changed" if run.changes else "unchanged"
        say(f"{label(run.manifest)} {'created' if run.before is None else done}")


def delete_all(objects: Objects, manifests: Sequence[Manifest], say: Callable[[str], None]) -> None:
    for manifest in manifests:
        if objects.delete(manifest):
            say(f"{label(manifest)} deleted")


def obsolete(applied: Sequence[Manifest], wanted: Sequence[Manifest]) -> list[Manifest]:
    """Objects that were applied and aren't wanted any more, last first."""
    keep = {identity(one) for one in wanted}
    return [one for one in reversed(applied) if identity(one) not in keep and one["kind"] not in KEPT]


def identity(manifest: Manifest) -> tuple[str, str, str, str]:
    """Without the API version: an object stays the same when its API gets a newer one."""
    group = manifest["apiVersion"].rpartition("/")[0]
    metadata = manifest["metadata"]
    return group, manifest["kind"], metadata.get("namespace") or "", metadata["name"]
