"""Patches that aren't applies: JSON patch, merge patch, strategic merge patch."""

from copy import deepcopy

from kubernetes_api.failures import StatusError, bad_request
from kubernetes_api.schemas import of_item, of_property


def merge(value, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), inner)
    return result


def strategic(schema, value, patch):
    """A merge patch that knows the lists whose items have a key."""
    if isinstance(patch, list):
        return strategic_list(schema, value, patch)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: inner for name, inner in patch.items() if name != "$patch"}
    result = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if name.startswith("$"):
            continue
        if inner is None:
            result.pop(name, None)
        else:
            result[name] = strategic(of_property(schema, name), result.get(name), inner)
    return result


def strategic_list(schema, value, patch):
    key = schema.get("x-kubernetes-patch-merge-key")
    if not isinstance(value, list) or schema.get("x-kubernetes-patch-strategy", "").split(",")[0] != "merge":
        return patch
    if not key:
        return value + [item for item in patch if item not in value]
    result = {item[key]: item for item in value}
    for item in patch:
        if item.get("$patch") == "delete":
            result.pop(item[key], None)
        else:
            result[item[key]] = strategic(of_item(schema), result.get(item[key]), item)
    return list(result.values())


def json_patch(value, operations):
    """RFC 6902."""
    value = deepcopy(value)
    for operation in operations:
        path = steps(operation["path"])
        match operation.get("op"):
            case "add":
                put(value, path, operation["value"], insert=True)
            case "replace":
                read(value, path, operation)
                put(value, path, operation["value"])
            case "remove":
                take(value, path, operation)
            case "test":
                if read(value, path, operation) != operation["value"]:
                    raise StatusError(422, "Invalid", f"testing value {operation['path']} failed: test failed")
            case "move" | "copy":
                source = steps(operation["from"])
                inner = deepcopy(read(value, source, operation))
                if operation["op"] == "move":
                    take(value, source, operation)
                put(value, path, inner, insert=True)
            case other:
                raise bad_request(f"Unexpected kind: {other}")
    return value


def steps(pointer):
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def read(value, path, operation):
    for step in path:
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, ValueError, TypeError):
            message = "the server rejected our request due to an error in our request"
            missing = f"{operation['op']} operation does not apply: doc is missing path: {operation['path']}"
            raise StatusError(422, "Invalid", f"{message}: {missing}") from None
    return value


def put(value, path, new, insert=False):
    *parents, last = path
    target = read(value, parents, {"op": "add", "path": "/" + "/".join(path)})
    if not isinstance(target, list):
        target[last] = new
    elif last == "-":
        target.append(new)
    elif insert:
        target.insert(int(last), new)
    else:
        target[int(last)] = new


def take(value, path, operation):
    read(value, path, operation)
    *parents, last = path
    target = read(value, parents, operation)
    del target[int(last) if isinstance(target, list) else last]
