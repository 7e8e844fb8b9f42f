"""Writes objects: what is checked, kept, counted and owned when one is created, replaced, patched or applied."""

import uuid
from copy import deepcopy
from dataclasses import dataclass

from kubernetes_api import failures, ownership, patches
from kubernetes_api.admission import complete
from kubernetes_api.store import Key, Store
from kubernetes_api.times import now
from kubernetes_api.validation import review


@dataclass(frozen=True)
class Wish:
    """How a write is wished for: the query of its request."""

    manager: str = "kubernetes-api"
    dry_run: bool = False
    force: bool = False
    subresource: str = ""


class Writing:
    def __init__(self, store: Store, catalogue):
        self.store, self.catalogue = store, catalogue

    def key(self, kind, namespace, name):
        return Key(kind.group, kind.plural, namespace if kind.namespaced else "", name)

    def read(self, kind, namespace, name):
        body = self.store.get(self.key(kind, namespace, name))
        if body is None:
            raise failures.not_found(kind, name)
        return body

    def create(self, kind, namespace, body, wish):
        body = deepcopy(body)
        metadata = body.setdefault("metadata", {})
        name = metadata.get("name", "")
        self.check_place(kind, namespace, name)
        body = self.reviewed(kind, body)
        if self.store.get(self.key(kind, namespace, name)):
            raise failures.already_exists(kind, name)
        body["metadata"].pop("managedFields", None)
        self.start(kind, namespace, body)
        ownership.updated(kind, {}, body, wish.manager)
        return self.keep(kind, None, body, wish)

    def replace(self, kind, namespace, name, body, wish):
        """PUT; it creates nothing."""
        live = self.read(kind, namespace, name)
        body = deepcopy(body)
        body = self.reviewed(kind, body)
        return self.rewrite(kind, live, body, wish)

    def patch(self, kind, namespace, name, patch, wish):
        live = self.read(kind, namespace, name)
        body = self.reviewed(kind, deepcopy(patches.merge(live, patch)))
        return self.rewrite(kind, live, body, wish)

    def apply(self, kind, namespace, name, body, wish):
        """Server-side apply: creates what isn't there."""
        body.setdefault("metadata", {})["name"] = name
        self.check_place(kind, namespace, name)
        live = self.store.get(self.key(kind, namespace, name))
        _, unknown, _ = review(kind, body)
        if unknown:
            raise failures.untyped_patch(kind, namespace, name, unknown)
        if live is None:
            fresh = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
            self.start(kind, namespace, fresh)
            result = ownership.applied(kind, fresh, body, wish.manager, wish.force)
            return self.keep(kind, None, self.reviewed(kind, result), wish)
        self.check_version(kind, live, body)
        result = self.reviewed(kind, ownership.applied(kind, live, body, wish.manager, wish.force))
        return self.keep(kind, live, self.carried_on(kind, live, result, wish), wish)

    def rewrite(self, kind, live, body, wish):
        self.check_version(kind, live, body)
        body = self.carried_on(kind, live, body, wish)
        body["metadata"]["managedFields"] = live["metadata"].get("managedFields", [])
        ownership.updated(kind, live, body, wish.manager, wish.subresource)
        return self.keep(kind, live, body, wish)

    def carried_on(self, kind, live, body, wish):
        """What a write can't change stays as it was."""
        if wish.subresource == "status":
            body = deepcopy(live) | {"status": body.get("status", {})}
        elif "status" in kind.subresources:
            body.pop("status", None)
            body |= {"status": live["status"]} if "status" in live else {}
        old, metadata = live["metadata"], body["metadata"]
        for name in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(name, None)
            metadata |= {name: old[name]} if name in old else {}
        metadata["name"] = old["name"]
        metadata |= {"namespace": old["namespace"]} if "namespace" in old else {}
        if kind.counted and ownership.part(live, "").get("spec") != ownership.part(body, "").get("spec"):
            metadata["generation"] = old.get("generation", 0) + 1
        return body

    def start(self, kind, namespace, body):
        body["apiVersion"], body["kind"] = kind.api_version, kind.kind
        metadata = body["metadata"]
        for name in ("resourceVersion", "deletionTimestamp", "selfLink"):
            metadata.pop(name, None)
        if kind.namespaced:
            metadata["namespace"] = namespace
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if kind.counted:
            metadata["generation"] = 1
        if "status" in kind.subresources and kind.kind != "Node":
            body.pop("status", None)

    def keep(self, kind, live, body, wish):
        complete(kind, body, live)
        if live is not None and comparable(live) == comparable(body):
            return live
        if wish.dry_run:
            return body | {"metadata": body["metadata"] | {"resourceVersion": str(self.store.version)}}
        metadata = body["metadata"]
        key = self.key(kind, metadata.get("namespace", ""), metadata["name"])
        if kind.kind == "CustomResourceDefinition":
            self.catalogue.define(body)
        kept = self.store.put(key, body)
        if (
            metadata.get("deletionTimestamp")
            and not metadata.get("finalizers")
            and kind.kind not in ("Pod", "Namespace")
        ):
            self.store.drop(key)
        return kept

    def reviewed(self, kind, body):
        pruned, _, problems = review(kind, body)
        if problems:
            raise failures.invalid(kind, body["metadata"].get("name", ""), problems)
        return pruned

    def check_place(self, kind, namespace, name):
        if not kind.namespaced:
            return
        home = self.store.get(Key("", "namespaces", "", namespace))
        if home is None:
            raise failures.not_found(self.catalogue.named("Namespace"), namespace)
        fresh = self.store.get(self.key(kind, namespace, name)) is None
        if fresh and home["status"]["phase"] == "Terminating":
            raise failures.terminating(kind, name, namespace)

    def check_version(self, kind, live, body):
        metadata = body.get("metadata") or {}
        for name in ("resourceVersion", "uid"):
            if metadata.get(name) and metadata[name] != live["metadata"][name]:
                raise failures.outdated(kind, live["metadata"]["name"])


def comparable(body):
    """A body without what alone makes no change."""
    kept = {"resourceVersion", "managedFields"}
    metadata = {name: value for name, value in body["metadata"].items() if name not in kept}
    managed = body["metadata"].get("managedFields", ())
    owners = [{name: value for name, value in one.items() if name != "time"} for one in managed]
    return body | {"metadata": metadata, "owners": owners}
