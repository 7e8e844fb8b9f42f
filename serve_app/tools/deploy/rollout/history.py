"""Revisions: the last ten sets of applied manifests, without Secrets, in ConfigMaps beside the service."""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.api.objects import Manifest, Objects
from serve_app.tools.deploy.api.target import Target, labels_of

KEPT = 10
REVISION_LABEL = "serve-app/revision"
ANNOTATIONS = "serve-app/"
CONTENT = "manifests.json.gz"


@dataclass(frozen=True, slots=True)
class Revision:
    """`state`: begun, then applied once everything is, then served once it was seen serving."""

    number: int
    scenario: str
    why: str
    at: str
    state: str
    digest: str
    manifests: tuple[Manifest, ...]
    returns_to: int | None = None

    @property
    def complete(self) -> bool:
        return self.state != "begun"

    @property
    def served(self) -> bool:
        return self.state == "served"


class History:
    def __init__(self, objects: Objects, target: Target) -> None:
        self._objects = objects
        self._target = target

    def revisions(self) -> list[Revision]:
        """Oldest first."""
        labels = f"{self._target.labels},{REVISION_LABEL}"
        found = self._objects.list("v1", "ConfigMap", self._target.namespace, labels)
        return sorted((revision_of(one) for one in found), key=lambda one: one.number)

    def begin(self, manifests: Sequence[Manifest], scenario: str, why: str, returns_to: int | None = None) -> Revision:
        """Recorded before anything is applied, so that an interrupted run can be cleaned up."""
        kept = tuple(one for one in manifests if one["kind"] != "Secret")
        before = self.revisions()
        if before and before[-1].digest == digest_of(kept):
            return before[-1]
        number = before[-1].number + 1 if before else 1
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        revision = Revision(number, scenario, why, now, "begun", digest_of(kept), kept, returns_to)
        self._write(revision)
        served = last_served(before)  # kept for a rollback, however many failed since
        removable = [one for one in before if one is not served]
        for old in removable[: max(0, len(before) + 1 - KEPT)]:
            self._objects.delete(config_map_of(old, self._target))
        return revision

    def mark(self, revision: Revision, state: str) -> None:
        if state != revision.state and not revision.served:
            self._write(replace(revision, state=state))

    def _write(self, revision: Revision) -> None:
        self._objects.apply(config_map_of(revision, self._target), force=True)

    def latest(self) -> Revision:
        return self._known()[-1]

    def _known(self) -> list[Revision]:
        revisions = self.revisions()
        if not revisions:
            raise ConfigurationError(f"{self._target} has no revisions: nothing was applied by scripts/deploy yet")
        return revisions

    def find(self, number: int | None = None) -> Revision:
        """The revision with this number, else the last earlier one that served, else the last complete one."""
        revisions = self._known()
        known = ", ".join(str(one.number) for one in revisions)
        if number is not None:
            found = next((one for one in revisions if one.number == number), None)
            if found is None:
                raise ConfigurationError(f"{self._target} has no revision {number}; known: {known}")
            return found
        latest = revisions[-1]
        # a second rollback goes further back, not to where the first one started
        before = latest.returns_to or latest.number
        earlier = [one for one in revisions if one.number < before and one.complete and one.digest != latest.digest]
        if not earlier:
            raise ConfigurationError(f"{self._target} has no complete revision before {before}; known: {known}")
        return last_served(earlier) or earlier[-1]


def last_served(revisions: Sequence[Revision]) -> Revision | None:
    return next((one for one in reversed(revisions) if one.served), None)


def digest_of(manifests: Sequence[Manifest]) -> str:
    return hashlib.sha256(json.dumps(list(manifests), sort_keys=True).encode()).hexdigest()[:16]


def config_map_of(revision: Revision, target: Target) -> Manifest:
    packed = gzip.compress(json.dumps(revision.manifests, sort_keys=True).encode(), mtime=0)
    notes = {
        "scenario": revision.scenario,
        "why": revision.why,
        "at": revision.at,
        "state": revision.state,
        "sum": revision.digest,
    }
    if revision.returns_to is not None:
        notes["returns-to"] = str(revision.returns_to)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{target.name}-revision-{revision.number}",
            "namespace": target.namespace,
            "labels": labels_of(target.name) | {REVISION_LABEL: str(revision.number)},
            "annotations": {f"{ANNOTATIONS}{key}": value for key, value in notes.items()},
        },
        "binaryData": {CONTENT: base64.b64encode(packed).decode()},
    }


def revision_of(config_map: Manifest) -> Revision:
    metadata = config_map["metadata"]
    notes = {key.removeprefix(ANNOTATIONS): value for key, value in (metadata.get("annotations") or {}).items()}
    try:
        packed = base64.b64decode(config_map["binaryData"][CONTENT])
        manifests = json.loads(gzip.decompress(packed))
        number = int(metadata["labels"][REVISION_LABEL])
    except (KeyError, ValueError, OSError, EOFError):
        raise ConfigurationError(
            f"ConfigMap {metadata['name']} isn't a valid revision; delete it if it isn't needed"
        ) from None
    return Revision(
        number,
        notes.get("scenario", ""),
        notes.get("why", ""),
        notes.get("at", ""),
        notes.get("state", "begun"),
        notes.get("sum", ""),
        tuple(manifests),
        int(notes["returns-to"]) if "returns-to" in notes else None,
    )
