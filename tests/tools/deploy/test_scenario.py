"""What a scenario may say, what overrides do to it, and what becomes of the Serve configuration."""

import pytest
import yaml

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.files import keep_scenario, text_of, to_yaml, write
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names
from serve_app.tools.deploy.scenarios.serving import serve_config


def refusal(name, *overrides):
    with pytest.raises(ConfigurationError) as caught:
        render(read_scenario(name, overrides))
    return caught.value.message


def arguments_of(name, *overrides):
    (application,) = serve_config(read_scenario(name, overrides))["applications"]
    return application["args"], {one["name"]: one for one in application["deployments"]}


def test_there_are_five_scenarios():
    assert scenario_names() == ("all", "high-availability", "llm-gpu", "local-cpu", "yolo-gpu")


def test_an_unknown_scenario_is_refused_with_the_nearest():
    assert refusal("yolo-gpus") == (
        "no scenario 'yolo-gpus' in kuberay/scenarios, and no such file; did you mean 'yolo-gpu'?"
    )


def test_an_unknown_scenario_like_no_other_is_refused_with_all_there_are():
    assert refusal("zzz").endswith("; there are all, high-availability, llm-gpu, local-cpu, yolo-gpu")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nmae=x", "unknown key 'nmae'; did you mean 'name'?"),
        ("images.tga=1", "images: unknown key 'tga'; did you mean 'tag'?"),
        ("workers.vison.max=2", "workers.vison.[key]: Input should be 'routers', 'vision' or 'llm'"),
        ("images.tag", "--set 'images.tag': write key=value, with dots to go down: images.tag=1.2"),
        ("name.first=x", "name: Input should be a valid string"),
        ("purpose.x=1", "--set 'purpose.x=1': purpose has the value"),
        ("images.tag=latest", "images.tag: latest is another image every week; name the one that was tested"),
        ("images.tag={a", "--set 'images.tag={a': '{a' is not YAML"),
        ("namespace=Not_A_Name", "namespace: String should match pattern"),
        ("workers.vision.min=9", "workers.vision: min 9 is over max 8"),
        ("workers.vision.memory=lots", "workers.vision.memory: String should match pattern"),
        ("models.url=https://bucket", "models.url: String should match pattern"),
        ("upgrade.strategy=incremental", "upgrade: incremental shifts traffic by a Gateway: name its gateway_class"),
        ("head_store.address=nowhere", "head_store.address: String should match pattern"),
        ("environment.HF_TOKEN=hf_x", "HF_TOKEN would be shown to whoever reads the manifest; put it into a Secret"),
        ("config=configs/none.yaml", "configs/none.yaml: No such file or directory"),
        ("changes.detecton={}", "unknown key 'detecton'; did you mean 'detection'?"),
        ("changes.triton={visoin: {}}", "changes.triton: nothing is called 'visoin'; did you mean 'vision'?"),
        ("deployments.vison={num_replicas: 2}", "deployments: nothing is called 'vison'; did you mean 'vision'?"),
        (
            "changes.llms=[{name: one, source: a/b}]",
            "one wants pods of workers.llm, and the scenario has routers, vision",
        ),
    ],
)
def test_an_override_that_means_nothing_is_refused_with_what_is_wrong(override, message):
    assert message in refusal("yolo-gpu", override)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("llm-gpu", ["plans.claim=x"], "plans are for workers.vision, and there are none"),
        ("llm-gpu", ["models.url=s3://bucket/m"], "models are for workers.vision, and there are none"),
        ("yolo-gpu", ["upgrade.strategy=incremental", "upgrade.gateway_class=istio"], "set load_balancer to null"),
        ("llm-gpu", ["workers=null", "config=configs/serve.yaml"], "workers: Input should be a valid dictionary"),
        ("local-cpu", ["head.works=false"], "head.works is false and there are no workers: nothing could be placed"),
    ],
)
def test_what_does_not_go_together_is_refused(name, overrides, message):
    assert message in refusal(name, *overrides)


def test_a_secret_never_comes_back_in_a_refusal():
    assert "hf_x" not in refusal("yolo-gpu", "environment.HF_TOKEN=hf_x")


def test_values_of_overrides_are_yaml():
    scenario = read_scenario("yolo-gpu", ["images.tag='2'", "workers.vision.max=3", "admin_key=null", "head.pools=[]"])
    assert (scenario.images.tag, scenario.workers["vision"].max, scenario.admin_key, scenario.head.pools) == (
        "2",
        3,
        None,
        (),
    )


def test_a_number_is_what_its_key_takes_it_for():
    scenario = read_scenario("llm-gpu", ["images.tag=1.20", "head.cpu=1.5", "environment.tensor_parallel_size=2"])
    assert (scenario.images.tag, scenario.head.cpu) == ("1.20", 1.5)
    for date in ("2026-01-15", "2026-01-15T10:00:00"):
        assert read_scenario("llm-gpu", [f"environment.BUILT={date}"]).environment == {"BUILT": date}
    assert read_scenario("llm-gpu", ["images.tag=2026-01-15"]).images.tag == "2026-01-15"
    assert scenario.environment == {"tensor_parallel_size": "2"}
    assert read_scenario("llm-gpu", ["changes.router.max_body_mib=8"]).changes["router"] == {"max_body_mib": 8}


def test_a_scenario_of_ones_own_is_read_from_its_file(tmp_path):
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
    assert "has keys and values, not ['a', 'b']" in refusal(str(path))
    path.write_text("a: [")
    assert "mine.yaml is not YAML" in refusal(str(path))


def test_changes_are_merged_and_lists_of_named_things_by_name():
    arguments, deployments = arguments_of("all", "changes.triton={bulk: null, vision: {cuda_pool_mib: 7}}")
    assert "bulk" not in deployments
    assert [one["name"] for one in arguments["triton"]] == ["vision", "streaming"]
    assert arguments["triton"][0]["cuda_pool_mib"] == 7
    assert arguments["triton"][0]["picture_threads"] == 4
    (model,) = arguments["llms"]
    assert (model["source"], model["num_gpus"], model["resources"]) == ("Qwen/Qwen2.5-3B-Instruct", 1, {"llm": 1})


def test_a_deployment_is_changed_by_name_and_placed_where_its_image_is():
    _, deployments = arguments_of("yolo-gpu", "deployments.vision={max_ongoing_requests: 9}")
    assert deployments["vision"]["max_ongoing_requests"] == 9
    assert deployments["vision"]["ray_actor_options"] == {"num_cpus": 4, "num_gpus": 0.2, "resources": {"vision": 1}}
    assert deployments["router"]["ray_actor_options"]["label_selector"] == {"serve-app/role": "routers"}


def test_a_deployment_that_the_file_says_nothing_of_is_placed_too():
    _, deployments = arguments_of("yolo-gpu", "changes.playground={}")
    assert deployments["playground"]["ray_actor_options"] == {"label_selector": {"serve-app/role": "routers"}}


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "llm-gpu",
            ["config=configs/serve.llama2.yaml", "environment.tensor_parallel_size='2'"],
            "llama2 takes 2 GPUs of one machine, and a pod of workers.llm has 1: --set workers.llm.gpus=2",
        ),
        (
            "yolo-gpu",
            ["workers.vision.gpus=0"],
            "vision takes 0.2 GPUs of one machine, and a pod of workers.vision has 0",
        ),
        (
            "yolo-gpu",
            ["workers.vision.cpu=3"],
            "vision takes 4 processors of one machine, and a pod of workers.vision has 3",
        ),
        ("yolo-gpu", ["workers.routers.cpu=0.5"], "router takes 1 processors of one machine"),
    ],
)
def test_what_would_fit_on_no_pod_is_refused_before_a_machine_is_paid_for(name, overrides, message):
    assert message in refusal(name, *overrides)


def test_what_the_environment_makes_larger_is_fitted_by_a_larger_pod():
    overrides = ["config=configs/serve.llama2.yaml", "environment.tensor_parallel_size='2'", "workers.llm.gpus=2"]
    *_, service = render(read_scenario("llm-gpu", overrides))
    (worker,) = (one for one in service["spec"]["rayClusterConfig"]["workerGroupSpecs"] if one["groupName"] == "llm")
    container = worker["template"]["spec"]["containers"][0]
    assert {"name": "tensor_parallel_size", "value": "2"} in container["env"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_text_of_manifests_reads_back_as_what_it_was():
    manifests = render(read_scenario("all"))
    assert list(yaml.safe_load_all(to_yaml(manifests))) == manifests
    assert "&id" not in to_yaml(manifests)


@pytest.mark.parametrize("name", scenario_names())
def test_a_scenario_that_is_kept_reads_back_as_it_was(name, tmp_path):
    scenario = read_scenario(name, ["images.registry=mine.example/serve-app", "head.memory=9Gi"])
    path = tmp_path / "kept" / "cluster.mine.yaml"
    keep_scenario(scenario, path)
    assert read_scenario(str(path)) == scenario


def test_what_is_not_the_committed_scenario_is_not_written_over_its_manifest():
    scenario = read_scenario("yolo-gpu", ["head.memory=9Gi"])
    with pytest.raises(ConfigurationError, match=r"^kuberay/scenarios/yolo-gpu\.yaml says something else"):
        write(scenario)
