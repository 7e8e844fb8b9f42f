"""Checks before anything in the cluster is changed: KubeRay, kinds, namespace, permissions and Secrets."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.errors import ConfigurationError, ForbiddenError
from serve_app.tools.deploy.api.objects import Kind, Manifest, Objects
from serve_app.tools.deploy.api.target import RAY_API, Target
from serve_app.tools.deploy.scenarios.scenario import Scenario, SecretKey

OPERATOR_LABEL = "app.kubernetes.io/name=kuberay-operator"
OPERATOR_IMAGE = re.compile(r"/?(?:kuberay/)?(?:kuberay-)?operator:v?(\d+)\.(\d+)\.(\d+)")
OLDEST, TOO_NEW = (1, 6), 2  # make kubernetes has 1.6
INSTALL = (
    "install it with scripts/install, or with `helm install kuberay-operator kuberay/kuberay-operator "
    "--version 1.7.0 -n kuberay-system --create-namespace`"
)
APPLY_VERBS = ("get", "create", "patch")


@dataclass(frozen=True, slots=True)
class Checked:
    """The manifests to apply, and notes for the user."""

    manifests: tuple[Manifest, ...]
    notes: tuple[str, ...] = ()


def check(
    objects: Objects,
    target: Target,
    manifests: Sequence[Manifest],
    scenario: Scenario,
    applied: Sequence[Manifest] = (),
) -> Checked:
    """`applied`: the manifests of the latest complete revision."""
    require_kinds(objects, manifests)
    notes = list(check_operator(objects, scenario))
    exists = require_namespace(objects, target)
    checked = leave_unchanged(objects, manifests, applied, exists)
    if problems := missing_rights(objects, target, checked.manifests):
        raise ForbiddenError(
            f"context {objects.connection.context!r} may not {'; '.join(problems)}; nothing was changed, "
            "ask the cluster's administrator for these permissions"
        )
    secrets = () if scenario.secret_store else scenario.secrets  # else the operator makes them after this
    return Checked(checked.manifests, (*notes, *checked.notes, *require_secrets(objects, target, secrets, exists)))


def require_kinds(objects: Objects, manifests: Sequence[Manifest]) -> None:
    if objects.find_kind(RAY_API, "RayService") is None:
        raise ConfigurationError(
            f"KubeRay isn't installed in the cluster of context {objects.connection.context!r}; {INSTALL}"
        )
    unknown = [
        f"{one['kind']} {one['metadata']['name']} ({one['apiVersion']})"
        for one in manifests
        if not objects.find_kind(one["apiVersion"], one["kind"])
    ]
    if unknown:
        raise ConfigurationError(
            f"the cluster doesn't know the kind of {', '.join(unknown)}; install its CRD, or change the scenario"
        )


def check_operator(objects: Objects, scenario: Scenario) -> Iterable[str]:
    """Raises if no operator runs that can serve this namespace; returns a note if that can't be checked."""
    try:
        deployments = objects.list("apps/v1", "Deployment", labels=OPERATOR_LABEL)
        if not deployments:  # it may be installed without Helm
            deployments = [
                one for one in objects.list("apps/v1", "Deployment") if OPERATOR_IMAGE.search(_image_of(one))
            ]
    except ForbiddenError:
        return ("the KubeRay operator wasn't checked: you may not list Deployments in all namespaces",)
    if not deployments:
        raise ConfigurationError(f"no KubeRay operator runs in this cluster; {INSTALL}")
    watching = _require_watching(deployments, scenario)
    return tuple(note for one in watching for note in _check_operator(one))


def _require_watching(deployments: Sequence[Manifest], scenario: Scenario) -> list[Manifest]:
    namespace = scenario.namespace
    watching = [one for one in deployments if namespace in (_watched_by(one) or [namespace])]
    if not watching:
        watched = ",".join(sorted({name for one in deployments for name in _watched_by(one)}))
        raise ConfigurationError(
            f"no KubeRay operator watches the namespace {namespace}, only {watched}: run helm upgrade with "
            f"--set 'watchNamespace={{{watched},{namespace}}}', or deploy into one of these"
        )
    places = [one["metadata"]["namespace"] for one in watching]
    if scenario.operator_namespace not in places:
        raise ConfigurationError(
            f"the KubeRay operator runs in {places[0]}, and the service's network policies would keep it out: "
            f"--set operator_namespace={places[0]}"
        )
    return watching


def _watched_by(deployment: Manifest) -> list[str]:
    """Empty: all namespaces."""
    container = _container_of(deployment)
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, _, value = word.lstrip("-").partition("=")
        if name == "watch-namespace":
            return [one for one in (value or following).split(",") if one]
    return []


def _check_operator(deployment: Manifest) -> Iterable[str]:
    metadata, image = deployment["metadata"], _image_of(deployment)
    where = f"{metadata['namespace']}/{metadata['name']}"
    version = OPERATOR_IMAGE.search(image)
    if version and not OLDEST <= (int(version[1]), int(version[2])) < (TOO_NEW, 0):
        raise ConfigurationError(
            f"KubeRay operator {where} has version {'.'.join(version.groups())} ({image}); these manifests "
            f"need at least {'.'.join(map(str, OLDEST))} and below {TOO_NEW}: upgrade its CRDs, then run `helm upgrade "
            f"kuberay-operator kuberay/kuberay-operator --version 1.7.0 -n {metadata['namespace']}`"
        )
    if not (deployment.get("status") or {}).get("readyReplicas"):
        raise ConfigurationError(
            f"KubeRay operator {where} isn't ready; see `kubectl describe -n {metadata['namespace']} "
            f"deployment/{metadata['name']}`, then run this again"
        )
    return () if version else (f"KubeRay operator {where}: unknown version, image {image}",)


def _image_of(deployment: Manifest) -> str:
    return str(_container_of(deployment).get("image", ""))


def _container_of(deployment: Manifest) -> Manifest:
    containers: list[Manifest] = deployment["spec"]["template"]["spec"].get("containers") or [{}]
    return containers[0]


def require_namespace(objects: Objects, target: Target) -> bool:
    """Whether it exists; raises if it is being deleted."""
    try:
        namespace = objects.get("v1", "Namespace", target.namespace)
    except ForbiddenError:
        return True  # a user without this permission works in an existing namespace
    if namespace and (namespace.get("status") or {}).get("phase") == "Terminating":
        raise ConfigurationError(
            f"namespace {target.namespace} is being deleted; wait until it is gone "
            f"(kubectl get namespace {target.namespace} -w), then run this again"
        )
    return namespace is not None


def leave_unchanged(
    objects: Objects, manifests: Sequence[Manifest], applied: Sequence[Manifest], namespace_exists: bool
) -> Checked:
    """Skips unchanged objects that the user may not change: a deployer may not create the namespace and roles."""
    kept, notes = [], []
    for manifest in manifests:
        unchanged = manifest in applied or (manifest["kind"] == "Namespace" and namespace_exists)
        if unchanged and refused_verbs(objects, manifest):
            notes.append(f"skipped {manifest['kind']} {manifest['metadata']['name']}: you may not change it")
        else:
            kept.append(manifest)
    return Checked(tuple(kept), tuple(notes))


def missing_rights(objects: Objects, target: Target, manifests: Sequence[Manifest]) -> list[str]:
    """Of everything that `up` and its wait will do."""
    asked: dict[tuple[Kind, str | None], set[str]] = {}
    for manifest in manifests:
        kind = objects.kind(manifest["apiVersion"], manifest["kind"])
        asked.setdefault((kind, manifest["metadata"].get("namespace")), set()).update(APPLY_VERBS)
    revisions = (objects.kind("v1", "ConfigMap"), target.namespace)
    asked.setdefault(revisions, set()).update((*APPLY_VERBS, "list", "delete"))
    asked.setdefault((objects.kind("v1", "Pod"), target.namespace), set()).add("list")
    lacking = []
    for (kind, namespace), verbs in asked.items():
        if refused := sorted(verb for verb in verbs if not objects.allows(verb, kind, namespace)):
            group = f".{kind.group}" if kind.group else ""
            lacking.append(f"{', '.join(refused)} {kind.plural}{group}" + (f" in {namespace}" if namespace else ""))
    return lacking


def refused_verbs(objects: Objects, manifest: Manifest) -> list[str]:
    kind = objects.kind(manifest["apiVersion"], manifest["kind"])
    return [verb for verb in APPLY_VERBS if not objects.allows(verb, kind, manifest["metadata"].get("namespace"))]


def require_secrets(
    objects: Objects, target: Target, secrets: Sequence[SecretKey], namespace_exists: bool
) -> Iterable[str]:
    missing = []
    for wanted in dict.fromkeys((one.secret, one.key) for one in secrets):
        name, key = wanted
        try:
            secret = objects.get("v1", "Secret", name, target.namespace) if namespace_exists else None
        except ForbiddenError:
            return (f"Secret {name} wasn't checked: you may not read Secrets in {target.namespace}",)
        if secret is None:
            missing.append(f"Secret {name} with key {key}")
        elif key not in (secret.get("data") or {}):
            missing.append(f"key {key} of Secret {name}")
    if missing:
        first = "" if namespace_exists else f"`kubectl create namespace {target.namespace}`, then "
        name, key = secrets[0].secret, secrets[0].key
        raise ConfigurationError(
            f"namespace {target.namespace} lacks {', '.join(missing)}; nothing was changed, create it with {first}"
            f"`kubectl create secret generic {name} -n {target.namespace} --from-file={key}=FILE`"
        )
    return ()
