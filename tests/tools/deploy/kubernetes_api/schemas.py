"""Schemas of kinds: the built-in ones from kubernetes_validate, loaded when they are first wanted, and the CRDs'."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

VERSION = "1.34.0"
METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@cache
def definitions():
    package = Path(find_spec("kubernetes_validate").origin).parent  # its data alone: nothing of it is imported
    folder = package / "kubernetes-json-schema" / f"v{VERSION}-local-strict"
    return json.loads((folder / "_definitions.json").read_bytes())["$defs"]


@cache
def builtin_schema(group, version, kind):
    wanted = {"group": group, "kind": kind, "version": version}
    return next(
        (one for one in definitions().values() if wanted in one.get("x-kubernetes-group-version-kind", ())), None
    )


def schema_of(kind):
    """The schema of a kind; what a custom resource's leaves open (its metadata) is filled in."""
    if kind.schema is None:
        return builtin_schema(kind.group, kind.version, kind.kind) or {"type": "object"}
    common = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": definitions()[METADATA]}
    return kind.schema | {"properties": kind.schema.get("properties", {}) | common}


def resolved(schema):
    """The schema itself where it is only a reference to another."""
    while schema and "$ref" in schema:
        schema = definitions()[schema["$ref"].removeprefix("#/$defs/")]
    return schema or {}


def of_property(schema, name):
    schema = resolved(schema)
    found = schema.get("properties", {}).get(name)
    if found is None and isinstance(schema.get("additionalProperties"), dict):
        found = schema["additionalProperties"]
    return resolved(found)


def of_item(schema):
    return resolved(resolved(schema).get("items"))


def is_atomic(schema, value):
    """Whether server-side apply takes the value as one: a scalar, a list without keys, a map that is marked."""
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") == "atomic"
    if isinstance(value, list):
        return schema.get("x-kubernetes-list-type", "atomic") not in ("map", "set")
    return True


def keys_of(schema, item):
    """What names an item of a list in server-side apply."""
    names = schema.get("x-kubernetes-list-map-keys", ())
    properties = of_item(schema).get("properties", {})
    keys = {}
    for name in names:
        # ports are told apart by their protocol, and the built-in schemas don't say that TCP is its default
        default = resolved(properties.get(name)).get("default", "TCP" if name == "protocol" else None)
        keys[name] = item.get(name, default)
    return {name: value for name, value in keys.items() if value is not None}
