"""The objects, their versions, and what happened to them, for whoever watches."""

import asyncio
from collections import deque
from typing import Any, NamedTuple

from kubernetes_api.failures import StatusError, gone

FIRST_VERSION = 1000
KEPT_CHANGES = 20_000


class Key(NamedTuple):
    group: str
    plural: str
    namespace: str
    name: str

    @property
    def resource(self):
        return self.group, self.plural


class Change(NamedTuple):
    version: int
    what: str  # ADDED, MODIFIED or DELETED
    key: Key
    body: dict[str, Any]
    before: dict[str, Any] | None


class Store:
    """Bodies are never changed in place: who wants to change one copies it and puts the copy."""

    def __init__(self):
        self.version = FIRST_VERSION
        self.floor = FIRST_VERSION  # changes before it are forgotten
        self.bodies: dict[Key, dict[str, Any]] = {}
        self.changes: deque[Change] = deque(maxlen=KEPT_CHANGES)
        self.watchers: set[asyncio.Queue[Change | StatusError | None]] = set()

    def get(self, key):
        return self.bodies.get(key)

    def put(self, key, body):
        before = self.bodies.get(key)
        body = self.numbered(body)
        self.bodies[key] = body
        self.tell(Change(self.version, "ADDED" if before is None else "MODIFIED", key, body, before))
        return body

    def drop(self, key):
        before = self.bodies.pop(key)
        body = self.numbered(before)
        self.tell(Change(self.version, "DELETED", key, body, before))
        return body

    def numbered(self, body):
        self.version += 1
        return body | {"metadata": body["metadata"] | {"resourceVersion": str(self.version)}}

    def tell(self, change):
        if len(self.changes) == KEPT_CHANGES:
            self.floor = self.changes[0].version
        self.changes.append(change)
        for queue in self.watchers:
            queue.put_nowait(change)

    def of(self, resource, namespace=""):
        """Keys and bodies of one resource, by namespace and name."""
        found = [
            (key, body)
            for key, body in self.bodies.items()
            if key.resource == resource and namespace in ("", key.namespace)
        ]
        return sorted(found, key=lambda pair: (pair[0].namespace, pair[0].name))

    def since(self, version):
        """Changes after a version; None where they aren't remembered."""
        if version < self.floor:
            return None
        return [change for change in self.changes if change.version > version]

    def forget(self):
        """Older versions can't be watched from any more, and running watches end."""
        self.floor = self.version
        self.changes.clear()
        self.end_watches(gone())

    def end_watches(self, failure=None):
        for queue in self.watchers:
            queue.put_nowait(failure)
