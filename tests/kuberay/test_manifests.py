"""Every committed manifest and every rendering: what the API would say of it, and that its parts agree."""

import re
from types import SimpleNamespace

import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.app import build
from serve_app.settings import PROJECT_ROOT, read_config, read_environment_file, settings_of
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.files import file_of, text_of
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names


def containers_of(spec):
    return [*spec.get("initContainers", ()), *spec["containers"]]


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


def test_pods_of_the_cluster_are_pods_that_a_strict_api_takes(refusals, pods):
    for name, spec in pods.items():
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


def test_the_application_is_built_with_no_engine_started(serve, monkeypatch, options):
    # ray.serve.llm asks for this, and would start a cluster to answer
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    (application,) = serve["applications"]
    bound = build(application["args"])._bound_deployment
    _settings, tracks, deployments = bound.init_args
    named = {bound.name, *deployments} | ({"playground"} if bound.init_kwargs.get("playground") else set())
    assert set(options) <= named
    settings = settings_of(serve)
    assert bool(tracks) == bool(settings.triton)
    wanted = {name: one._bound_deployment._replica_config.placement_group_bundles for name, one in deployments.items()}
    for model in settings.llms:
        assert all(bundle.get("llm") == model.resources.get("llm") for bundle in wanted[model.name])


def test_one_version_of_ray_and_one_tag_of_images(cluster, scenario, pods):
    (pinned,) = re.findall(r"(?m)^ray\[serve\]==(\S+)$", (PROJECT_ROOT / "requirements" / "runtime.in").read_text())
    assert cluster["rayVersion"] == pinned
    for spec in pods.values():
        for container in containers_of(spec):
            registry, _, rest = container["image"].rpartition("/")
            assert registry == scenario.images.registry
            assert re.fullmatch(rf"(cpu|head|vision|llm):{re.escape(scenario.images.tag)}", rest)


def test_every_image_has_a_dockerfile():
    for name in scenario_names():
        scenario = read_scenario(name)
        for group in (scenario.head, *scenario.workers.values()):
            assert (PROJECT_ROOT / "kuberay" / "images" / f"{group.image}.Dockerfile").is_file()


def test_whoever_builds_the_application_has_the_image_for_it(serve, scenario, groups, options):
    """Serve builds it on the pods that routers are placed on; the builder of language models needs vLLM."""
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
        for one in options.values()
        if (one.get("ray_actor_options") or {}).get("label_selector")
    ]
    assert all(selector == {"serve-app/role": "routers"} for selector in selectors)
    assert bool(selectors) == bool(scenario.workers)


def test_ports_agree_between_serve_containers_services_and_policies(service, cluster, serve, manifests, pods):
    assert (serve["http_options"]["port"], serve["grpc_options"]["port"]) == (8000, 8001)
    for spec in pods.values():
        ports = {one["name"]: one["containerPort"] for one in spec["containers"][0]["ports"]}
        assert (ports["serve"], ports["serve-grpc"], ports["metrics"]) == (8000, 8001, 8080)
    assert "serveService" not in service["spec"]
    for balanced in (
        one for one in manifests if one["kind"] == "Service" and one["spec"].get("type") == "LoadBalancer"
    ):
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


def test_every_process_of_ray_starts_with_the_same_variables(pods):
    wanted = read_environment_file(PROJECT_ROOT / "configs" / "ray.env")
    for spec in pods.values():
        found = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
        differing = {name for name, value in wanted.items() if found.get(name) != value}
        assert differing <= {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"}
        assert found["RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL"] == "minor"
        assert (found["RAY_SERVE_ENABLE_HA_PROXY"], found["RAY_SERVE_THROUGHPUT_OPTIMIZED"]) == ("1", "1")


def test_the_local_scenario_serves_the_committed_file_as_it_is():
    *_, service = render(read_scenario("local-cpu"))
    path = PROJECT_ROOT / "configs" / "serve.yaml"
    assert service["spec"]["serveConfigV2"] == path.read_text()
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == read_config(path)


def test_the_store_of_models_is_read_before_ray_starts_and_followed_after(serve, scenario, pods):
    for name, spec in pods.items():
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
