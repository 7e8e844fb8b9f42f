"""What a request is about: kind, namespace, name and subresource in its path, and the verb that RBAC knows."""

from dataclasses import dataclass

from kubernetes_api.kinds import Kind

VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Target:
    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    def verb(self, method):
        if method == "GET":
            return "get" if self.name else "list"
        return VERBS[method]


def split(path):
    """(group, version, the rest as a list) of an API path; None where it is none."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 2:
        return "", parts[1], parts[2:]
    if parts[0] == "apis" and len(parts) >= 3:
        return parts[1], parts[2], parts[3:]
    return None


def target_of(catalogue, path):
    """None where nothing is served at the path."""
    found = split(path)
    if found is None or not found[2]:
        return None
    group, version, rest = found
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    kind = catalogue.find(group, version, rest[0])
    if kind is None or (namespace and not kind.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and subresource not in kind.subresources:
        return None
    return Target(kind, namespace, name, subresource)
