"""Every committed manifest: what the API would say of it, and that its parts agree with each other."""

import math
import re
from types import SimpleNamespace

import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.serve.schema import ServeDeploySchema

from serve_app.app import build
from serve_app.deploy.files import file_of, text_of
from serve_app.deploy.manifests import render
from serve_app.deploy.scenario import read_scenario, scenario_names
from serve_app.settings import PROJECT_ROOT, read_config, read_environment_file, settings_of

# Renderings that aren't committed: what may be chosen beside the scenarios.
CHOICES = {
    "plans": ("yolo-gpu", ["plans.claim=plans"]),
    "elasticache": ("high-availability", ["head_store.address=cache.example:6380"]),
    "incremental": ("llm-gpu", ["upgrade.strategy=incremental", "upgrade.gateway_class=istio"]),
    "public": ("all", ["load_balancer.internal=false", "load_balancer.certificate=arn:aws:acm:x", "namespace=other"]),
    "llama2": (
        "llm-gpu",
        ["config=configs/serve.llama2.yaml", "environment.tensor_parallel_size='2'", "workers.llm.gpus=2"],
    ),
    "closed": ("local-cpu", ["admin_key={secret: keys, key: admin}", "hub_token={secret: hub, key: token}"]),
    "bucket": ("local-cpu", ["models.url=s3://models/cpu"]),
}
ALL = [*scenario_names(), *CHOICES]


@pytest.fixture(params=ALL)
def scenario(request):
    name, overrides = CHOICES.get(request.param, (request.param, []))
    return read_scenario(name, overrides)


@pytest.fixture
def manifests(scenario):
    return render(scenario)


@pytest.fixture
def service(manifests):
    (found,) = (one for one in manifests if one["kind"] == "RayService")
    return found


@pytest.fixture
def serve(service):
    return yaml.safe_load(service["spec"]["serveConfigV2"])


@pytest.fixture
def cluster(service):
    return service["spec"]["rayClusterConfig"]


def groups_of(cluster):
    return {"head": cluster["headGroupSpec"]} | {one["groupName"]: one for one in cluster["workerGroupSpecs"]}


def pod_specs(cluster):
    return {name: group["template"]["spec"] for name, group in groups_of(cluster).items()}


def containers_of(spec):
    return [*spec.get("initContainers", ()), *spec["containers"]]


def options_of(serve):
    (application,) = serve["applications"]
    return {one["name"]: one for one in application["deployments"]}


@pytest.mark.parametrize("name", scenario_names())
def test_a_committed_manifest_is_what_its_scenario_renders(name):
    scenario = read_scenario(name)
    committed = file_of(scenario).read_text()
    assert committed == text_of(scenario), f"scripts/deploy render {name} --write"
    assert list(yaml.safe_load_all(committed)) == render(scenario)
    assert committed.startswith("# ")
    assert "# needs: " in committed


def test_no_manifest_is_committed_that_no_scenario_makes():
    made = {file_of(read_scenario(name)) for name in scenario_names()}
    assert set((PROJECT_ROOT / "kuberay").glob("rayservice.*.yaml")) == made


def test_a_strict_api_takes_every_object(manifests, refusals):
    assert [f"{one['kind']} {one['metadata']['name']}: {wrong}" for one in manifests for wrong in refusals(one)] == []


def test_pods_of_the_cluster_are_pods_that_a_strict_api_takes(cluster, refusals):
    for name, spec in pod_specs(cluster).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        assert refusals(pod) == []


def test_an_unknown_field_would_be_noticed(refusals):
    *_, service = render(read_scenario("yolo-gpu"))
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagePolicy"] = "x"
    (wrong,) = refusals(service)
    assert "('imagePolicy' was unexpected)" in wrong


def test_names_and_labels_are_those_of_the_scenario(manifests, scenario):
    for one in manifests:
        assert one["metadata"].get("namespace", scenario.namespace) == scenario.namespace
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "serve-app-deploy"
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == scenario.name
    kinds = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(set(kinds)) == len(kinds)
    assert kinds[0][0] == "Namespace"
    assert kinds[-1][0] == "RayService"


def test_ray_serve_takes_the_configuration(serve):
    assert ServeDeploySchema.model_validate(serve).applications[0].import_path == "serve_app.app:build"


def test_the_application_is_built_with_no_engine_started(serve, monkeypatch):
    # ray.serve.llm asks for this, and would start a cluster to answer
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    (application,) = serve["applications"]
    bound = build(application["args"])._bound_deployment
    _settings, tracks, deployments = bound.init_args
    named = {bound.name, *deployments} | ({"playground"} if bound.init_kwargs.get("playground") else set())
    assert set(options_of(serve)) <= named
    settings = settings_of(serve)
    assert bool(tracks) == bool(settings.triton)
    wanted = {name: one._bound_deployment._replica_config.placement_group_bundles for name, one in deployments.items()}
    for model in settings.llms:
        assert all(bundle.get("llm") == model.resources.get("llm") for bundle in wanted[model.name])


def test_one_version_of_ray_and_one_tag_of_images(cluster, scenario):
    (pinned,) = re.findall(r"(?m)^ray\[serve\]==(\S+)$", (PROJECT_ROOT / "requirements" / "runtime.in").read_text())
    assert cluster["rayVersion"] == pinned
    for spec in pod_specs(cluster).values():
        for container in containers_of(spec):
            registry, _, rest = container["image"].rpartition("/")
            assert registry == scenario.images.registry
            assert re.fullmatch(rf"(cpu|head|vision|llm):{re.escape(scenario.images.tag)}", rest)


def test_every_image_has_a_dockerfile():
    for name in scenario_names():
        scenario = read_scenario(name)
        for group in (scenario.head, *scenario.workers.values()):
            assert (PROJECT_ROOT / "kuberay" / "images" / f"{group.image}.Dockerfile").is_file()


def test_whoever_builds_the_application_has_the_image_for_it(cluster, serve, scenario):
    """Serve builds it on the pods that routers are placed on; the builder of language models needs vLLM."""
    groups = groups_of(cluster)
    builders = {name for name, group in groups.items() if group.get("labels", {}).get("serve-app/role") == "routers"}
    if not scenario.workers:
        builders = {"head"}
    assert builders
    for name in builders:
        image = groups[name]["template"]["spec"]["containers"][0]["image"]
        enough = {"cpu", "llm"} if settings_of(serve).llms else {"cpu", "head", "llm"}
        assert image.split("/")[-1].split(":")[0] in enough
    selectors = [
        one["ray_actor_options"]["label_selector"]
        for one in options_of(serve).values()
        if (one.get("ray_actor_options") or {}).get("label_selector")
    ]
    assert all(selector == {"serve-app/role": "routers"} for selector in selectors)
    assert bool(selectors) == bool(scenario.workers)


def test_ports_agree_between_serve_containers_services_and_policies(service, cluster, serve, manifests):
    assert (serve["http_options"]["port"], serve["grpc_options"]["port"]) == (8000, 8001)
    for spec in pod_specs(cluster).values():
        ports = {one["name"]: one["containerPort"] for one in spec["containers"][0]["ports"]}
        assert (ports["serve"], ports["serve-grpc"], ports["metrics"]) == (8000, 8001, 8080)
    if balanced := service["spec"].get("serveService"):
        assert {one["name"]: one["port"] for one in balanced["spec"]["ports"]} == {"serve": 8000, "serve-grpc": 8001}
    policies = {
        one["metadata"]["name"].rpartition("-")[2]: one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"
    }
    assert [one["port"] for one in policies["clients"]["ingress"][0]["ports"]] == [8000, 8001]
    opened = policies["ray"]["ingress"][0]["ports"]
    fixed = {int(value) for key, value in cluster["headGroupSpec"]["rayStartParams"].items() if key.endswith("-port")}
    for port in {*fixed, 8000, 8001, 8265, 6379, 30000, 31000, 40000, 41000, 60999} - {52365}:
        assert any(one["port"] <= port <= one.get("endPort", one["port"]) for one in opened), port
    agents = [one["port"] for one in policies["operator"]["ingress"][0]["ports"]]
    assert set(agents) == {8265, 52365, 8000}


def test_every_process_of_ray_starts_with_the_same_variables(cluster):
    wanted = read_environment_file(PROJECT_ROOT / "configs" / "ray.env")
    for spec in pod_specs(cluster).values():
        found = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
        differing = {name for name, value in wanted.items() if found.get(name) != value}
        assert differing <= {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"}
        assert found["RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL"] == "minor"
        assert (found["RAY_SERVE_ENABLE_HA_PROXY"], found["RAY_SERVE_THROUGHPUT_OPTIMIZED"]) == ("1", "1")


def demands(serve, environment):
    """What each deployment asks of Ray for one replica, and its least number of replicas."""
    settings = settings_of(serve, environment)
    for name, one in options_of(serve).items():
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


def test_the_least_pods_have_room_for_the_least_replicas(cluster, serve, scenario):
    """By Ray's own reading of the cluster: what its autoscaler takes each group to be."""
    custom = {"metadata": {"name": "x", "namespace": "y"}, "spec": cluster}
    groups = _derive_autoscaling_config_from_ray_cr(custom)["available_node_types"]
    head = next(name for name in groups if name not in {one["groupName"] for one in cluster["workerGroupSpecs"]})
    least = {name: max(group["min_workers"], 1) for name, group in groups.items()} | {head: 1}
    taken = {name: {"CPU": 0.0, "GPU": 0.0} for name in groups}
    for name, asked, selector, replicas in demands(serve, scenario.environment):
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


def test_pods_ask_kubernetes_for_the_gpus_that_ray_is_told_of(cluster):
    for group in groups_of(cluster).values():
        spec = group["template"]["spec"]
        given = spec["containers"][0]["resources"]
        gpus = group["resources"].get("GPU", "0")
        assert given["requests"].get("nvidia.com/gpu", "0") == given["limits"].get("nvidia.com/gpu", "0") == gpus
        assert bool(spec.get("tolerations")) == (gpus != "0")
        if (cpus := int(group["resources"]["CPU"])) > 0:
            assert cpus == math.floor(float(given["requests"]["cpu"]))


def test_a_pod_may_do_nothing_that_it_need_not(manifests, cluster, scenario):
    others = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] in ("StatefulSet", "Job")]
    for name, spec in [*pod_specs(cluster).items(), *(("other", spec) for spec in others)]:
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] == (name == "head" and scenario.autoscales)
        assert not any("hostPath" in volume for volume in spec.get("volumes", ()))
        for container in containers_of(spec):
            confined = container["securityContext"]
            assert (confined["allowPrivilegeEscalation"], confined["readOnlyRootFilesystem"]) == (False, True)
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    (namespace,) = (one for one in manifests if one["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_all_that_is_written_goes_to_a_volume(cluster):
    for spec in pod_specs(cluster).values():
        for container in containers_of(spec):
            writable = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
            assert "/tmp" in writable
            for variable in container["env"]:
                value = str(variable.get("value", ""))
                if value.startswith("/"):
                    assert value.startswith(tuple(writable)), variable


def test_volumes_that_are_mounted_are_there(manifests, cluster):
    others = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Job"]
    for spec in [*pod_specs(cluster).values(), *others]:
        there = {one["name"] for one in spec.get("volumes", ())}
        for container in containers_of(spec):
            assert {one["name"] for one in container["volumeMounts"]} <= there


def test_secrets_are_named_and_never_there(manifests, scenario, cluster):
    assert not any(one["kind"] == "Secret" for one in manifests)
    named = {key.secret for key in scenario.secrets}
    text = yaml.safe_dump(manifests, default_flow_style=False)
    found = set(re.findall(r"secretName: (\S+)", text)) | set(
        re.findall(r"secretKeyRef:\n\s+key: \S+\n\s+name: (\S+)", text)
    )
    assert found == named


def test_work_in_flight_has_the_time_that_it_is_given(serve, cluster, scenario):
    settings = settings_of(serve)
    longest = max([triton.drain_timeout_s + 10 for triton in settings.triton] + [60 for _ in settings.llms])
    assert scenario.drain_s >= longest
    for name, spec in pod_specs(cluster).items():
        assert spec["terminationGracePeriodSeconds"] > scenario.drain_s
        if name != "head":
            (command,) = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2:]
            assert f"--deadline-remaining-seconds {scenario.drain_s}" in command


def test_a_disruption_takes_one_pod_and_never_the_only_head(manifests, scenario, cluster):
    budgets = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "PodDisruptionBudget"}
    assert set(budgets) == {f"{scenario.name}-{name}" for name in groups_of(cluster)}
    for name, spec in budgets.items():
        only = name.endswith("-head") and not scenario.head_store
        assert spec["maxUnavailable"] == (0 if only else 1)
        component = spec["selector"]["matchLabels"]["app.kubernetes.io/component"]
        labels = groups_of(cluster)[component]["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_high_availability_survives_any_one_machine():
    *_, service = render(read_scenario("high-availability"))
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"] == "serve-app-redis:6379"
    assert cluster["headGroupSpec"]["resources"]["CPU"] == "0"
    assert service["spec"]["excludeHeadPodFromServeSvc"]
    groups = groups_of(cluster)
    assert all(groups[role]["minReplicas"] >= 2 for role in ("routers", "vision"))
    options = options_of(yaml.safe_load(service["spec"]["serveConfigV2"]))
    for name in ("router", "vision", "streaming", "bulk"):
        least = options[name]["autoscaling_config"]["min_replicas"]
        assert least > options[name]["max_replicas_per_node"], f"all of {name} could be on one machine"


def test_the_local_scenario_serves_the_committed_file_as_it_is():
    *_, service = render(read_scenario("local-cpu"))
    path = PROJECT_ROOT / "configs" / "serve.yaml"
    assert service["spec"]["serveConfigV2"] == path.read_text()
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == read_config(path)


def test_the_store_of_models_is_read_before_ray_starts_and_followed_after(cluster, serve, scenario):
    for name, spec in pod_specs(cluster).items():
        copies = spec.get("initContainers", [])
        reads = scenario.models and (name == "vision" or "vision" not in scenario.workers)
        assert len(copies) == bool(reads)
        for copy in copies:
            assert copy["restartPolicy"] == "Always"
            assert copy["command"][2:5] == ["pull", scenario.models.url, "/models"]
            assert copy["startupProbe"]["exec"]["command"] == ["test", "-e", "/models/current"]
            assert copy["image"] == spec["containers"][0]["image"]
    if scenario.models:
        assert str(settings_of(serve).detection.model_repository) == "/models/current"


def test_an_incremental_upgrade_has_its_gateway():
    *_, service = render(read_scenario(*CHOICES["incremental"]))
    strategy = service["spec"]["upgradeStrategy"]
    assert strategy["type"] == "NewClusterWithIncrementalUpgrade"
    assert strategy["clusterUpgradeOptions"]["gatewayClassName"] == "istio"
