"""Deletes objects: at once, after their finalizers, with their dependents; and what is left behind by others."""

from copy import deepcopy

from kubernetes_api import failures
from kubernetes_api.store import Key
from kubernetes_api.times import now

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Deletion:
    def __init__(self, store, catalogue):
        self.store, self.catalogue = store, catalogue

    def delete(self, kind, key, options, dry_run=False):
        """The object where it stays for a while, else None."""
        body = self.store.get(key)
        if body is None:
            raise failures.not_found(kind, key.name)
        self.check_preconditions(kind, body, options.get("preconditions") or {})
        if dry_run:
            return body
        policy = options.get("propagationPolicy") or "Background"
        finalizers = list(body["metadata"].get("finalizers", ()))
        if policy == "Foreground" and FOREGROUND not in finalizers:
            finalizers.append(FOREGROUND)
        if policy == "Orphan":
            self.orphan(body)
        grace = options.get("gracePeriodSeconds")
        if kind.kind == "Pod" and grace is None:
            grace = body["spec"].get("terminationGracePeriodSeconds", 30)
        stays = finalizers or kind.kind == "Namespace" or (kind.kind == "Pod" and grace != 0)
        if not stays:
            self.drop(key)
            return None
        return self.mark(key, body, finalizers, grace)

    def mark(self, key, body, finalizers, grace):
        if body["metadata"].get("deletionTimestamp"):
            return body
        body = deepcopy(body)
        body["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace or 0}
        if finalizers:
            body["metadata"]["finalizers"] = finalizers
        if key.resource == ("", "namespaces"):
            body["status"]["phase"] = "Terminating"
        return self.store.put(key, body)

    def drop(self, key):
        body = self.store.drop(key)
        if key.plural == "customresourcedefinitions":
            for held, _ in self.store.of((body["spec"]["group"], body["spec"]["names"]["plural"])):
                self.store.drop(held)
            self.catalogue.forget(body)
        return body

    def orphan(self, owner):
        uid = owner["metadata"]["uid"]
        for key, body in list(self.store.bodies.items()):
            owners = body["metadata"].get("ownerReferences", ())
            if any(one["uid"] == uid for one in owners):
                kept = [one for one in owners if one["uid"] != uid]
                self.store.put(key, body | {"metadata": body["metadata"] | {"ownerReferences": kept}})

    def check_preconditions(self, kind, body, wanted):
        for name, value in wanted.items():
            if body["metadata"].get(name) != value:
                raise failures.outdated(kind, body["metadata"]["name"])

    def collect(self):
        """One turn of the garbage collector and of the namespaces' controller."""
        self.collect_dependents()
        self.finish_foreground()
        for key, body in self.store.of(("", "namespaces")):
            if body["metadata"].get("deletionTimestamp"):
                self.empty_namespace(key)

    def collect_dependents(self):
        alive = {body["metadata"]["uid"] for body in self.store.bodies.values()}
        waiting = {body["metadata"]["uid"] for body in self.store.bodies.values() if is_foreground(body)}
        for key, body in list(self.store.bodies.items()):
            owners = {one["uid"] for one in body["metadata"].get("ownerReferences", ())}
            if owners and not owners & (alive - waiting) and not body["metadata"].get("deletionTimestamp"):
                policy = "Foreground" if owners & waiting else "Background"
                self.delete(self.kind_of(key, body), key, {"propagationPolicy": policy})

    def finish_foreground(self):
        for key, body in list(self.store.bodies.items()):
            if is_foreground(body) and not self.dependents(body["metadata"]["uid"]):
                self.release(key, body, FOREGROUND)

    def dependents(self, uid):
        return [
            key
            for key, body in self.store.bodies.items()
            if any(one["uid"] == uid for one in body["metadata"].get("ownerReferences", ()))
        ]

    def release(self, key, body, finalizer):
        """Takes one finalizer away; without any, what is deleted goes."""
        finalizers = [one for one in body["metadata"].get("finalizers", ()) if one != finalizer]
        if not finalizers and body["metadata"].get("deletionTimestamp") and key.plural not in ("pods", "namespaces"):
            self.drop(key)
            return
        self.store.put(key, body | {"metadata": body["metadata"] | {"finalizers": finalizers}})

    def empty_namespace(self, key):
        inside = [(held, body) for held, body in self.store.bodies.items() if held.namespace == key.name]
        for held, body in inside:
            if not body["metadata"].get("deletionTimestamp"):
                self.delete(self.kind_of(held, body), held, {})
        if not inside:
            self.store.drop(key)

    def kind_of(self, key: Key, body):
        return self.catalogue.named(body["kind"], key.group)


def is_foreground(body):
    return body["metadata"].get("deletionTimestamp") and FOREGROUND in body["metadata"].get("finalizers", ())
