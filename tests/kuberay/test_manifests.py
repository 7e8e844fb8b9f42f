"""Every rendering of a scenario: what a strict API server says of it, and that its parts agree."""

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

IMAGES = PROJECT_ROOT / "kuberay" / "images"


def containers_of(pod):
    return [*pod.get("initContainers", ()), *pod["containers"]]


def image_of(container):
    return container["image"].split("/")[-1].split(":")[0]


def test_the_committed_manifests_are_what_the_scenarios_render_with_their_purpose_and_needs():
    scenarios = [read_scenario(name) for name in scenario_names()]
    assert set((PROJECT_ROOT / "kuberay" / "manifests").glob("*/rayservice.yaml")) == set(map(file_of, scenarios))
    for scenario in scenarios:
        committed = file_of(scenario).read_text()
        assert committed == text_of(scenario), f"run scripts/deploy render {scenario.scenario} --write"
        assert list(yaml.safe_load_all(committed)) == render(scenario)
        assert committed.startswith("# ")
        assert "# needs: " in committed


def test_a_strict_api_accepts_every_object_and_pod_and_refuses_unknown_fields(renderings, refusals):
    for rendering in renderings:
        pods = [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}
            for name, pod in rendering.pods.items()
        ]
        for one in (*rendering.manifests, *pods):
            assert refusals(one) == [], f"{one['kind']} {one['metadata']['name']}"
    *_, service = render(read_scenario("yolo-gpu"))
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagePolicy"] = "x"
    (refusal,) = refusals(service)
    assert "('imagePolicy' was unexpected)" in refusal


def test_objects_have_the_names_and_labels_of_their_scenario(renderings):
    for rendering in renderings:
        scenario, manifests = rendering.scenario, rendering.manifests
        for one in manifests:
            assert one["metadata"].get("namespace", scenario.namespace) == scenario.namespace
            assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "serve-app-deploy"
            assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == scenario.name
        kinds = [(one["kind"], one["metadata"]["name"]) for one in manifests]
        assert len(set(kinds)) == len(kinds)
        assert (kinds[0][0], kinds[-1][0]) == ("Namespace", "RayService")


@pytest.mark.timeout(300)  # importing ray.serve.llm takes 20 s of a processor
def test_ray_serve_accepts_the_configuration_and_the_application_builds_from_it(renderings, monkeypatch):
    # ray.serve.llm would start a cluster to answer this
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    for rendering in renderings:
        (application,) = ServeDeploySchema.model_validate(rendering.serve).applications
        assert application.import_path == "serve_app.app:build"
        bound = build(application.args)._bound_deployment
        *_, tracks, deployments = bound.init_args
        playground = {"playground"} if bound.init_kwargs.get("playground") else set()
        assert set(rendering.options) <= {bound.name, *deployments} | playground
        settings = settings_of(rendering.serve)
        assert bool(tracks) == bool(settings.triton)
        for model in settings.llms:
            bundles = deployments[model.name]._bound_deployment._replica_config.placement_group_bundles
            assert all(bundle.get("llm") == model.resources.get("llm") for bundle in bundles)


def test_all_pods_have_one_version_of_ray_and_one_tag_of_images_that_have_a_dockerfile(renderings):
    (pinned,) = re.findall(r"(?m)^ray\[serve\]==(\S+)$", (PROJECT_ROOT / "requirements" / "runtime.in").read_text())
    for rendering in renderings:
        assert rendering.cluster["rayVersion"] == pinned
        images = rendering.scenario.images
        for container in (one for pod in rendering.pods.values() for one in containers_of(pod)):
            assert container["image"] == f"{images.registry}/{image_of(container)}:{images.tag}"
            assert (IMAGES / f"{image_of(container)}.Dockerfile").is_file()


def test_the_pods_on_which_serve_builds_the_application_have_an_image_that_can(renderings):
    """Serve builds it where it places routers; building language models needs vLLM."""
    for rendering in renderings:
        groups, workers = rendering.groups, rendering.scenario.workers
        builders = [one for one in groups.values() if one.get("labels", {}).get("serve-app/role") == "routers"]
        builders = builders if workers else [groups["head"]]
        assert builders
        able = {"cpu", "llm"} if settings_of(rendering.serve).llms else {"cpu", "head", "llm"}
        assert {image_of(one["template"]["spec"]["containers"][0]) for one in builders} <= able
        actors = [one.get("ray_actor_options") or {} for one in rendering.options.values()]
        selectors = [actor["label_selector"] for actor in actors if actor.get("label_selector")]
        assert all(selector == {"serve-app/role": "routers"} for selector in selectors)
        assert bool(selectors) == bool(workers)


def test_ports_agree_between_serve_containers_services_and_network_policies(renderings):
    for rendering in renderings:
        serve, policies = rendering.serve, rendering.policies
        assert (serve["http_options"]["port"], serve["grpc_options"]["port"]) == (8000, 8001)
        for pod in rendering.pods.values():
            ports = {one["name"]: one["containerPort"] for one in pod["containers"][0]["ports"]}
            assert (ports["serve"], ports["serve-grpc"], ports["metrics"]) == (8000, 8001, 8080)
        assert "serveService" not in rendering.service["spec"]
        for one in rendering.balancers:
            assert {port["name"]: port["port"] for port in one["spec"]["ports"]} == {"serve": 8000, "serve-grpc": 8001}
        assert [one["port"] for one in policies["clients"]["ingress"][0]["ports"]] == [8000, 8001]
        assert {one["port"] for one in policies["operator"]["ingress"][0]["ports"]} == {8265, 52365, 8000}
        params = rendering.cluster["headGroupSpec"]["rayStartParams"]
        fixed = {int(value) for key, value in params.items() if key.endswith("-port")}
        opened = policies["ray"]["ingress"][0]["ports"]
        for port in {*fixed, 8000, 8001, 8265, 6379, 30000, 31000, 40000, 41000, 60999} - {52365}:
            assert any(one["port"] <= port <= one.get("endPort", one["port"]) for one in opened), port


def test_every_ray_process_starts_with_the_variables_of_ray_env(renderings):
    wanted = read_environment_file(PROJECT_ROOT / "configs" / "ray.env")
    for rendering in renderings:
        for pod in rendering.pods.values():
            found = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
            differing = {name for name, value in wanted.items() if found.get(name) != value}
            assert differing <= {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"}
            assert found["RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL"] == "minor"
            assert (found["RAY_SERVE_ENABLE_HA_PROXY"], found["RAY_SERVE_THROUGHPUT_OPTIMIZED"]) == ("1", "1")


def test_the_local_scenario_serves_the_committed_configuration_and_asks_for_keys():
    *_, service = render(read_scenario("local-cpu"))
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert application["args"]["router"]["keys_file"] == "/etc/serve_app/keys/keys.yaml"
    *_, service = render(read_scenario("local-cpu", ["keys=null"]))
    path = PROJECT_ROOT / "configs" / "serve.yaml"
    assert service["spec"]["serveConfigV2"] == path.read_text()
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == read_config(path)


def test_models_are_pulled_before_ray_starts_and_followed_after(renderings):
    for rendering in renderings:
        models, workers = rendering.scenario.models, rendering.scenario.workers
        for name, pod in rendering.pods.items():
            pulls = pod.get("initContainers", [])
            assert len(pulls) == bool(models and (name == "vision" or "vision" not in workers))
            for pull in pulls:
                assert pull["restartPolicy"] == "Always"
                assert pull["command"][2:5] == ["pull", models.url, "/models"]
                assert pull["startupProbe"]["exec"]["command"] == ["test", "-e", "/models/current"]
                assert pull["image"] == pod["containers"][0]["image"]
        if models:
            assert str(settings_of(rendering.serve).detection.model_repository) == "/models/current"
