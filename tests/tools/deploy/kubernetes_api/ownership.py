"""Server-side apply: who owns which field (`metadata.managedFields`), conflicts, and what an apply changes."""

from copy import deepcopy
from dataclasses import dataclass, replace

from kubernetes_api import fields
from kubernetes_api.failures import StatusError
from kubernetes_api.schemas import schema_of
from kubernetes_api.times import now


@dataclass(frozen=True)
class Manager:
    name: str
    operation: str
    api_version: str
    paths: frozenset
    time: str
    subresource: str = ""

    @property
    def identity(self):
        return self.name, self.operation, self.subresource

    def without(self, paths):
        return replace(self, paths=self.paths - frozenset(paths))

    def shown(self):
        when = f" at {self.time}" if self.operation == "Update" else ""
        return f'"{self.name}" using {self.api_version}{when}'


def managers_of(body):
    return [
        Manager(
            one["manager"],
            one["operation"],
            one["apiVersion"],
            frozenset(fields.decoded(one.get("fieldsV1", {}))),
            one["time"],
            one.get("subresource", ""),
        )
        for one in body.get("metadata", {}).get("managedFields", ())
    ]


def entries_of(managers):
    entries = []
    for one in managers:
        if one.paths:
            entry = {"manager": one.name, "operation": one.operation, "apiVersion": one.api_version, "time": one.time}
            entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields.encoded(one.paths)}
            entries.append(entry | ({"subresource": one.subresource} if one.subresource else {}))
    return entries


def applied(kind, live, body, manager, force):
    """The object after `manager` has applied `body` to it; `live` is empty where there is none yet."""
    schema = schema_of(kind)
    wished = fields.wished(deepcopy(body))
    paths = frozenset(fields.fields_of(schema, wished))
    before = managers_of(live)
    mine = next((one for one in before if one.identity == (manager, "Apply", "")), None)
    others = [one for one in before if one is not mine]
    contested = {one.identity: conflicts(schema, live, wished, paths & one.paths) for one in others}
    if any(contested.values()) and not force:
        raise refusal([(one, contested[one.identity]) for one in others if contested[one.identity]])
    others = [one.without(contested[one.identity]) for one in others]
    result = fields.merged(schema, deepcopy(live), wished)
    if mine:
        result = without_dropped(schema, result, mine.paths - paths, others, paths)
    me = Manager(manager, "Apply", kind.api_version, paths, now())
    if mine and mine.paths == paths:
        me = mine
    result.setdefault("metadata", {})["managedFields"] = entries_of([*others, me])
    return result


def conflicts(schema, live, wished, paths):
    """Fields of another that would get another value."""
    leaves = fields.leaves_of(schema, wished)
    return {path for path in paths if path in leaves and fields.value_at(schema, live, path) != leaves[path]}


def without_dropped(schema, value, dropped, others, paths):
    """What its only owner doesn't apply any more goes."""
    owned = set(paths).union(*(one.paths for one in others))
    for path in sorted(dropped, key=len):  # an item of a list goes whole, before the key that names it
        if not any(other[: len(path)] == path for other in owned):
            value = fields.removed(schema, value, path)
    return value


def refusal(contested):
    causes, said, count = [], [], 0
    for manager, paths in contested:
        listed = sorted(fields.shown(path) for path in paths)
        count += len(listed)
        conflict = f"conflict with {manager.shown()}"
        causes += [{"reason": "FieldManagerConflict", "message": conflict, "field": path} for path in listed]
        said.append((manager, listed))
    if count == 1:
        message = f"conflict with {said[0][0].shown()}: {said[0][1][0]}"
    else:
        message = "\n".join(
            f"conflicts with {manager.shown()}:\n" + "\n".join(f"- {path}" for path in listed)
            for manager, listed in said
        )
    plural = "" if count == 1 else "s"
    return StatusError(409, "Conflict", f"Apply failed with {count} conflict{plural}: {message}", {"causes": causes})


def updated(kind, live, body, manager, subresource=""):
    """Sets the managers of a body that was written as a whole or patched: who changes a field owns it."""
    schema = schema_of(kind)
    old, new = part(live, subresource), part(body, subresource)
    before, after = fields.leaves_of(schema, old), fields.leaves_of(schema, new)
    there = fields.fields_of(schema, new)
    changed = {path for path in after if path and (path not in before or before[path] != after[path])}
    items = there - set(after) - fields.fields_of(schema, old)
    owners = []
    for one in managers_of(live):
        kept = one.paths if one.subresource != subresource else one.paths & there
        owners.append(one if one.identity == (manager, "Update", subresource) else replace(one, paths=kept - changed))
    mine = next((one for one in owners if one.identity == (manager, "Update", subresource)), None)
    if changed:
        paths = frozenset(changed | items) | (mine.paths & there if mine else frozenset())
        owners = [one for one in owners if one is not mine]
        owners.append(Manager(manager, "Update", kind.api_version, paths, now(), subresource))
    body["metadata"]["managedFields"] = entries_of(owners)


def part(body, subresource):
    return {"status": body.get("status", {})} if subresource == "status" else fields.wished(body)
