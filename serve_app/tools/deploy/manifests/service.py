"""The RayService and its load balancer."""

from serve_app.tools.deploy import ports
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.manifests.cluster import cluster
from serve_app.tools.deploy.manifests.pods import labels
from serve_app.tools.deploy.scenarios.scenario import LoadBalancer, Scenario, Upgrade
from serve_app.tools.deploy.scenarios.serving import serve_config_text

STRATEGIES = {"new-cluster": "NewCluster", "incremental": "NewClusterWithIncrementalUpgrade", "none": "None"}
SERVED = {"serve": ports.HTTP, "serve-grpc": ports.GRPC}
NLB = "service.beta.kubernetes.io/aws-load-balancer-"


def ray_service(scenario: Scenario) -> Manifest:
    spec: Manifest = {
        "upgradeStrategy": upgrade(scenario.upgrade),
        "rayClusterDeletionDelaySeconds": scenario.deletion_delay_s,
        "serveConfigV2": serve_config_text(scenario),
        "rayClusterConfig": cluster(scenario),
    }
    if "routers" in scenario.workers:
        spec["excludeHeadPodFromServeSvc"] = True
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": scenario.name,
            "namespace": scenario.namespace,
            "labels": labels(scenario) | {"serve-app/scenario": scenario.scenario},
            # KubeRay gives up after this; nodes, images and engines take minutes
            "annotations": {"ray.io/initializing-timeout": f"{scenario.initializing_timeout_s}s"},
        },
        "spec": spec,
    }


def upgrade(chosen: Upgrade) -> Manifest:
    found: Manifest = {"type": STRATEGIES[chosen.strategy]}
    if chosen.strategy == "incremental":
        found["clusterUpgradeOptions"] = {
            "gatewayClassName": chosen.gateway_class,
            "stepSizePercent": chosen.step_percent,
            "intervalSeconds": chosen.interval_s,
            "maxSurgePercent": chosen.max_surge_percent,
        }
    return found


def load_balancer(scenario: Scenario, balancer: LoadBalancer) -> Manifest:
    """An AWS network load balancer over the ready pods of all clusters of the service.

    KubeRay's own Service changes its selector when another cluster takes over, which would leave a load balancer
    without targets for a while. This one selects the pods of both clusters and health-checks each of them.
    """
    annotations = {
        f"{NLB}scheme": "internal" if balancer.internal else "internet-facing",
        f"{NLB}nlb-target-type": "ip",
        f"{NLB}healthcheck-protocol": "http",
        f"{NLB}healthcheck-port": str(ports.HTTP),
        f"{NLB}healthcheck-path": "/v2/health/ready",
        f"{NLB}healthcheck-interval": "10",
        f"{NLB}healthcheck-healthy-threshold": "2",
        f"{NLB}healthcheck-unhealthy-threshold": "2",
        f"{NLB}attributes": "load_balancing.cross_zone.enabled=true",
        f"{NLB}target-group-attributes": "deregistration_delay.timeout_seconds=60,preserve_client_ip.enabled=false",
    }
    if balancer.certificate:
        annotations |= {
            f"{NLB}ssl-cert": balancer.certificate,
            f"{NLB}ssl-ports": f"{ports.HTTP},{ports.GRPC}",
            f"{NLB}alpn-policy": "HTTP2Optional",  # gRPC clients require it
        }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": scenario.name,
            "namespace": scenario.namespace,
            "labels": labels(scenario),
            "annotations": annotations,
        },
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": "service.k8s.aws/nlb",
            "loadBalancerSourceRanges": list(balancer.clients or (balancer.vpc,)),
            "allocateLoadBalancerNodePorts": False,
            "selector": {"app.kubernetes.io/instance": scenario.name, "ray.io/serve": "true"},
            "ports": [{"name": name, "port": port} for name, port in SERVED.items()],
        },
    }
