"""The Kubernetes side of an installation: namespaces, Secrets and manifests, told and made as calls to AWS are."""

from collections.abc import Callable, Mapping, Sequence

import yaml

from serve_app.tools.deploy.api.objects import Manifest, Objects, label
from serve_app.tools.deploy.api.target import FIELD_MANAGER, MANAGER_LABEL, RAY_API

MERGE = "application/merge-patch+json"


class Kube:
    """Without `objects` it is a rehearsal: it tells, as if nothing were there. Values of Secrets are told never."""

    def __init__(self, objects: Objects | None, say: Callable[[str], None]) -> None:
        self._objects = objects
        self._say = say

    def need_namespace(self, name: str) -> None:
        """One that is there belongs to whoever made it."""
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        if self._objects is None or self._objects.live(manifest) is None:
            self._say(f"kubernetes create Namespace/{name}")
            self._create(manifest)

    def has_secret(self, namespace: str, name: str, key: str, encoded: str | None = None) -> bool:
        """Whether the key is there, and with this value where one is given (base64, as the API shows it)."""
        found = self._objects.get("v1", "Secret", name, namespace) if self._objects else None
        data = (found or {}).get("data") or {}
        return bool(data.get(key)) and (encoded is None or data[key] == encoded)

    def set_secret(self, namespace: str, name: str, values: Mapping[str, str]) -> None:
        """Other keys of the Secret stay."""
        self._say(f"kubernetes set Secret/{name} in {namespace}: {', '.join(values)}")
        if self._objects is None:
            return
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "Opaque",
            "stringData": dict(values),
        }
        if self._objects.live(manifest) is None:
            self._create(manifest)
            return
        path = self._objects.kind("v1", "Secret").path(namespace, name)
        self._objects.connection.request("PATCH", path, body={"stringData": dict(values)}, content_type=MERGE)

    def apply(self, manifests: list[Manifest]) -> None:
        for manifest in manifests:
            self._say(f"kubernetes apply {label(manifest)}")
            if self._objects:
                self._objects.apply(manifest, force=True)

    def apply_text(self, text: str) -> None:
        self.apply([one for one in yaml.safe_load_all(text) if one])

    def delete_all(self, api_version: str, kind: str, namespace: str | None = None) -> None:
        if self._objects is None:
            self._say(f"kubernetes delete every {kind}{f' in {namespace}' if namespace else ''}")
            return
        for one in self._objects.list(api_version, kind, namespace):
            manifest = {"apiVersion": api_version, "kind": kind, "metadata": one["metadata"]}
            self._say(f"kubernetes delete {label(manifest)}")
            self._objects.delete(manifest)

    def names(self, api_version: str, kind: str, namespace: str | None = None) -> list[str]:
        """None of a kind that the cluster doesn't have."""
        if self._objects is None:
            return []
        return [one["metadata"]["name"] for one in self._objects.list(api_version, kind, namespace)]

    def services(self) -> list[tuple[str, str]]:
        """Namespace and name of each that scripts/deploy brought up."""
        if self._objects is None:
            return []
        found = self._objects.list(RAY_API, "RayService", labels=f"{MANAGER_LABEL}={FIELD_MANAGER}")
        return [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in found]

    def disks(self, namespaces: Sequence[str]) -> list[str]:
        """Those that go when nobody there claims them; one that is retained stays, and is somebody's wish."""
        found = []
        for one in self._objects.list("v1", "PersistentVolume") if self._objects else []:
            claim = one["spec"].get("claimRef") or {}
            if one["spec"].get("persistentVolumeReclaimPolicy") == "Delete" and claim.get("namespace") in namespaces:
                found.append(f"{one['metadata']['name']} ({claim['namespace']}/{claim['name']})")
        return found

    def _create(self, manifest: Manifest) -> None:
        if self._objects:
            kind = self._objects.kind(manifest["apiVersion"], manifest["kind"])
            path = kind.path(manifest["metadata"].get("namespace"))
            self._objects.connection.request("POST", path, {"fieldValidation": "Strict"}, manifest)
