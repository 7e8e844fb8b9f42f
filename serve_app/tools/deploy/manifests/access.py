"""Access: the namespace with its pod security, service accounts, roles, and disruption budgets."""

from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.manifests.pods import labels
from serve_app.tools.deploy.scenarios.scenario import Scenario, SecretStore

ALL = ["get", "list", "watch", "create", "update", "patch", "delete"]
READ = ["get", "list", "watch"]
VIEWER_RULES = [
    {"apiGroups": ["ray.io"], "resources": ["rayservices", "rayclusters"], "verbs": READ},
    {
        "apiGroups": [""],
        "resources": ["pods", "pods/log", "services", "endpoints", "events", "configmaps", "persistentvolumeclaims"],
        "verbs": READ,
    },
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
]
# For updates with `scripts/deploy`; the first `up` and `down` need a cluster administrator.
DEPLOYER_RULES = [
    {"apiGroups": ["ray.io"], "resources": ["rayservices"], "verbs": ALL},
    {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["patch"]},
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

SECRET_RULES = [{"apiGroups": ["external-secrets.io"], "resources": ["externalsecrets"], "verbs": ALL}]


def namespace(scenario: Scenario) -> Manifest:
    level = "restricted"  # compatible with GPUs, which the device plugin gives to any pod
    modes = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": scenario.namespace, "labels": labels(scenario) | modes},
    }


def secrets(scenario: Scenario, store: SecretStore) -> list[Manifest]:
    """For the External Secrets Operator: a Secret each, of what the store has under its name, key by key."""
    keys: dict[str, list[str]] = {}
    for one in scenario.secrets:
        keys.setdefault(one.secret, []).append(one.key)
    return [
        _object(scenario, "external-secrets.io/v1", "ExternalSecret", name)
        | {
            "spec": {
                "refreshInterval": store.refresh,
                "secretStoreRef": {"name": store.name, "kind": store.kind},
                "target": {"name": name},
                "data": [{"secretKey": key, "remoteRef": {"key": name, "property": key}} for key in found],
            }
        }
        for name, found in keys.items()
    ]


def accounts(scenario: Scenario) -> list[Manifest]:
    """One for the head, whose autoscaler calls the API; one for all other pods, which get no token."""
    return [
        _object(scenario, "v1", "ServiceAccount", name) | {"automountServiceAccountToken": False}
        for name in (scenario.name, f"{scenario.name}-head")
    ]


def roles(scenario: Scenario) -> list[Manifest]:
    """A viewer and a deployer role, bound to groups of the same names."""
    found = []
    deployer = VIEWER_RULES + DEPLOYER_RULES + (SECRET_RULES if scenario.secret_store else [])
    for role, rules in {"viewer": VIEWER_RULES, "deployer": deployer}.items():
        name = f"{scenario.name}-{role}"
        found.append(_object(scenario, "rbac.authorization.k8s.io/v1", "Role", name) | {"rules": rules})
        binding = _object(scenario, "rbac.authorization.k8s.io/v1", "RoleBinding", name)
        group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": f"serve-app:{role}s"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        found.append(binding | {"roleRef": reference, "subjects": [group]})
    return found


def disruption_budgets(scenario: Scenario) -> list[Manifest]:
    """At most one pod of a group may be evicted, and never the only one, nor a head without a head store.

    As minAvailable numbers: percentages and maxUnavailable need a size that Kubernetes can't read from a RayCluster,
    and would block every eviction. A spot machine ends in any case, so nothing may hold its pods.
    """
    stays = {role: group for role, group in scenario.workers.items() if group.min and not group.spot}
    least: dict[str, int] = {role: max(group.min - 1, 1) for role, group in stays.items()}
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
