"""The cluster's objects by kind and name: discovery, get, list, apply, delete and access reviews."""

from dataclasses import dataclass
from typing import Any

from serve_app.errors import ConfigurationError, NotFoundError
from serve_app.tools.deploy.api.connection import ConflictError, Connection
from serve_app.tools.deploy.api.target import FIELD_MANAGER

Manifest = dict[str, Any]

APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource type from API discovery."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        prefix = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{prefix}{scope}/{self.plural}" + (f"/{name}" if name else "")


class Objects:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._kinds: dict[str, dict[str, Kind]] = {}
        self._allowed: dict[tuple[str, Kind, str | None], bool] = {}

    def find_kind(self, api_version: str, kind: str) -> Kind | None:
        """None if the cluster doesn't have it, as before an operator is installed."""
        if kind not in self._kinds.get(api_version, {}):  # it may be installed meanwhile
            self._kinds[api_version] = self._discover(api_version)
        return self._kinds[api_version].get(kind)

    def kind(self, api_version: str, kind: str) -> Kind:
        found = self.find_kind(api_version, kind)
        if found is None:
            raise NotFoundError(f"the cluster has no {kind} of {api_version}")
        return found

    def _discover(self, api_version: str) -> dict[str, Kind]:
        try:
            answer = self.connection.request("GET", Kind(api_version, "", "", False).path().rstrip("/"))
        except NotFoundError:
            return {}
        return {
            one["kind"]: Kind(api_version, one["kind"], one["name"], bool(one.get("namespaced")))
            for one in answer.get("resources") or []
            if "/" not in one["name"]
        }

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        try:
            return self.connection.request("GET", self.kind(api_version, kind).path(namespace, name))
        except NotFoundError:
            return None

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        """All selected objects of a kind; empty if the cluster doesn't have the kind."""
        found = self.find_kind(api_version, kind)
        if found is None:
            return []
        query = {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        return list(self.connection.request("GET", found.path(namespace), query).get("items") or [])

    def live(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        metadata = manifest["metadata"]
        return self.get(manifest["apiVersion"], manifest["kind"], metadata["name"], metadata.get("namespace"))

    def apply(self, manifest: dict[str, Any], dry_run: bool = False, force: bool = False) -> dict[str, Any]:
        """Server-side apply: creates or updates it, and keeps fields of other managers but those of its operator.

        KubeRay's operator writes a RayService as a whole, and so owns every list of it that Go writes differently:
        `workerGroupSpecs`, as soon as it runs. What is in our manifests is ours; what isn't stays the operator's.
        """
        try:
            return self._apply(manifest, dry_run, force)
        except ConflictError as problem:
            if problem.managers and problem.managers <= operators_of(self.live(manifest) or {}):
                return self._apply(manifest, dry_run, force=True)
            advice = "; --force-conflicts overwrites these fields" if problem.managers else ""
            raise ConfigurationError(f"{label(manifest)}: {problem.message}{advice}") from None

    def _apply(self, manifest: dict[str, Any], dry_run: bool, force: bool) -> dict[str, Any]:
        metadata = manifest["metadata"]
        path = self.kind(manifest["apiVersion"], manifest["kind"]).path(metadata.get("namespace"), metadata["name"])
        query: dict[str, str | bool] = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": force}
        if dry_run:
            query["dryRun"] = "All"
        try:
            return self.connection.request("PATCH", path, query, manifest, APPLY)
        except ConflictError:
            raise
        except ConfigurationError as problem:
            raise ConfigurationError(f"{label(manifest)}: {problem.message}") from None

    def merge(self, live: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
        """A merge patch; with a resourceVersion in it, a ConflictError if somebody else was first."""
        metadata = live["metadata"]
        path = self.kind(live["apiVersion"], live["kind"]).path(metadata.get("namespace"), metadata["name"])
        return self.connection.request("PATCH", path, {"fieldManager": FIELD_MANAGER}, change, MERGE)

    def delete(self, manifest: dict[str, Any]) -> bool:
        """False if it doesn't exist."""
        metadata = manifest["metadata"]
        found = self.find_kind(manifest["apiVersion"], manifest["kind"])
        if found is None:
            return False
        try:
            path = found.path(metadata.get("namespace"), metadata["name"])
            self.connection.request("DELETE", path, {"propagationPolicy": "Background"})
        except NotFoundError:
            return False
        return True

    def allows(self, verb: str, kind: Kind, namespace: str | None) -> bool:
        """By the cluster's access review, asked once per run."""
        asked = (verb, kind, namespace)
        if asked not in self._allowed:
            self._allowed[asked] = self._review(verb, kind, namespace)
        return self._allowed[asked]

    def _review(self, verb: str, kind: Kind, namespace: str | None) -> bool:
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural}
        if kind.namespaced and namespace:
            attributes["namespace"] = namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self.connection.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
        return bool((answer.get("status") or {}).get("allowed"))


def operators_of(live: dict[str, Any]) -> set[str]:
    """The managers that write its status."""
    entries = live.get("metadata", {}).get("managedFields") or []
    return {one["manager"] for one in entries if one.get("subresource") == "status"} - {FIELD_MANAGER}


def label(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"
