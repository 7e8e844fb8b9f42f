"""Sets of fields, as server-side apply counts them: which there are in a value, and what is at each.

A path is a tuple of elements as FieldsV1 writes them: `f:name`, `k:{"name":"x"}` for an item of a list with keys,
`v:"x"` for an item of a set.
"""

import json

from kubernetes_api.schemas import is_atomic, keys_of, of_item, of_property

ABSENT = object()
OWN = {"apiVersion", "kind", "status"}  # not up to who applies; the status has its own subresource
OWN_METADATA = {
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
}


def compact(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def wished(body):
    """What of a body can be owned."""
    kept = {key: value for key, value in body.items() if key not in OWN}
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key not in OWN_METADATA}
    kept.pop("metadata", None)
    return kept | ({"metadata": metadata} if metadata else {})


def children(schema, value):
    """(element, schema, value) of what is directly inside; nothing of what is taken as one."""
    if is_atomic(schema, value):
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"f:{name}", of_property(schema, name), inner
        return
    for item in value:
        yield element_of(schema, item), of_item(schema), item


def element_of(schema, item):
    if schema["x-kubernetes-list-type"] == "set":
        return f"v:{compact(item)}"
    return f"k:{compact(keys_of(schema, item))}"


def fields_of(schema, value, path=()):
    """Every field in the value: its leaves, and the items of its lists."""
    found = set()
    for element, inner_schema, inner in children(schema, value):
        if element.startswith("k:"):
            found.add((*path, element))
        found |= fields_of(inner_schema, inner, (*path, element))
    return found or {path} - {()}


def leaves_of(schema, value, path=()):
    """path → value of what has nothing inside."""
    found = {}
    for element, inner_schema, inner in children(schema, value):
        found |= leaves_of(inner_schema, inner, (*path, element))
    return found or {path: value}


def value_at(schema, value, path):
    for wanted in path:
        for element, inner_schema, inner in children(schema, value):
            if element == wanted:
                schema, value = inner_schema, inner
                break
        else:
            return ABSENT
    return value


def merged(schema, live, applied):
    """What is applied, over what is there."""
    if type(live) is not type(applied) or is_atomic(schema, applied) or is_atomic(schema, live):
        return applied
    if isinstance(applied, dict):
        return live | {
            name: merged(of_property(schema, name), live[name], inner) if name in live else inner
            for name, inner in applied.items()
        }
    there = {element: inner for element, _, inner in children(schema, live)}
    wanted = {element: inner for element, _, inner in children(schema, applied)}
    item = of_item(schema)
    both = {element: merged(item, there[element], inner) for element, inner in wanted.items() if element in there}
    return [(there | both)[element] for element in there] + [
        inner for element, inner in wanted.items() if element not in there
    ]


def removed(schema, value, path):
    """The value without what is at the path; a map that only held it goes too."""
    if value_at(schema, value, path) is ABSENT:
        return value
    if isinstance(value, list):
        return removed_from_list(schema, value, path)
    name = path[0].removeprefix("f:")
    rest = {key: inner for key, inner in value.items() if key != name}
    if len(path) == 1:
        return rest
    inner = removed(of_property(schema, name), value[name], path[1:])
    return rest if inner in ({}, []) else {key: inner if key == name else one for key, one in value.items()}


def removed_from_list(schema, value, path):
    kept = []
    for item in value:
        if element_of(schema, item) != path[0]:
            kept.append(item)
        elif len(path) > 1:
            kept.append(removed(of_item(schema), item, path[1:]))
    return kept


def encoded(paths):
    """A set of paths as FieldsV1."""
    tree = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
    return with_items_marked(tree, paths)


def with_items_marked(tree, paths, path=()):
    marked = {".": {}} if path in paths and tree else {}
    return marked | {element: with_items_marked(inner, paths, (*path, element)) for element, inner in tree.items()}


def decoded(tree, path=()):
    found = set()
    for element, inner in tree.items():
        if element == ".":
            found.add(path)
        else:
            found |= decoded(inner, (*path, element)) if inner else {(*path, element)}
    return found


def shown(path):
    """`.spec.containers[name="x"].image`"""
    text = ""
    for element in path:
        mark, _, rest = element.partition(":")
        if mark == "f":
            text += f".{rest}"
        elif mark == "k":
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items()) + "]"
        else:
            text += f"[={rest}]"
    return text
