"""What the server says about itself: its version, groups, versions, resources, and that it validates fields."""

from kubernetes_api.schemas import VERSION

OPEN = ("/version", "/healthz", "/livez", "/readyz")


def version():
    major, minor, _ = VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{VERSION}",
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.24",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def core_versions():
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group(name, versions):
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": listed, "preferredVersion": listed[0]}


def groups(catalogue):
    listed = [group(name, versions) for name, versions in catalogue.versions().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def resources(catalogue, name, version):
    """None where the group has no such version."""
    kinds = [kind for kind in catalogue.kinds.values() if (kind.group, kind.version) == (name, version)]
    if not kinds:
        return None
    listed = [entry for kind in kinds for entry in entries_of(kind)]
    group_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def entries_of(kind):
    entry = {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        entry["shortNames"] = list(kind.short)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    yield entry
    for name in kind.subresources:
        verbs = ["get", "patch", "update"] if name == "status" else ["create", "get"]
        yield {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": verbs,
        }


def openapi_index(catalogue):
    paths = {}
    for name, versions in catalogue.versions().items():
        for one in versions:
            path = f"apis/{name}/{one}" if name else f"api/{one}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}"}
    return {"paths": paths}


def openapi(catalogue, name, version):
    """As much of OpenAPI as tells a client that PATCH takes `fieldValidation` and `dryRun` for each kind."""
    parameters = [
        {"name": parameter, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for parameter in ("dryRun", "fieldManager", "fieldValidation")
    ]
    paths = {}
    prefix = f"/apis/{name}/{version}" if name else f"/api/{version}"
    for kind in catalogue.kinds.values():
        if (kind.group, kind.version) == (name, version):
            middle = "/namespaces/{namespace}" if kind.namespaced else ""
            operation = {"parameters": parameters, "responses": {"200": {"description": "OK"}}}
            operation["x-kubernetes-action"] = "patch"
            operation["x-kubernetes-group-version-kind"] = {"group": name, "version": version, "kind": kind.kind}
            paths[f"{prefix}{middle}/{kind.plural}/{{name}}"] = {"patch": operation}
    info = {"title": "Kubernetes", "version": f"v{VERSION}"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
