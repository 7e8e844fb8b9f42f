"""Tries manifests and applies them, in order, one object at a time; running it again finishes what was begun."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.errors import NotFoundError
from serve_app.tools.deploy.api.objects import Manifest, Objects, label

KEPT = frozenset({"Namespace", "PersistentVolumeClaim"})  # which hold more than their manifests say
# of the cluster's own making, and different at every look
BOOKKEEPING = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")


@dataclass(frozen=True, slots=True)
class Trial:
    """What applying a manifest would do; `after` is None where its namespace isn't there yet."""

    manifest: Manifest
    before: Manifest | None
    after: Manifest | None

    @property
    def changes(self) -> bool:
        return self.before is None or self.after is None or content_of(self.before) != content_of(self.after)


def content_of(live: Manifest) -> Manifest:
    """What people decide on: no status, none of the cluster's bookkeeping."""
    content = {key: copy.deepcopy(value) for key, value in live.items() if key != "status"}
    for key in BOOKKEEPING:
        content["metadata"].pop(key, None)
    return content


def try_all(objects: Objects, manifests: Sequence[Manifest], force: bool = False) -> list[Trial]:
    """The cluster checks them as it would when applying, webhooks and all, and changes nothing."""
    return [try_one(objects, manifest, force) for manifest in manifests]


def try_one(objects: Objects, manifest: Manifest, force: bool = False) -> Trial:
    before = objects.live(manifest)
    try:
        return Trial(manifest, before, objects.apply(manifest, dry_run=True, force=force))
    except NotFoundError:
        if before is None and manifest["metadata"].get("namespace"):
            return Trial(manifest, None, None)
        raise


def apply_all(objects: Objects, manifests: Sequence[Manifest], say: Callable[[str], None], force: bool = False) -> None:
    for manifest in manifests:
        before = objects.live(manifest)
        after = objects.apply(manifest, force=force)
        done = "changed" if before is None or content_of(before) != content_of(after) else "unchanged"
        say(f"{label(manifest)} {'created' if before is None else done}")


def remove_all(objects: Objects, manifests: Sequence[Manifest], say: Callable[[str], None]) -> None:
    for manifest in manifests:
        if objects.delete(manifest):
            say(f"{label(manifest)} deleted")


def left_over(applied: Sequence[Manifest], wanted: Sequence[Manifest]) -> list[Manifest]:
    """What was applied once and is wanted no more, last first."""
    keep = {identity(one) for one in wanted}
    return [one for one in reversed(applied) if identity(one) not in keep and one["kind"] not in KEPT]


def identity(manifest: Manifest) -> tuple[str, str, str, str]:
    """The version isn't part of it: an object moves to a newer one of its API without being another."""
    group = manifest["apiVersion"].rpartition("/")[0]
    metadata = manifest["metadata"]
    return group, manifest["kind"], metadata.get("namespace") or "", metadata["name"]
