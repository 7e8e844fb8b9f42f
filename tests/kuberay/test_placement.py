"""Pods and replicas: who fits where, what a disruption leaves, and how another cluster takes over."""

import math

import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from serve_app.settings import settings_of
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import read_scenario

EMPTY = {"nodeSelectorTerms": [{"matchExpressions": []}]}


def demands(serve, options, environment):
    """What each deployment asks of Ray for one replica, and its least number of replicas."""
    settings = settings_of(serve, environment)
    for name, one in options.items():
        actor = one.get("ray_actor_options") or {}
        asked = {"CPU": actor.get("num_cpus", 1), "GPU": actor.get("num_gpus", 0)} | actor.get("resources", {})
        scaling = one.get("autoscaling_config") or {}
        yield name, asked, actor.get("label_selector"), scaling.get("min_replicas", one.get("num_replicas", 1))
    for model in settings.llms:
        gpu = model.num_gpus if model.accelerator == "gpu" else 0
        workers = int(model.engine.get("tensor_parallel_size", 1))
        scaling = model.deployment.get("autoscaling_config") or {}
        asked = {"CPU": model.num_cpus * workers, "GPU": gpu * workers} | model.resources
        yield model.name, asked, None, scaling.get("min_replicas", 1)


def test_the_least_pods_have_room_for_the_least_replicas(cluster, serve, scenario, options):
    """By Ray's own reading of the cluster: what its autoscaler takes each group to be."""
    custom = {"metadata": {"name": "x", "namespace": "y"}, "spec": cluster}
    groups = _derive_autoscaling_config_from_ray_cr(custom)["available_node_types"]
    head = next(name for name in groups if name not in {one["groupName"] for one in cluster["workerGroupSpecs"]})
    least = {name: max(group["min_workers"], 1) for name, group in groups.items()} | {head: 1}
    taken = {name: {"CPU": 0.0, "GPU": 0.0} for name in groups}
    for name, asked, selector, replicas in demands(serve, options, scenario.environment):
        fitting = [
            group
            for group, has in groups.items()
            if all(has["resources"].get(key, 0) >= amount for key, amount in asked.items())
            and all(has["labels"].get(key) == value for key, value in (selector or {}).items())
        ]
        assert len(fitting) == 1, f"{name} fits on {fitting or 'nothing'}"
        for key in ("CPU", "GPU"):
            taken[fitting[0]][key] += asked.get(key, 0) * replicas
    for name, sums in taken.items():
        for key, amount in sums.items():
            room = groups[name]["resources"].get(key, 0) * least[name]
            assert amount <= room + 1e-9, f"{name}: {amount} {key} of {room}"


def test_pods_ask_kubernetes_for_the_gpus_that_ray_is_told_of(groups):
    for group in groups.values():
        spec = group["template"]["spec"]
        given = spec["containers"][0]["resources"]
        gpus = group["resources"].get("GPU", "0")
        assert given["requests"].get("nvidia.com/gpu", "0") == given["limits"].get("nvidia.com/gpu", "0") == gpus
        assert bool(spec.get("tolerations")) == (gpus != "0")
        if (cpus := int(group["resources"]["CPU"])) > 0:
            assert cpus == math.floor(float(given["requests"]["cpu"]))


def test_a_gpu_pod_gets_a_machine_of_its_size(groups):
    for group in groups.values():
        spec = group["template"]["spec"]
        gpus = spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        affinity = (
            spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
        )
        wanted = {one["key"]: one["values"] for one in (affinity or EMPTY)["nodeSelectorTerms"][0]["matchExpressions"]}
        assert wanted.get("karpenter.k8s.aws/instance-gpu-count") == ([gpus] if gpus else None)


def test_work_in_flight_has_the_time_that_it_is_given(serve, scenario, pods):
    settings = settings_of(serve)
    longest = max([triton.drain_timeout_s + 10 for triton in settings.triton] + [60 for _ in settings.llms])
    assert scenario.drain_s >= longest
    for name, spec in pods.items():
        assert spec["terminationGracePeriodSeconds"] > scenario.drain_s
        if name != "head":
            (command,) = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2:]
            assert f"--deadline-remaining-seconds {scenario.drain_s}" in command


def test_a_disruption_leaves_all_but_one_pod_and_always_one(manifests, scenario, groups, pods):
    """Kubernetes can count minAvailable alone for pods of an owner that has no scale subresource, as a RayCluster."""
    budgets = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "PodDisruptionBudget"}
    least = {f"{scenario.name}-{role}": max(group.min - 1, 1) for role, group in scenario.workers.items()}
    if not scenario.head_store:
        least[f"{scenario.name}-head"] = 1
    assert {name: spec["minAvailable"] for name, spec in budgets.items()} == least
    for spec in budgets.values():
        component = spec["selector"]["matchLabels"]["app.kubernetes.io/component"]
        labels = groups[component]["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_the_load_balancer_has_the_pods_of_either_cluster_once_they_are_ready(manifests, cluster, scenario):
    balancers = [one for one in manifests if one["kind"] == "Service" and one["spec"].get("type") == "LoadBalancer"]
    assert bool(balancers) == bool(scenario.load_balancer)
    for one in balancers:
        selector = one["spec"]["selector"]
        assert selector == {
            "app.kubernetes.io/instance": scenario.name,
            "ray.io/serve": "true",
        }  # KubeRay adds the last
        for group in cluster["workerGroupSpecs"]:
            assert group["template"]["metadata"]["labels"]["app.kubernetes.io/instance"] == scenario.name
        annotations = {
            key.partition("aws-load-balancer-")[2]: value for key, value in one["metadata"]["annotations"].items()
        }
        assert (annotations["nlb-target-type"], annotations["healthcheck-path"]) == ("ip", "/v2/health/ready")
        assert ("ssl-cert" in annotations) == (annotations.get("alpn-policy") == "HTTP2Optional")


def test_high_availability_survives_any_one_machine():
    *_, service = render(read_scenario("high-availability"))
    cluster = service["spec"]["rayClusterConfig"]
    groups = {one["groupName"]: one for one in cluster["workerGroupSpecs"]}
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    options = {one["name"]: one for one in application["deployments"]}
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"] == "serve-app-redis:6379"
    assert cluster["headGroupSpec"]["resources"]["CPU"] == "0"
    assert service["spec"]["excludeHeadPodFromServeSvc"]
    assert all(groups[role]["minReplicas"] >= 2 for role in ("routers", "vision"))
    for role in ("routers", "vision"):
        spread = {one["topologyKey"]: one for one in groups[role]["template"]["spec"]["topologySpreadConstraints"]}
        assert spread["kubernetes.io/hostname"]["whenUnsatisfiable"] == "DoNotSchedule"
    for name in ("router", "vision", "streaming", "bulk"):
        least = options[name]["autoscaling_config"]["min_replicas"]
        assert least > options[name]["max_replicas_per_node"], f"all of {name} could be on one machine"


def test_an_incremental_upgrade_has_its_gateway(scenario, manifests, service):
    strategy = service["spec"]["upgradeStrategy"]
    gateways = [one["spec"] for one in manifests if one["metadata"]["name"].endswith("-gateway")]
    if scenario.upgrade.strategy != "incremental":
        assert (strategy, gateways) == ({"type": "NewCluster"}, [])
        return
    assert strategy["type"] == "NewClusterWithIncrementalUpgrade"
    assert strategy["clusterUpgradeOptions"]["gatewayClassName"] == "istio"
    (gateway,) = gateways
    assert gateway["podSelector"]["matchLabels"] == {"gateway.networking.k8s.io/gateway-name": "serve-app-gateway"}
