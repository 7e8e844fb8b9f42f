"""The RayService that a command is about, and the names and labels of its objects."""

import re
from dataclasses import dataclass
from typing import Any

RAY_API = "ray.io/v1"
INSTANCE_LABEL = "app.kubernetes.io/instance"
MANAGER_LABEL = "app.kubernetes.io/managed-by"
FIELD_MANAGER = "serve-app-deploy"


def labels_of(instance: str) -> dict[str, str]:
    """The labels of everything that is applied for one service."""
    return {"app.kubernetes.io/name": "serve-app", INSTANCE_LABEL: instance, MANAGER_LABEL: FIELD_MANAGER}


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def labels(self) -> str:
        """A selector for everything that scripts/deploy applied."""
        return f"{INSTANCE_LABEL}={self.name},{MANAGER_LABEL}={FIELD_MANAGER}"

    @property
    def serve_service(self) -> str:
        return f"{self.name}-serve-svc"

    @property
    def head_service(self) -> str:
        return f"{self.name}-head-svc"

    def owns_cluster(self, cluster: str) -> bool:
        """KubeRay appends five characters to the RayService's name."""
        return re.fullmatch(rf"{re.escape(self.name)}-[a-z0-9]{{5}}", cluster) is not None

    def owns(self, pod: dict[str, Any]) -> bool:
        labels = pod["metadata"].get("labels") or {}
        return self.owns_cluster(labels.get("ray.io/cluster", "")) or labels.get(INSTANCE_LABEL) == self.name
