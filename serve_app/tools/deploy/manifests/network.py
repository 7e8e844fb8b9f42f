"""NetworkPolicies: all traffic is denied except what they allow."""

from typing import Any

from serve_app.tools.deploy import ports
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.manifests.pods import labels
from serve_app.tools.deploy.manifests.storage import REDIS
from serve_app.tools.deploy.scenarios.scenario import HeadStore, Scenario

POD_IDENTITY = "169.254.170.23/32"  # EKS Pod Identity, which provides credentials for S3
OTLP = (4317, 4318)
DNS = 53
PROMETHEUS, GRAFANA = 9090, 3000
SCRAPED = (ports.METRICS, ports.AUTOSCALER_METRICS, ports.DASHBOARD_METRICS)


def policies(scenario: Scenario) -> list[Manifest]:
    ray = {"matchLabels": {"app.kubernetes.io/instance": scenario.name, "ray.io/is-ray-node": "yes"}}
    head = {"matchLabels": ray["matchLabels"] | {"ray.io/node-type": "head"}}
    operator = namespace(scenario.operator_namespace)
    monitoring = namespace(scenario.monitoring_namespace)
    found = [
        policy(scenario, "closed", ours(scenario), {"policyTypes": ["Ingress", "Egress"]}),
        policy(scenario, "ray", ray, both(scenario, {"podSelector": ray}, [span(*one) for one in ports.INSIDE])),
        policy(scenario, "clients", ray, ingress(callers(scenario), [port(ports.HTTP), port(ports.GRPC)])),
        policy(
            scenario,
            "operator",
            head,
            ingress([operator], [port(ports.DASHBOARD), port(ports.AGENT), port(ports.HTTP)]),
        ),
        policy(scenario, "metrics", ray, ingress([monitoring], [*map(port, SCRAPED)])),
        policy(
            scenario, "outside", all_but_redis(scenario), {"policyTypes": ["Egress"], "egress": outside(monitoring)}
        ),
    ]
    if scenario.head_store:
        found += redis(scenario, scenario.head_store)
    if scenario.upgrade.strategy == "incremental":
        found.append(gateway(scenario))
    return found


def ours(scenario: Scenario) -> Manifest:
    """The namespace may have pods of others."""
    return {"matchLabels": {"app.kubernetes.io/instance": scenario.name}}


def all_but_redis(scenario: Scenario) -> Manifest:
    """Ray's pods and the Job that builds TensorRT plans."""
    return ours(scenario) | {
        "matchExpressions": [{"key": "app.kubernetes.io/component", "operator": "NotIn", "values": [REDIS]}],
    }


def callers(scenario: Scenario) -> list[Manifest]:
    """The VPC, from which the load balancer calls; without one, all pods of the cluster."""
    if scenario.load_balancer:
        return [{"ipBlock": {"cidr": scenario.load_balancer.vpc}}]
    return [{"namespaceSelector": {}}]


def gateway(scenario: Scenario) -> Manifest:
    """The pods of the Gateway that KubeRay creates for incremental upgrades; what they call depends on their class."""
    made = {"matchLabels": {"gateway.networking.k8s.io/gateway-name": f"{scenario.name}-gateway"}}
    anything: Manifest = {"policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
    return policy(scenario, "gateway", made, anything)


def redis(scenario: Scenario, store: HeadStore) -> list[Manifest]:
    """Between the head and its store.

    By component: KubeRay's cleanup Job has the head's labels, but not its node type.
    """
    head = component(scenario, "head")
    if store.address:
        reached: Manifest = {"ports": [port(int(store.address.rpartition(":")[2]))]}
        return [policy(scenario, "to-redis", head, {"policyTypes": ["Egress"], "egress": [reached]})]
    kept = component(scenario, REDIS)
    there = {"to": [{"podSelector": kept}], "ports": [port(ports.REDIS)]}
    return [
        policy(scenario, "redis", kept, ingress([{"podSelector": head}], [port(ports.REDIS)])),
        policy(scenario, "to-redis", head, {"policyTypes": ["Egress"], "egress": [there]}),
    ]


def component(scenario: Scenario, name: str) -> Manifest:
    return {"matchLabels": {"app.kubernetes.io/instance": scenario.name, "app.kubernetes.io/component": name}}


def outside(monitoring: Manifest) -> list[Manifest]:
    """DNS; S3, model hubs and the Kubernetes API over TLS; credentials; traces and metrics."""
    return [
        {"ports": [port(DNS, "UDP"), port(DNS)]},
        {"ports": [port(443)]},
        {"to": [{"ipBlock": {"cidr": POD_IDENTITY}}], "ports": [port(80)]},
        {"to": [monitoring], "ports": [*map(port, (*OTLP, PROMETHEUS, GRAFANA))]},
    ]


def both(scenario: Scenario, peer: Manifest, opened: list[Manifest]) -> Manifest:
    return {
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [peer], "ports": opened}],
        "egress": [{"to": [peer], "ports": opened}],
    }


def ingress(peers: list[Manifest], opened: list[Manifest]) -> Manifest:
    return {"policyTypes": ["Ingress"], "ingress": [{"from": peers, "ports": opened}]}


def namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def port(number: int, protocol: str = "TCP") -> Manifest:
    return {"protocol": protocol, "port": number}


def span(first: int, last: int) -> Manifest:
    return port(first) | ({"endPort": last} if last > first else {})


def policy(scenario: Scenario, name: str, selector: dict[str, Any], spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": f"{scenario.name}-{name}",
            "namespace": scenario.namespace,
            "labels": labels(scenario),
        },
        "spec": {"podSelector": selector} | spec,
    }
