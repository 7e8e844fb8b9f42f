"""Kubernetes objects of an installation, over deploy/api: each change is printed before it is made."""

from collections.abc import Callable
from typing import Any

import yaml

from serve_app.tools.deploy.api.objects import Manifest, Objects, label

MERGE = "application/merge-patch+json"


class ClusterObjects:
    """Without `objects` it is a dry run: changes are printed only, and the cluster is taken to be empty."""

    def __init__(self, objects: Objects | None, say: Callable[[str], None]) -> None:
        self._objects = objects
        self._say = say

    def get(self, manifest: Manifest) -> dict[str, Any] | None:
        return self._objects.live(manifest) if self._objects else None

    def list(self, api_version: str, kind: str, namespace: str | None = None, labels: str = "") -> list[dict[str, Any]]:
        """Empty where the cluster doesn't have the kind."""
        return self._objects.list(api_version, kind, namespace, labels) if self._objects else []

    def create(self, manifest: Manifest) -> None:
        if self._objects:
            kind = self._objects.kind(manifest["apiVersion"], manifest["kind"])
            path = kind.path(manifest["metadata"].get("namespace"))
            self._objects.connection.request("POST", path, {"fieldValidation": "Strict"}, manifest)

    def create_namespace(self, name: str) -> None:
        """An existing one stays as it is."""
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        if self.get(manifest) is None:
            self._say(f"kubernetes create {label(manifest)}")
            self.create(manifest)

    def set_secret(self, namespace: str, name: str, values: dict[str, str]) -> None:
        """Create the Secret or set these keys of it; values are never printed."""
        metadata = {"name": name, "namespace": namespace}
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": values}
        self._say(f"kubernetes set {label(manifest)} in {namespace}: {', '.join(values)}")
        if self.get(manifest) is None:
            self.create(manifest)
        elif self._objects:
            path = self._objects.kind("v1", "Secret").path(namespace, name)
            self._objects.connection.request("PATCH", path, body={"stringData": values}, content_type=MERGE)

    def apply(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            self._say(f"kubernetes apply {label(manifest)}")
            if self._objects:
                self._objects.apply(manifest, force=True)

    def apply_yaml(self, text: str) -> None:
        self.apply(*(manifest for manifest in yaml.safe_load_all(text) if manifest))

    def delete_all(self, api_version: str, kind: str, namespace: str | None = None) -> None:
        if self._objects is None:
            self._say(f"kubernetes delete every {kind}{f' in {namespace}' if namespace else ''}")
            return
        for found in self._objects.list(api_version, kind, namespace):
            manifest = {"apiVersion": api_version, "kind": kind, "metadata": found["metadata"]}
            self._say(f"kubernetes delete {label(manifest)}")
            self._objects.delete(manifest)
