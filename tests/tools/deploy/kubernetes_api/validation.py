"""Holds a body to its kind's schema: unknown fields are found and pruned, defaults set, problems listed.

CEL rules (`x-kubernetes-validations`) are not evaluated.
"""

import json

from kubernetes_api.schemas import of_item, of_property, resolved, schema_of

TYPES = {"string": str, "object": dict, "array": list, "boolean": bool, "integer": int, "number": (int, float)}


class Review:
    """One walk through a body: `unknown` are paths, `problems` are (field, reason, message)."""

    def __init__(self, custom):
        self.custom = custom  # a custom resource: it takes defaults, and words its errors differently
        self.unknown: list[str] = []
        self.problems: list[tuple[str, str, str]] = []

    def walk(self, schema, value, path):
        """The value without what the schema doesn't know."""
        schema = resolved(schema)
        if value is None and self.may_be_null(schema):
            return None
        if not self.check_type(schema, value, path):
            return value
        if isinstance(value, dict):
            return self.walk_object(schema, value, path)
        if isinstance(value, list):
            return self.walk_list(schema, value, path)
        return value

    def may_be_null(self, schema):
        kinds = schema.get("type")
        return schema.get("nullable") or not self.custom or (isinstance(kinds, list) and "null" in kinds)

    def walk_object(self, schema, value, path):
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        kept = {}
        for name, inner in value.items():
            where = f"{path}.{name}" if path else name
            if inner is None and not self.custom:
                continue
            if where == "metadata":  # of a built-in type whatever the kind: `review` holds it to that
                kept[name] = inner
            elif name in properties:
                kept[name] = self.walk(properties[name], inner, where)
            elif isinstance(others, dict):
                kept[name] = self.walk(others, inner, where)
            elif self.is_open(schema, properties, others):
                kept[name] = inner
            else:
                self.unknown.append(where)
        if self.custom:
            set_defaults(properties, kept)
        self.check_required(schema, kept, path)
        return kept

    def is_open(self, schema, properties, others):
        if schema.get("x-kubernetes-preserve-unknown-fields") or others is True:
            return True
        return not self.custom and not properties and others is None

    def walk_list(self, schema, value, path):
        item = of_item(schema)
        return [self.walk(item, inner, f"{path}[{index}]") for index, inner in enumerate(value)]

    def check_type(self, schema, value, path):
        if schema.get("x-kubernetes-int-or-string") or "oneOf" in schema or "anyOf" in schema:
            wanted = ["string", "integer", "number"]
            if not schema.get("x-kubernetes-int-or-string"):
                wanted = [one for choice in schema.get("oneOf", schema.get("anyOf")) for one in types_of(choice)]
        else:
            wanted = types_of(schema)
        if not wanted or any(is_of_type(value, one) for one in wanted):
            return True
        shown = wanted[0] if len(wanted) == 1 else next(one for one in wanted if one != "null")
        message = f"{path} in body must be of type {shown}: {json.dumps(type_name(value))}"
        self.problems.append(
            (path, "FieldValueTypeInvalid", f"Invalid value: {json.dumps(type_name(value))}: {message}")
        )
        return False

    def check_required(self, schema, value, path):
        for name in schema.get("required", ()):
            if value.get(name) is None:
                field = f"{path}.{name}" if path else name
                self.problems.append((field, "FieldValueRequired", "Required value"))


def set_defaults(properties, value):
    for name, schema in properties.items():
        if "default" in schema and name not in value:
            value[name] = json.loads(json.dumps(schema["default"]))


def types_of(schema):
    wanted = schema.get("type", [])
    return [wanted] if isinstance(wanted, str) else list(wanted)


def is_of_type(value, wanted):
    if wanted == "null":
        return value is None
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[wanted])


def type_name(value):
    if value is None:
        return "null"
    return next(name for name in TYPES if is_of_type(value, name))


def review(kind, body):
    """The body as the server would keep it, the unknown fields, and what is wrong."""
    schema, metadata = schema_of(kind), body.get("metadata")
    found = Review(custom=kind.schema is not None)
    kept = found.walk(schema, body, "")
    if metadata is None:
        return kept, found.unknown, found.problems
    about = Review(custom=False)
    kept["metadata"] = about.walk(of_property(schema, "metadata"), metadata, "metadata")
    return kept, [*about.unknown, *found.unknown], [*about.problems, *found.problems]
