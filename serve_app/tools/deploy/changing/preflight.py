"""What can be known to fail before anything in the cluster is changed."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.errors import ConfigurationError, ForbiddenError
from serve_app.tools.deploy.api.objects import Kind, Manifest, Objects
from serve_app.tools.deploy.api.target import RAY_API, Target
from serve_app.tools.deploy.scenarios.scenario import SecretKey

OPERATOR_LABEL = "app.kubernetes.io/name=kuberay-operator"
OPERATOR_IMAGE = re.compile(r"/?(?:kuberay/)?(?:kuberay-)?operator:v?(\d+)\.(\d+)\.(\d+)")
OLDEST, TOO_NEW = (1, 7), 2
INSTALL = (
    "install it: scripts/install does, or `helm install kuberay-operator kuberay/kuberay-operator "
    "--version 1.7.0 -n kuberay-system --create-namespace`"
)
MONITORING = "monitoring.coreos.com"
APPLYING = ("get", "create", "patch")


@dataclass(frozen=True, slots=True)
class Cleared:
    """What may be applied, and what a person should know of it."""

    manifests: tuple[Manifest, ...]
    notes: tuple[str, ...] = ()


def check(
    objects: Objects,
    target: Target,
    manifests: Sequence[Manifest],
    secrets: Sequence[SecretKey] = (),
    applied: Sequence[Manifest] = (),
) -> Cleared:
    """`applied` is what the last revision left in the cluster."""
    require_kuberay(objects)
    notes = list(check_operator(objects))
    kept, skipped = split_by_kind(objects, manifests)
    there = require_open_namespace(objects, target)
    kept, left = leave_alone(objects, kept, applied, there)
    if problems := missing_rights(objects, target, kept):
        raise ForbiddenError(
            f"context {objects.connection.context!r} has no right to {'; to '.join(problems)}; nothing was changed, "
            "ask whoever runs the cluster for these rights"
        )
    return Cleared(tuple(kept), (*notes, *skipped, *left, *require_secrets(objects, target, secrets, there)))


def require_kuberay(objects: Objects) -> None:
    if objects.find_kind(RAY_API, "RayService") is None:
        raise ConfigurationError(
            f"the cluster of context {objects.connection.context!r} knows no RayService: KubeRay isn't installed; "
            f"{INSTALL}"
        )


def check_operator(objects: Objects) -> Iterable[str]:
    """Raises where no operator would react; where it may not be looked at, a note says so."""
    try:
        deployments = objects.list("apps/v1", "Deployment", labels=OPERATOR_LABEL)
        if not deployments:  # one that was installed without Helm
            deployments = [
                one for one in objects.list("apps/v1", "Deployment") if OPERATOR_IMAGE.search(_image_of(one))
            ]
    except ForbiddenError:
        return ("the KubeRay operator couldn't be checked: you may not list deployments of all namespaces",)
    if not deployments:
        raise ConfigurationError(f"no KubeRay operator runs in this cluster, so nothing would happen; {INSTALL}")
    return tuple(note for one in deployments for note in _check_operator(one))


def _check_operator(deployment: Manifest) -> Iterable[str]:
    metadata, image = deployment["metadata"], _image_of(deployment)
    where = f"{metadata['namespace']}/{metadata['name']}"
    version = OPERATOR_IMAGE.search(image)
    if version and not OLDEST <= (int(version[1]), int(version[2])) < (TOO_NEW, 0):
        raise ConfigurationError(
            f"KubeRay operator {where} is version {'.'.join(version.groups())} ({image}); these manifests "
            f"need at least {'.'.join(map(str, OLDEST))} and below {TOO_NEW}: `helm upgrade kuberay-operator "
            f"kuberay/kuberay-operator --version 1.7.0 -n {metadata['namespace']}`, after its CRDs"
        )
    if not (deployment.get("status") or {}).get("readyReplicas"):
        raise ConfigurationError(
            f"KubeRay operator {where} isn't ready; see `kubectl describe -n {metadata['namespace']} "
            f"deployment/{metadata['name']}`, and run this again when it is"
        )
    return () if version else (f"KubeRay operator {where}: its version can't be told from the image {image}",)


def _image_of(deployment: Manifest) -> str:
    containers = deployment["spec"]["template"]["spec"].get("containers") or [{}]
    return str(containers[0].get("image", ""))


def split_by_kind(objects: Objects, manifests: Sequence[Manifest]) -> tuple[list[Manifest], list[str]]:
    """Monitoring is left out where no Prometheus operator is; any other unknown kind is an error."""
    kept, notes, unknown = [], [], []
    for manifest in manifests:
        what = f"{manifest['kind']} {manifest['metadata']['name']}"
        if objects.find_kind(manifest["apiVersion"], manifest["kind"]):
            kept.append(manifest)
        elif manifest["apiVersion"].startswith(f"{MONITORING}/"):
            notes.append(f"skipped {what}: the cluster has no {MONITORING} (kube-prometheus-stack isn't installed)")
        else:
            unknown.append(f"{what} ({manifest['apiVersion']})")
    if unknown:
        raise ConfigurationError(
            f"the cluster doesn't know the kind of {', '.join(unknown)}; install what brings it, or change the scenario"
        )
    return kept, notes


def require_open_namespace(objects: Objects, target: Target) -> bool:
    """Whether it is there already; one that is going takes everything with it."""
    try:
        namespace = objects.get("v1", "Namespace", target.namespace)
    except ForbiddenError:
        return True  # whoever may not see it works in one that somebody made for them
    if namespace and (namespace.get("status") or {}).get("phase") == "Terminating":
        raise ConfigurationError(
            f"namespace {target.namespace} is being deleted; wait until it is gone "
            f"(kubectl get namespace {target.namespace} -w), then run this again"
        )
    return namespace is not None


def leave_alone(
    objects: Objects, manifests: Sequence[Manifest], applied: Sequence[Manifest], namespace_there: bool
) -> tuple[list[Manifest], list[str]]:
    """Whoever may deploy needn't be who made the namespace and its roles: what doesn't change is left."""
    kept, notes = [], []
    for manifest in manifests:
        as_it_was = manifest in applied or (manifest["kind"] == "Namespace" and namespace_there)
        if as_it_was and refused_verbs(objects, manifest):
            notes.append(f"left {manifest['kind']} {manifest['metadata']['name']} as it is: you may not change it")
        else:
            kept.append(manifest)
    return kept, notes


def missing_rights(objects: Objects, target: Target, manifests: Sequence[Manifest]) -> list[str]:
    """Everything that up and its wait will do, asked for one by one before the first is done."""
    asked: dict[tuple[Kind, str | None], set[str]] = {}
    for manifest in manifests:
        kind = objects.kind(manifest["apiVersion"], manifest["kind"])
        asked.setdefault((kind, manifest["metadata"].get("namespace")), set()).update(APPLYING)
    asked.setdefault((objects.kind("v1", "ConfigMap"), target.namespace), set()).update((*APPLYING, "list", "delete"))
    asked.setdefault((objects.kind("v1", "Pod"), target.namespace), set()).add("list")
    lacking = []
    for (kind, namespace), verbs in asked.items():
        if refused := sorted(verb for verb in verbs if not objects.allows(verb, kind, namespace)):
            group = f".{kind.group}" if kind.group else ""
            lacking.append(f"{', '.join(refused)} {kind.plural}{group}" + (f" in {namespace}" if namespace else ""))
    return lacking


def refused_verbs(objects: Objects, manifest: Manifest) -> list[str]:
    kind = objects.kind(manifest["apiVersion"], manifest["kind"])
    return [verb for verb in APPLYING if not objects.allows(verb, kind, manifest["metadata"].get("namespace"))]


def require_secrets(
    objects: Objects, target: Target, secrets: Sequence[SecretKey], namespace_there: bool
) -> Iterable[str]:
    missing = []
    for wanted in dict.fromkeys((one.secret, one.key) for one in secrets):
        name, key = wanted
        try:
            secret = objects.get("v1", "Secret", name, target.namespace) if namespace_there else None
        except ForbiddenError:
            return (f"Secret {name} couldn't be checked: you may not read Secrets of {target.namespace}",)
        if secret is None:
            missing.append(f"Secret {name} with the key {key}")
        elif key not in (secret.get("data") or {}):
            missing.append(f"the key {key} of Secret {name}")
    if missing:
        first = "" if namespace_there else f"kubectl create namespace {target.namespace}, then "
        name, key = next(iter((one.secret, one.key) for one in secrets))
        raise ConfigurationError(
            f"namespace {target.namespace} lacks {', '.join(missing)}, which pods refer to; {first}"
            f"`kubectl create secret generic {name} -n {target.namespace} --from-file={key}=FILE`; nothing was changed"
        )
    return ()
