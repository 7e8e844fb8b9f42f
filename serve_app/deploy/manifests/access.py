"""Who may do what: the namespace and its pod security, accounts of pods, roles of people, disruptions of pods."""

from serve_app.deploy.manifests.pods import Manifest, labels
from serve_app.deploy.scenario import Scenario

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
    {"apiGroups": [""], "resources": ["configmaps", "serviceaccounts", "services"], "verbs": ALL},
    {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create", "get"]},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ALL},
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
    """One pod of a group at a time; the only head of a cluster that can't live without one, not at all."""
    most = {"head": 1 if scenario.head_store else 0} | dict.fromkeys(scenario.workers, 1)
    found = []
    for role, pods in most.items():
        selector = {"matchLabels": {"app.kubernetes.io/instance": scenario.name, "app.kubernetes.io/component": role}}
        budget = _object(scenario, "policy/v1", "PodDisruptionBudget", f"{scenario.name}-{role}")
        found.append(budget | {"spec": {"maxUnavailable": pods, "selector": selector}})
    return found


def _object(scenario: Scenario, version: str, kind: str, name: str) -> Manifest:
    metadata = {"name": name, "namespace": scenario.namespace, "labels": labels(scenario)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
