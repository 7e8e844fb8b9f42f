"""Scenarios, their overrides, and the Serve configuration they result in."""

import pytest
import yaml

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.files import keep_scenario, text_of, write
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names
from serve_app.tools.deploy.scenarios.serving import serve_config
from serve_app.tools.deploy.yaml_format import to_yaml


def refusal(name, *overrides):
    with pytest.raises(ConfigurationError) as caught:
        render(read_scenario(name, overrides))
    return caught.value.message


def arguments_of(name, *overrides):
    (application,) = serve_config(read_scenario(name, overrides))["applications"]
    return application["args"], {one["name"]: one for one in application["deployments"]}


def test_an_unknown_scenario_is_refused_with_the_known_ones():
    assert scenario_names() == ("all", "high-availability", "llm-gpu", "local-cpu", "yolo-gpu")
    for name, hint in (
        ("yolo-gpus", "; did you mean 'yolo-gpu'?"),
        ("zzz", "; known: all, high-availability, llm-gpu, local-cpu, yolo-gpu"),
    ):
        assert refusal(name) == f"no scenario {name!r} in kuberay/scenarios, and no such file{hint}"


def test_an_invalid_override_is_refused_with_the_reason():
    for override, message in (
        ("nmae=x", "unknown key 'nmae'; did you mean 'name'?"),
        ("images.tga=1", "images: unknown key 'tga'; did you mean 'tag'?"),
        ("workers.vison.max=2", "workers.vison.[key]: Input should be 'routers', 'vision' or 'llm'"),
        ("images.tag", "--set 'images.tag': expected KEY=VALUE, such as images.tag=1.2"),
        ("name.first=x", "name: Input should be a valid string"),
        ("purpose.x=1", "--set 'purpose.x=1': purpose has no keys, its value is"),
        ("images.tag=latest", "images.tag: must be a fixed tag, got latest"),
        ("images.tag={a", "--set 'images.tag={a': '{a' isn't valid YAML"),
        ("namespace=Not_A_Name", "namespace: String should match pattern"),
        ("namespace=default", "namespace: default is shared with others; give the service one of its own"),
        ("namespace=kube-system", "namespace: kube-system is shared with others"),
        ("initializing_timeout_s=soon", "initializing_timeout_s: Input should be a valid integer"),
        ("workers.vision.min=9", "workers.vision: min must not be greater than max, got min 9 and max 8"),
        ("workers.vision.memory=lots", "workers.vision.memory: String should match pattern"),
        ("models.url=https://bucket", "models.url: String should match pattern"),
        ("upgrade.strategy=incremental", "upgrade: strategy incremental needs gateway_class"),
        ("head_store.address=nowhere", "head_store.address: String should match pattern"),
        ("environment.HF_TOKEN=hf_x", "HF_TOKEN would be readable in the manifest; use a Secret"),
        ("config=configs/none.yaml", "configs/none.yaml: No such file or directory"),
        ("changes.detecton={}", "unknown key 'detecton'; did you mean 'detection'?"),
        ("changes.triton={visoin: {}}", "changes.triton: unknown name 'visoin'; did you mean 'vision'?"),
        ("deployments.vison={num_replicas: 2}", "deployments: unknown name 'vison'; did you mean 'vision'?"),
        ("changes.llms=[{name: one, source: a/b}]", "one needs workers.llm, but the scenario has routers, vision"),
    ):
        found = refusal("yolo-gpu", override)
        assert message in found
        assert "hf_x" not in found


def test_settings_that_do_not_fit_together_are_refused():
    llama2 = ["config=configs/serve.llama2.yaml", "environment.tensor_parallel_size='2'"]
    for name, overrides, message in (
        ("llm-gpu", ["plans.claim=x"], "plans needs workers.vision"),
        ("llm-gpu", ["models.url=s3://bucket/m"], "models needs workers.vision"),
        ("yolo-gpu", ["upgrade.strategy=incremental", "upgrade.gateway_class=istio"], "set load_balancer to null"),
        ("llm-gpu", ["workers=null", "config=configs/serve.yaml"], "workers: Input should be a valid dictionary"),
        ("local-cpu", ["head.works=false"], "no place for replicas: add workers, or set head.works"),
        ("llm-gpu", llama2, "llama2 needs 2 GPUs, but a pod of workers.llm has 1: --set workers.llm.gpus=2"),
        ("yolo-gpu", ["workers.vision.gpus=0"], "vision needs 0.2 GPUs, but a pod of workers.vision has 0"),
        ("yolo-gpu", ["workers.vision.cpu=3"], "vision needs 4 CPUs, but a pod of workers.vision has 3"),
        (
            "local-cpu",
            ["head.cpu=1.5"],
            "the fewest replicas on head need 1.55 CPUs together, but Ray counts 1 of 1.5: --set head.cpu=2",
        ),
        (
            "yolo-gpu",
            ["deployments.router={num_replicas: 99, autoscaling_config: null}"],
            "the fewest replicas on workers.routers need 99 CPUs together, but Ray counts",
        ),
        ("yolo-gpu", ["workers.routers.cpu=0.5"], "router needs 1 CPUs, but a pod of workers.routers has 0"),
    ):
        assert message in refusal(name, *overrides)


def test_proxies_run_on_every_pod_where_there_are_more_than_the_head(tmp_path):
    config = yaml.safe_load((PROJECT_ROOT / "configs" / "serve.gpu.yaml").read_text())
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config | {"proxy_location": "HeadOnly"}))
    assert serve_config(read_scenario("yolo-gpu", [f"config={path}"]))["proxy_location"] == "EveryNode"


def test_overrides_are_yaml_and_numbers_are_read_by_their_key():
    scenario = read_scenario("yolo-gpu", ["images.tag='2'", "workers.vision.max=3", "admin_key=null", "head.pools=[]"])
    found = (scenario.images.tag, scenario.workers["vision"].max, scenario.admin_key, scenario.head.pools)
    assert found == ("2", 3, None, ())
    overrides = [
        "images.tag=1.20",
        "head.cpu=1.5",
        "environment.tensor_parallel_size=2",
        "environment.BUILT=2026-01-15",
        "environment.FAST=yes",
        "environment.EMPTY=",
    ]
    scenario = read_scenario("llm-gpu", [*overrides, "changes.router.max_body_mib=8"])
    assert (scenario.images.tag, scenario.head.cpu) == ("1.20", 1.5)
    texts = {"tensor_parallel_size": "2", "BUILT": "2026-01-15", "FAST": "yes", "EMPTY": ""}
    assert scenario.environment == texts
    assert scenario.changes["router"] == {"max_body_mib": 8}


def test_a_scenario_is_read_from_any_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "purpose": "mine",
                "config": "configs/serve.yaml",
                "head": {"image": "cpu", "cpu": 4, "memory": "16Gi", "works": True},
            }
        )
    )
    scenario = read_scenario(str(path))
    assert (scenario.scenario, scenario.head.cpu) == ("mine", 4)
    assert text_of(scenario).startswith("# mine\n")


def test_a_file_that_is_no_scenario_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- a\n- b\n")
    assert "must contain a mapping, got ['a', 'b']" in refusal(str(path))
    path.write_text("a: [")
    assert "mine.yaml isn't valid YAML" in refusal(str(path))


def test_changes_are_merged_and_named_list_items_by_name():
    arguments, deployments = arguments_of("all", "changes.triton={bulk: null, vision: {cuda_pool_mib: 7}}")
    assert "bulk" not in deployments
    assert [one["name"] for one in arguments["triton"]] == ["vision", "streaming"]
    assert arguments["triton"][0]["cuda_pool_mib"] == 7
    assert arguments["triton"][0]["picture_threads"] == 4
    (model,) = arguments["llms"]
    assert (model["source"], model["num_gpus"], model["resources"]) == ("Qwen/Qwen2.5-3B-Instruct", 1, {"llm": 1})


def test_deployments_are_changed_by_name_and_all_are_placed_on_their_pods():
    _, deployments = arguments_of("yolo-gpu", "deployments.vision={max_ongoing_requests: 9}", "changes.playground={}")
    routers = {"label_selector": {"serve-app/role": "routers"}}
    assert deployments["vision"]["max_ongoing_requests"] == 9
    assert deployments["vision"]["ray_actor_options"] == {"num_cpus": 4, "num_gpus": 0.2, "resources": {"vision": 1}}
    assert deployments["router"]["ray_actor_options"].items() >= routers.items()
    assert deployments["playground"]["ray_actor_options"] == routers


def test_an_engine_sized_by_the_environment_fits_a_larger_pod():
    overrides = ["config=configs/serve.llama2.yaml", "environment.tensor_parallel_size='2'", "workers.llm.gpus=2"]
    *_, service = render(read_scenario("llm-gpu", overrides))
    (worker,) = (one for one in service["spec"]["rayClusterConfig"]["workerGroupSpecs"] if one["groupName"] == "llm")
    container = worker["template"]["spec"]["containers"][0]
    assert {"name": "tensor_parallel_size", "value": "2"} in container["env"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_manifests_survive_a_round_trip_through_yaml():
    manifests = render(read_scenario("all"))
    assert list(yaml.safe_load_all(to_yaml(manifests))) == manifests
    assert "&id" not in to_yaml(manifests)


def test_a_kept_scenario_is_read_back_unchanged(tmp_path):
    for name in scenario_names():
        scenario = read_scenario(name, ["images.registry=mine.example/serve-app", "head.memory=9Gi"])
        path = tmp_path / "kept" / f"cluster.{name}.yaml"
        keep_scenario(scenario, path)
        assert read_scenario(str(path)) == scenario


def test_a_changed_scenario_does_not_overwrite_the_committed_manifest():
    scenario = read_scenario("yolo-gpu", ["head.memory=9Gi"])
    with pytest.raises(ConfigurationError, match=r"differs from kuberay/scenarios/yolo-gpu\.yaml: change that file"):
        write(scenario)
