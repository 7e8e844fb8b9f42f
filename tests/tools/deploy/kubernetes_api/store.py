"""The objects and their versions."""

from typing import Any, NamedTuple

FIRST_VERSION = 1000


class Key(NamedTuple):
    group: str
    plural: str
    namespace: str
    name: str

    @property
    def resource(self):
        return self.group, self.plural


class Store:
    """Bodies are never changed in place: who wants to change one copies it and puts the copy."""

    def __init__(self):
        self.version = FIRST_VERSION
        self.bodies: dict[Key, dict[str, Any]] = {}

    def get(self, key):
        return self.bodies.get(key)

    def put(self, key, body):
        self.version += 1
        body = body | {"metadata": body["metadata"] | {"resourceVersion": str(self.version)}}
        self.bodies[key] = body
        return body

    def drop(self, key):
        return self.bodies.pop(key)

    def of(self, resource, namespace=""):
        """Keys and bodies of one resource, by namespace and name."""
        found = [
            (key, body)
            for key, body in self.bodies.items()
            if key.resource == resource and namespace in ("", key.namespace)
        ]
        return sorted(found, key=lambda pair: (pair[0].namespace, pair[0].name))
