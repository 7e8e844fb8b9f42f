"""Deletes objects: at once, after their finalizers, with their dependents; and what is left behind by others."""

from copy import deepcopy

from kubernetes_api import failures
from kubernetes_api.store import Key
from kubernetes_api.times import now


class Deletion:
    def __init__(self, store, catalogue):
        self.store, self.catalogue = store, catalogue

    def delete(self, kind, key, grace=None):
        """The object where it stays for a while, else None."""
        body = self.store.get(key)
        if body is None:
            raise failures.not_found(kind, key.name)
        if kind.kind == "Pod" and grace is None:
            grace = body["spec"].get("terminationGracePeriodSeconds", 30)
        if body["metadata"].get("finalizers") or kind.kind == "Namespace" or (kind.kind == "Pod" and grace != 0):
            return self.mark(key, body, grace)
        self.drop(key)
        return None

    def mark(self, key, body, grace):
        if body["metadata"].get("deletionTimestamp"):
            return body
        body = deepcopy(body)
        body["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace or 0}
        if key.resource == ("", "namespaces"):
            body["status"]["phase"] = "Terminating"
        return self.store.put(key, body)

    def drop(self, key):
        return self.store.drop(key)

    def collect(self):
        """One turn of the garbage collector and of the namespaces' controller."""
        self.collect_dependents()
        for key, body in self.store.of(("", "namespaces")):
            if body["metadata"].get("deletionTimestamp"):
                self.empty_namespace(key)

    def collect_dependents(self):
        alive = {body["metadata"]["uid"] for body in self.store.bodies.values()}
        for key, body in list(self.store.bodies.items()):
            owners = {one["uid"] for one in body["metadata"].get("ownerReferences", ())}
            if owners and not owners & alive and not body["metadata"].get("deletionTimestamp"):
                self.delete(self.kind_of(key, body), key)

    def empty_namespace(self, key):
        inside = [(held, body) for held, body in self.store.bodies.items() if held.namespace == key.name]
        for held, body in inside:
            if not body["metadata"].get("deletionTimestamp"):
                self.delete(self.kind_of(held, body), held)
        if not inside:
            self.store.drop(key)

    def kind_of(self, key: Key, body):
        return self.catalogue.named(body["kind"], key.group)
