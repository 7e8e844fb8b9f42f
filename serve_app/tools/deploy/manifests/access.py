"""Who may do what: the namespace and its pod security, accounts of pods, roles of people, disruptions of pods."""

from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.manifests.pods import labels
from serve_app.tools.deploy.scenarios.scenario import Scenario

ALL = ["get", "list", "watch", "create", "update", "patch", "delete"]
LOOK = ["get", "list", "watch"]
SEEN = [
    {"apiGroups": ["ray.io"], "resources": ["rayservices", "rayclusters"], "verbs": LOOK},
    {
        "apiGroups": [""],
        "resources": ["pods", "pods/log", "services", "endpoints", "events", "configmaps", "persistentvolumeclaims"],
        "verbs": LOOK,
    },
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": LOOK},
]
# What `scripts/deploy` does to what is there already; the first `up` and `down` are a cluster administrator's.
CHANGED = [
    {"apiGroups": ["ray.io"], "resources": ["rayservices"], "verbs": ALL},
    {
        "apiGroups": [""],
        "resources": ["configmaps", "serviceaccounts", "services", "persistentvolumeclaims"],
        "verbs": ALL,
    },
    {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create", "get"]},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ALL},
    {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ALL},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ALL},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ALL},
]


def namespace(scenario: Scenario) -> Manifest:
    level = "restricted"  # which GPUs need not break: the device plugin gives them to any pod
    modes = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": scenario.namespace, "labels": labels(scenario) | modes},
    }


def accounts(scenario: Scenario) -> list[Manifest]:
    """One for the head, whose autoscaler asks the API for pods; one for the rest, whose pods get no token."""
    return [
        _object(scenario, "v1", "ServiceAccount", name) | {"automountServiceAccountToken": False}
        for name in (scenario.name, f"{scenario.name}-head")
    ]


def roles(scenario: Scenario) -> list[Manifest]:
    """For people: a viewer's and a deployer's, bound to groups of the same names."""
    found = []
    for role, rules in {"viewer": SEEN, "deployer": SEEN + CHANGED}.items():
        name = f"{scenario.name}-{role}"
        found.append(_object(scenario, "rbac.authorization.k8s.io/v1", "Role", name) | {"rules": rules})
        binding = _object(scenario, "rbac.authorization.k8s.io/v1", "RoleBinding", name)
        group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": f"serve-app:{role}s"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        found.append(binding | {"roleRef": reference, "subjects": [group]})
    return found


def disruption_budgets(scenario: Scenario) -> list[Manifest]:
    """All but one pod of a group stay, and an only one stays: so does a head whose state is nowhere else.

    As numbers that must be there: shares, and numbers that may be missing, need a size that Kubernetes can't read of a
    RayCluster, and then no pod could be moved at all.
    """
    least: dict[str, int] = {role: max(group.min - 1, 1) for role, group in scenario.workers.items() if group.min}
    if not scenario.head_store:
        least["head"] = 1
    found = []
    for role, pods in least.items():
        selector = {"matchLabels": {"app.kubernetes.io/instance": scenario.name, "app.kubernetes.io/component": role}}
        budget = _object(scenario, "policy/v1", "PodDisruptionBudget", f"{scenario.name}-{role}")
        found.append(budget | {"spec": {"minAvailable": pods, "selector": selector}})
    return found


def _object(scenario: Scenario, version: str, kind: str, name: str) -> Manifest:
    metadata = {"name": name, "namespace": scenario.namespace, "labels": labels(scenario)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
