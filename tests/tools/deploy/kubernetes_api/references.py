"""What a pod needs of other objects: Secrets, ConfigMaps and claims that have to be there before it can start."""

from kubernetes_api.store import Key

VOLUMES = {"secret": ("secrets", "secretName"), "configMap": ("configmaps", "name")}
VARIABLES = {"secretKeyRef": "secrets", "configMapKeyRef": "configmaps"}
SOURCES = {"secretRef": "secrets", "configMapRef": "configmaps"}


def missing(store, pod):
    """The trouble that the first absent one makes; None where all are there."""
    return missing_volume(store, pod) or missing_variable(store, pod)


def missing_volume(store, pod):
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or ():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and not store.get(Key("", "persistentvolumeclaims", namespace, claim)):
            told = f'0/3 nodes are available: persistentvolumeclaim "{claim}" not found.'
            return {"trouble": "unschedulable", "message": told}
        for kind, (plural, field) in VOLUMES.items():
            name = volume.get(kind, {}).get(field)
            if name and not volume[kind].get("optional") and not store.get(Key("", plural, namespace, name)):
                told = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {plural[:-1]} "{name}" not found'
                return {"trouble": "mount_failed", "message": told}
    return None


def missing_variable(store, pod):
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for plural, reference in wanted_by(container):
            found = store.get(Key("", plural, namespace, reference["name"]))
            told = None
            if found is None:
                told = f'{plural[:-1]} "{reference["name"]}" not found'
            elif "key" in reference and reference["key"] not in found.get("data", {}):
                where = f"{'Secret' if plural == 'secrets' else 'ConfigMap'} {namespace}/{reference['name']}"
                told = f"couldn't find key {reference['key']} in {where}"
            if told and not reference.get("optional"):
                return {"trouble": "config_error", "container": container["name"], "message": told}
    return None


def wanted_by(container):
    """(plural, reference) of each Secret and ConfigMap in the container's environment."""
    for variable in container.get("env") or ():
        for name, plural in VARIABLES.items():
            if name in (variable.get("valueFrom") or {}):
                yield plural, variable["valueFrom"][name]
    for source in container.get("envFrom") or ():
        for name, plural in SOURCES.items():
            if name in source:
                yield plural, source[name]
