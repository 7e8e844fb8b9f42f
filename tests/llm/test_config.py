"""LLMConfig built from settings, and applications built from the committed files without starting an engine."""

import pickle
import pydoc
from types import SimpleNamespace

import pytest
import ray

from serve_app.app import build
from serve_app.errors import ConfigurationError
from serve_app.llm.config import build_llm_config
from serve_app.settings import PROJECT_ROOT, LanguageModelSettings, read_config

ENVIRONMENT = ("model_name", "tensor_parallel_size", "gpu_memory_utilization", "dtype", "max_model_len")


def build_config(**keys):
    return build_llm_config(LanguageModelSettings(name="one", **keys))


@pytest.fixture
def build_file(monkeypatch):
    """What `serve run` would deploy of a committed file: (deployment, LLMConfig) by name."""
    # ray.serve.llm would start a cluster to read this
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)

    def built(name):
        (application,) = read_config(PROJECT_ROOT / "configs" / name)["applications"]
        ingress = build(application["args"])
        *_, deployments = ingress._bound_deployment.init_args
        bound = {name: one._bound_deployment for name, one in deployments.items()}
        assert {one["name"] for one in application["deployments"]} <= {"router", "playground", *bound}
        configs = {name: one.init_kwargs.get("llm_config") for name, one in bound.items()}
        return {name: (bound[name], config) for name, config in configs.items() if config}

    return built


def test_two_models_with_a_gpu_each_are_two_deployments(build_file):
    built = build_file("serve.mistral-llama.yaml")
    assert {name: config.model_loading_config.model_source for name, (_, config) in built.items()} == {
        "mistral7b": "mistralai/Mistral-7B-Instruct-v0.2",
        "llama2": "meta-llama/Llama-2-7b-chat-hf",
    }
    for name, (deployment, config) in built.items():
        assert deployment.name == config.model_id == name
        assert deployment._replica_config.placement_group_bundles == [{"CPU": 1.0, "GPU": 1.0}]
        assert config.engine_kwargs["gpu_memory_utilization"] == 0.9
        assert deployment._deployment_config.autoscaling_config.target_ongoing_requests == 96
        assert deployment._deployment_config.max_ongoing_requests == 128


def test_the_environment_overrides_the_engine_of_the_llama2_configuration(build_file, monkeypatch):
    deployment, config = build_file("serve.llama2.yaml")["llama2"]
    defaults = {"tensor_parallel_size": 1, "gpu_memory_utilization": 0.9, "dtype": "auto", "max_model_len": 4096}
    assert config.model_loading_config.model_source == "meta-llama/Llama-2-7b-chat-hf"
    assert config.engine_kwargs == defaults | {"allowed_media_domains": ["none.invalid"]}
    assert len(deployment._replica_config.placement_group_bundles) == 1
    changed = {"tensor_parallel_size": 4, "gpu_memory_utilization": 0.85, "dtype": "float16"}
    for name, value in ({"model_name": "meta-llama/Llama-2-13b-chat-hf"} | changed).items():
        monkeypatch.setenv(name, str(value))
    deployment, config = build_file("serve.llama2.yaml")["llama2"]
    assert config.model_loading_config.model_source == "meta-llama/Llama-2-13b-chat-hf"
    engine = config.get_engine_config().get_initialization_kwargs()
    assert {name: engine[name] for name in changed} == changed
    assert deployment._replica_config.placement_group_bundles == [{"CPU": 1.0, "GPU": 1.0}] * 4
    assert deployment._replica_config.placement_group_strategy == "STRICT_PACK"


def test_the_demo_model_and_one_that_shares_a_gpu_are_served_beside_detection(build_file):
    deployment, config = build_file("serve.yaml")["demo-llm"]
    folder = PROJECT_ROOT / "model_repository" / "weights" / "demo-llm"
    assert config.model_loading_config.model_source == str(folder)
    assert deployment._replica_config.placement_group_bundles == [{"CPU": 0.25, "GPU": 0}]
    assert not config.callback_config.callback_kwargs["fetch"]
    deployment, config = build_file("serve.gpu.yaml")["qwen2.5-3b"]
    assert deployment._replica_config.placement_group_bundles == [{"CPU": 2.0, "GPU": 0.5}]
    assert config.engine_kwargs["gpu_memory_utilization"] <= 0.5


def test_each_worker_has_a_bundle_with_its_resources_and_nodes_must_be_allowed():
    engine = {"tensor_parallel_size": 2}
    bundles = build_config(engine=engine, resources={"llm": 1}).get_engine_config().placement_bundles
    assert bundles == [{"CPU": 1.0, "GPU": 1.0, "llm": 1.0}] * 2
    engine |= {"pipeline_parallel_size": 2}
    for nodes, strategy in ((1, "STRICT_PACK"), (2, "PACK")):
        built = build_config(engine=engine, nodes=nodes).get_engine_config()
        assert (built.placement_strategy, len(built.placement_bundles)) == (strategy, 4)


def test_limits_have_useful_defaults_and_tokens_are_not_held_back():
    config = build_config()
    options = config.deployment_config
    assert (options["max_ongoing_requests"], options["autoscaling_config"]["target_ongoing_requests"]) == (64, 48)
    assert config.experimental_configs["stream_batching_interval_ms"] == 0
    options = build_config(deployment={"max_ongoing_requests": 8, "max_queued_requests": 9}).deployment_config
    assert (options["max_queued_requests"], options["autoscaling_config"]["target_ongoing_requests"]) == (9, 6)
    assert "autoscaling_config" not in build_config(deployment={"num_replicas": 2}).deployment_config


def test_urls_in_prompts_are_fetched_from_no_host_that_the_configuration_does_not_name():
    assert build_config().engine_kwargs["allowed_media_domains"] == ["none.invalid"]
    named = build_config(engine={"allowed_media_domains": ["pictures.example"]})
    assert named.engine_kwargs["allowed_media_domains"] == ["pictures.example"]


def test_a_token_is_in_nothing_that_is_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "token").write_text("hf_secret")
    config = build_config(token_file=tmp_path / "token")
    assert config.runtime_env["env_vars"]["HF_TOKEN_PATH"] == str(tmp_path / "token")
    assert "hf_secret" not in repr(config)
    assert b"hf_secret" not in pickle.dumps(config)
    config.runtime_env["env_vars"]["HF_TOKEN"] = "hf_secret"  # as ray.serve.llm does
    callback_class = pydoc.locate(config.callback_config.callback_class)
    callback = callback_class(
        config, ctx_kwargs={"runtime_env": config.runtime_env}, **config.callback_config.callback_kwargs
    )
    assert callback.ctx.run_init_node, "a hub id is downloaded"
    assert "hf_secret" not in repr((config.runtime_env, callback.ctx.runtime_env))


def test_adapters_are_loaded_by_vllm_at_the_start_or_by_ray_serve_llm_on_request():
    weights = "model_repository/weights"
    modules = [{"name": "polite", "path": weights}, {"name": "far", "path": "a/b"}]
    config = build_config(engine={"lora_modules": modules})
    assert [(module.name, module.path) for module in config.engine_kwargs["lora_modules"]] == [
        ("polite", str(PROJECT_ROOT / weights)),
        ("far", "a/b"),
    ]
    assert config.engine_kwargs["enable_lora"]
    config = build_config(adapters={"folder": "s3://bucket/adapters", "max_per_replica": 4})
    assert config.lora_config.dynamic_lora_loading_path == "s3://bucket/adapters"
    assert config.lora_config.max_num_adapters_per_replica == 4


def test_a_wrong_configuration_is_refused_with_the_models_name(monkeypatch):
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))

    def scaling(config, **options):
        return {"deployment": options | {"autoscaling_config": config}}

    modules = [{"name": "a", "path": "b", "pth": "c"}]
    for keys, message in (
        ({"engine": {"tensor_paralel_size": 2}}, "unknown vLLM argument 'tensor_paralel_size'; did you mean 'tensor_p"),
        ({"engine": {"zzz": 2}}, "unknown vLLM argument 'zzz'"),
        ({"engine": {"lora_modules": modules}}, "unknown lora_modules key 'pth'; did you mean 'path'?"),
        ({"deployment": {"max_ongoing_request": 2}}, "did you mean 'max_ongoing_requests'?"),
        (
            {"deployment": {"placement_group_bundles": []}},
            "unknown Ray Serve deployment option 'placement_group_bundles'",
        ),
        ({"deployment": {"name": "other"}}, "unknown Ray Serve deployment option 'name'"),
        (
            scaling({"target_ongoing_requests": 9}, max_ongoing_requests=8),
            "target_ongoing_requests must be at most max_ongoing_requests (8), got 9",
        ),
        (scaling({"min_replica": 0}), "unknown autoscaling_config key 'min_replica'; did you mean 'min_replicas'?"),
        (scaling({"min_replicas": 3, "max_replicas": 2}), "max_replicas"),
        (scaling("many"), "autoscaling_config must be a mapping, got 'many'"),
        ({"deployment": {"ray_actor_options": {"num_cpu": 1}}}, "num_cpu"),
        ({"deployment": {"max_queued_requests": -5}}, "max_queued_requests"),
        ({"deployment": {"num_replicas": "many"}}, "num_replicas"),
        ({"accelerator_type": "A11G"}, "A11G"),
        ({"adapters": {"folder": "/here"}}, "/here"),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            build({"triton": [], "baseline": None, "llms": [{"name": "one"} | keys]})
        assert refusal.value.message.startswith("llms: one: ")
        assert message in refusal.value.message
