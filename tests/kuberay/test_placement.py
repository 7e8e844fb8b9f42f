"""Where pods and replicas fit, what a disruption leaves, and how another cluster takes over."""

import math

from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from serve_app.settings import settings_of


def demands(rendering):
    """What one replica of each deployment asks of Ray, its labels, and its least number of replicas."""
    settings = settings_of(rendering.serve, rendering.scenario.environment)
    for name, one in rendering.options.items():
        actor = one.get("ray_actor_options") or {}
        resources = {"CPU": actor.get("num_cpus", 1), "GPU": actor.get("num_gpus", 0)} | actor.get("resources", {})
        scaling = one.get("autoscaling_config") or {}
        yield name, resources, actor.get("label_selector"), scaling.get("min_replicas", one.get("num_replicas", 1))
    for model in settings.llms:
        gpu = model.num_gpus if model.accelerator == "gpu" else 0
        workers = int(model.engine.get("tensor_parallel_size", 1))
        scaling = model.deployment.get("autoscaling_config") or {}
        resources = {"CPU": model.num_cpus * workers, "GPU": gpu * workers} | model.resources
        yield model.name, resources, None, scaling.get("min_replicas", 1)


def test_the_fewest_pods_have_room_for_the_fewest_replicas(renderings):
    """By what Ray's autoscaler takes each group to be."""
    for rendering in renderings:
        custom = {"metadata": {"name": "x", "namespace": "y"}, "spec": rendering.cluster}
        groups = _derive_autoscaling_config_from_ray_cr(custom)["available_node_types"]
        (head,) = set(groups) - {one["groupName"] for one in rendering.cluster["workerGroupSpecs"]}
        pods = {name: max(group["min_workers"], 1) for name, group in groups.items()} | {head: 1}
        taken = {name: {"CPU": 0.0, "GPU": 0.0} for name in groups}
        for name, resources, labels, replicas in demands(rendering):
            fitting = [
                group
                for group, has in groups.items()
                if all(has["resources"].get(key, 0) >= amount for key, amount in resources.items())
                and all(has["labels"].get(key) == value for key, value in (labels or {}).items())
            ]
            assert len(fitting) == 1, f"{name} fits on {fitting or 'nothing'}"
            for key in ("CPU", "GPU"):
                taken[fitting[0]][key] += resources.get(key, 0) * replicas
        for name, sums in taken.items():
            for key, amount in sums.items():
                room = groups[name]["resources"].get(key, 0) * pods[name]
                assert amount <= room + 1e-9, f"{name}: {amount} {key} of {room}"


def test_pods_ask_kubernetes_for_the_gpus_that_ray_counts_and_for_a_machine_of_that_size(renderings):
    for rendering in renderings:
        for group in rendering.groups.values():
            pod = group["template"]["spec"]
            resources = pod["containers"][0]["resources"]
            gpus = group["resources"].get("GPU", "0")
            for kind in ("requests", "limits"):
                assert resources[kind].get("nvidia.com/gpu", "0") == gpus
            assert bool(pod.get("tolerations")) == (gpus != "0")
            if (cpus := int(group["resources"]["CPU"])) > 0:
                assert cpus == math.floor(float(resources["requests"]["cpu"]))
            affinity = pod.get("affinity", {}).get("nodeAffinity", {})
            required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
            expressions = required["nodeSelectorTerms"][0]["matchExpressions"] if required else []
            wanted = {one["key"]: one["values"] for one in expressions}
            assert wanted.get("karpenter.k8s.aws/instance-gpu-count") == (None if gpus == "0" else [gpus])


def test_work_in_flight_has_time_to_finish_before_a_pod_ends(renderings):
    for rendering in renderings:
        settings, drain_s = settings_of(rendering.serve), rendering.scenario.drain_s
        assert drain_s >= max([triton.drain_timeout_s + 10 for triton in settings.triton] + [60 for _ in settings.llms])
        for name, pod in rendering.pods.items():
            works = name != "head" or rendering.scenario.head.works
            spot = rendering.scenario.is_spot(name)
            least_s = min(drain_s, 90) if spot else drain_s
            assert (pod["terminationGracePeriodSeconds"] > least_s) == works, name
            assert not spot or pod["terminationGracePeriodSeconds"] < 120, "AWS takes the machine then"
            if name != "head":
                (command,) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2:]
                assert f"--deadline-remaining-seconds {least_s}" in command


def test_a_disruption_leaves_all_but_one_pod_and_at_least_one(renderings):
    """As minAvailable: Kubernetes can count nothing else for pods of a RayCluster, which has no scale subresource."""
    for rendering in renderings:
        scenario = rendering.scenario
        budgets = {one["metadata"]["name"]: one["spec"] for one in rendering.of_kind("PodDisruptionBudget")}
        stays = {role: group for role, group in scenario.workers.items() if not group.spot}
        least = {f"{scenario.name}-{role}": max(group.min - 1, 1) for role, group in stays.items()}
        least |= {} if scenario.head_store else {f"{scenario.name}-head": 1}
        assert {name: budget["minAvailable"] for name, budget in budgets.items()} == least
        for budget in budgets.values():
            selector = budget["selector"]["matchLabels"]
            group = rendering.groups[selector["app.kubernetes.io/component"]]
            assert selector.items() <= group["template"]["metadata"]["labels"].items()


def test_only_groups_that_say_so_get_spot_machines_which_they_can_leave(renderings):
    for rendering in renderings:
        for name, group in rendering.groups.items():
            pod, spot = group["template"]["spec"], rendering.scenario.is_spot(name)
            affinity = pod.get("affinity", {}).get("nodeAffinity", {})
            terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [{}])
            capacity = {"key": "karpenter.sh/capacity-type", "operator": "In" if spot else "NotIn", "values": ["spot"]}
            assert (capacity in terms[0].get("matchExpressions", [])) == bool(terms[0]), name
            assert ("karpenter.sh/do-not-disrupt" in group["template"]["metadata"]["annotations"]) != spot, name


def test_a_priority_class_is_the_groups_own(renderings):
    (rendering,) = [one for one in renderings if one.name == "spot"]
    classes = {name: pod.get("priorityClassName") for name, pod in rendering.pods.items()}
    assert classes == {"head": "higher", "routers": None, "vision": None, "llm": "high"}


def test_the_load_balancer_selects_ready_pods_of_both_clusters(renderings):
    for rendering in renderings:
        scenario = rendering.scenario
        assert bool(rendering.balancers) == bool(scenario.load_balancer)
        for one in rendering.balancers:
            instance = {"app.kubernetes.io/instance": scenario.name}
            assert one["spec"]["selector"] == instance | {"ray.io/serve": "true"}  # KubeRay sets the second
            for group in rendering.cluster["workerGroupSpecs"]:
                assert instance.items() <= group["template"]["metadata"]["labels"].items()
            annotations = {
                key.partition("aws-load-balancer-")[2]: value for key, value in one["metadata"]["annotations"].items()
            }
            assert (annotations["nlb-target-type"], annotations["healthcheck-path"]) == ("ip", "/v2/health/ready")
            assert ("ssl-cert" in annotations) == (annotations.get("alpn-policy") == "HTTP2Optional")


def test_high_availability_survives_the_loss_of_any_one_machine(renderings):
    (rendering,) = [one for one in renderings if one.name == "high-availability"]
    assert rendering.cluster["gcsFaultToleranceOptions"]["redisAddress"] == "serve-app-redis:6379"
    assert rendering.groups["head"]["resources"]["CPU"] == "0"
    assert rendering.service["spec"]["excludeHeadPodFromServeSvc"]
    for role in ("routers", "vision"):
        group = rendering.groups[role]
        assert group["minReplicas"] >= 2
        spread = {one["topologyKey"]: one for one in group["template"]["spec"]["topologySpreadConstraints"]}
        assert spread["kubernetes.io/hostname"]["whenUnsatisfiable"] == "DoNotSchedule"
    for name in ("router", "vision", "streaming", "bulk"):
        options = rendering.options[name]
        least = options["autoscaling_config"]["min_replicas"]
        assert least > options["max_replicas_per_node"], f"all of {name} could be on one machine"


def test_an_incremental_upgrade_has_its_gateway(renderings):
    for rendering in renderings:
        strategy = rendering.service["spec"]["upgradeStrategy"]
        gateways = [one["spec"] for one in rendering.manifests if one["metadata"]["name"].endswith("-gateway")]
        if rendering.scenario.upgrade.strategy != "incremental":
            assert (strategy, gateways) == ({"type": "NewCluster"}, [])
            continue
        assert strategy["type"] == "NewClusterWithIncrementalUpgrade"
        assert strategy["clusterUpgradeOptions"]["gatewayClassName"] == "istio"
        (gateway,) = gateways
        labels = gateway["podSelector"]["matchLabels"]
        assert labels == {"gateway.networking.k8s.io/gateway-name": "serve-app-gateway"}
