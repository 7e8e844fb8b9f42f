"""What the server says about itself: its version and its resources."""

from kubernetes_api.schemas import VERSION

OPEN = ("/version", "/healthz", "/livez", "/readyz")


def version():
    return {"gitVersion": f"v{VERSION}"}


def resources(catalogue, name, version):
    """None where the group has no such version."""
    kinds = [kind for kind in catalogue.kinds.values() if (kind.group, kind.version) == (name, version)]
    if not kinds:
        return None
    listed = [entry for kind in kinds for entry in entries_of(kind)]
    group_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def entries_of(kind):
    entry = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
    yield entry | {"name": kind.plural, "verbs": list(kind.verbs)}
    for name in kind.subresources:
        yield entry | {"name": f"{kind.plural}/{name}", "singularName": "", "verbs": ["get", "patch", "create"]}
