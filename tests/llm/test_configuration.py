"""Our settings in ray.serve.llm's words, and applications built from them with no engine started."""

import pickle
from types import SimpleNamespace

import pytest
import ray

from serve_app.app import build
from serve_app.errors import ConfigurationError
from serve_app.llm.configuration import configuration_of
from serve_app.settings import PROJECT_ROOT, LanguageModelSettings, read_config

CONFIGS = PROJECT_ROOT / "configs"
ENVIRONMENT = ("model_name", "tensor_parallel_size", "gpu_memory_utilization", "dtype", "max_model_len")


def configuration(**keys):
    return configuration_of(LanguageModelSettings(name="one", **keys))


@pytest.fixture
def build_args(monkeypatch):
    # ray.serve.llm asks for this, and would start a cluster to answer
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    return lambda keys: build({"triton": [], "baseline": None, "llms": [{"name": "one"} | keys]})


@pytest.fixture
def build_file(monkeypatch, build_args):
    """What `serve run` would deploy of a committed file: name → (deployment, LLMConfig)."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)

    def built(name):
        (application,) = read_config(CONFIGS / name)["applications"]
        ingress = build(application["args"])
        _settings, _tracks, deployments = ingress._bound_deployment.init_args
        bound = {name: one._bound_deployment for name, one in deployments.items()}
        assert {one["name"] for one in application["deployments"]} <= {"router", "playground", *bound}
        configs = {name: one.init_kwargs.get("llm_config") for name, one in bound.items()}
        return {name: (bound[name], config) for name, config in configs.items() if config}

    return built


def test_two_models_of_one_gpu_each_are_two_deployments(build_file):
    built = build_file("serve.mistral-llama.yaml")
    sources = {name: config.model_loading_config.model_source for name, (_, config) in built.items()}
    assert sources == {
        "mistral7b": "mistralai/Mistral-7B-Instruct-v0.2",
        "llama2": "meta-llama/Llama-2-7b-chat-hf",
    }
    for name, (deployment, config) in built.items():
        assert deployment.name == config.model_id == name
        assert deployment._replica_config.placement_group_bundles == [{"CPU": 1.0, "GPU": 1.0}]
        assert config.engine_kwargs["gpu_memory_utilization"] == 0.9
        assert deployment._deployment_config.autoscaling_config.target_ongoing_requests == 96
        assert deployment._deployment_config.max_ongoing_requests == 128


def test_one_model_takes_its_engine_from_the_environment(build_file, monkeypatch):
    chosen = {
        "model_name": "meta-llama/Llama-2-13b-chat-hf",
        "tensor_parallel_size": "4",
        "gpu_memory_utilization": "0.85",
        "dtype": "float16",
    }
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    deployment, config = build_file("serve.llama2.yaml")["llama2"]
    assert config.model_loading_config.model_source == "meta-llama/Llama-2-13b-chat-hf"
    engine = config.get_engine_config().get_initialization_kwargs()
    assert {name: engine[name] for name in ("tensor_parallel_size", "gpu_memory_utilization", "dtype")} == {
        "tensor_parallel_size": 4,
        "gpu_memory_utilization": 0.85,
        "dtype": "float16",
    }
    assert deployment._replica_config.placement_group_bundles == [{"CPU": 1.0, "GPU": 1.0}] * 4
    assert deployment._replica_config.placement_group_strategy == "STRICT_PACK"


def test_one_model_has_its_usual_engine_where_the_environment_says_nothing(build_file):
    deployment, config = build_file("serve.llama2.yaml")["llama2"]
    assert config.model_loading_config.model_source == "meta-llama/Llama-2-7b-chat-hf"
    assert config.engine_kwargs == {
        "tensor_parallel_size": 1, "gpu_memory_utilization": 0.9, "dtype": "auto", "max_model_len": 4096,
    }  # fmt: skip
    assert len(deployment._replica_config.placement_group_bundles) == 1


def test_the_demo_is_served_from_its_folder_beside_the_pictures(build_file):
    deployment, config = build_file("serve.yaml")["demo-llm"]
    folder = PROJECT_ROOT / "model_repository" / "weights" / "demo-llm"
    assert config.model_loading_config.model_source == str(folder)
    assert deployment._replica_config.placement_group_bundles == [{"CPU": 0.25, "GPU": 0}]
    assert not config.callback_config.callback_kwargs["fetch"]


def test_a_model_that_shares_a_gpu_asks_for_its_part_of_it_and_of_its_memory(build_file):
    deployment, config = build_file("serve.gpu.yaml")["qwen2.5-3b"]
    (bundle,) = deployment._replica_config.placement_group_bundles
    assert bundle == {"CPU": 2.0, "GPU": 0.5}
    assert config.engine_kwargs["gpu_memory_utilization"] <= bundle["GPU"]


def test_each_worker_takes_the_resources_that_place_it():
    engine = {"tensor_parallel_size": 2}
    bundles = configuration(engine=engine, resources={"llm": 1}).get_engine_config().placement_bundles
    assert bundles == [{"CPU": 1.0, "GPU": 1.0, "llm": 1.0}] * 2


@pytest.mark.parametrize("name", ["GPU", "cpu"])
def test_processors_are_not_asked_for_as_resources(name):
    with pytest.raises(ValueError, match=f"{name} has a key of its own: num_cpus, num_gpus"):
        LanguageModelSettings(name="one", resources={name: 1})


def test_more_machines_are_asked_for_by_name():
    engine = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    near = configuration(engine=engine).get_engine_config()
    far = configuration(engine=engine, nodes=2).get_engine_config()
    assert (near.placement_strategy, far.placement_strategy) == ("STRICT_PACK", "PACK")
    assert len(far.placement_bundles) == 4


def test_limits_mean_something_unless_others_are_given():
    plain = configuration().deployment_config
    assert (plain["max_ongoing_requests"], plain["autoscaling_config"]["target_ongoing_requests"]) == (64, 48)
    own = configuration(deployment={"max_ongoing_requests": 8, "max_queued_requests": 9}).deployment_config
    assert (own["max_queued_requests"], own["autoscaling_config"]["target_ongoing_requests"]) == (9, 6)
    assert "autoscaling_config" not in configuration(deployment={"num_replicas": 2}).deployment_config


def test_tokens_of_a_stream_are_not_held_back():
    assert configuration().experimental_configs["stream_batching_interval_ms"] == 0


def test_a_token_is_in_nothing_that_is_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "token").write_text("hf_secret")
    config = configuration(token_file=tmp_path / "token")
    assert config.runtime_env["env_vars"]["HF_TOKEN_PATH"] == str(tmp_path / "token")
    assert "hf_secret" not in repr(config)
    assert b"hf_secret" not in pickle.dumps(config)


def test_adapters_of_the_start_become_vllms_own():
    weights = "model_repository/weights"
    config = configuration(
        engine={"lora_modules": [{"name": "polite", "path": weights}, {"name": "far", "path": "a/b"}]}
    )
    near, far = config.engine_kwargs["lora_modules"]
    assert (near.name, near.path) == ("polite", str(PROJECT_ROOT / weights))
    assert (far.name, far.path) == ("far", "a/b")
    assert config.engine_kwargs["enable_lora"]


def test_adapters_by_request_are_ray_serve_llms_own():
    config = configuration(adapters={"folder": "s3://bucket/adapters", "max_per_replica": 4})
    assert config.lora_config.dynamic_lora_loading_path == "s3://bucket/adapters"
    assert config.lora_config.max_num_adapters_per_replica == 4


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"engine": {"tensor_paralel_size": 2}}, "no argument 'tensor_paralel_size'; did you mean 'tensor_parallel_"),
        ({"engine": {"zzz": 2}}, "vLLM has no argument 'zzz'"),
        (
            {"engine": {"lora_modules": [{"name": "a", "path": "b", "pth": "c"}]}},
            "has no key 'pth'; did you mean 'path'?",
        ),
        ({"deployment": {"max_ongoing_request": 2}}, "did you mean 'max_ongoing_requests'?"),
        ({"deployment": {"placement_group_bundles": []}}, "no deployment option 'placement_group_bundles'"),
        ({"deployment": {"name": "other"}}, "no deployment option 'name'"),
        (
            {"deployment": {"max_ongoing_requests": 8, "autoscaling_config": {"target_ongoing_requests": 9}}},
            "target_ongoing_requests 9 is over max_ongoing_requests 8",
        ),
        ({"deployment": {"autoscaling_config": {"min_replica": 0}}}, "did you mean 'min_replicas'?"),
        ({"deployment": {"autoscaling_config": {"min_replicas": 3, "max_replicas": 2}}}, "max_replicas"),
        ({"deployment": {"autoscaling_config": "many"}}, "autoscaling_config has keys and values, not 'many'"),
        ({"deployment": {"ray_actor_options": {"num_cpu": 1}}}, "num_cpu"),
        ({"deployment": {"max_queued_requests": -5}}, "max_queued_requests"),
        ({"deployment": {"num_replicas": "many"}}, "num_replicas"),
        ({"accelerator_type": "A11G"}, "A11G"),
        ({"adapters": {"folder": "/here"}}, "/here"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_the_models_name(build_args, keys, reason):
    with pytest.raises(ConfigurationError) as refusal:
        build_args(keys)
    assert refusal.value.message.startswith("llms: one: ")
    assert reason in refusal.value.message
