"""Deployments of language models, and applications of the committed files, composed without vLLM as with it."""

import dataclasses
from types import SimpleNamespace

import pytest
import ray
from ray.serve.llm import build_llm_deployment
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.openai.models.protocol import LoRAModulePath

from serve_app.app import bind_language_model, build
from serve_app.errors import ConfigurationError
from serve_app.llm.arguments import adapter_arguments, engine_arguments
from serve_app.llm.config import build_llm_config
from serve_app.llm.deployment import DEPLOYMENT, build_autoscaling, build_options
from serve_app.llm.late import LateLanguageModel
from serve_app.settings import PROJECT_ROOT, LanguageModelSettings, read_config

ENVIRONMENT = ("model_name", "tensor_parallel_size", "gpu_memory_utilization", "dtype", "max_model_len")


def options_of(**keys):
    return build_options(LanguageModelSettings(name="one", **keys))


def fields_of(*kinds):
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def test_the_names_of_arguments_are_those_of_vllms_classes():
    assert engine_arguments() == fields_of(AsyncEngineArgs, FrontendArgs)
    assert adapter_arguments() == fields_of(LoRAModulePath)


@pytest.fixture
def build_file(monkeypatch):
    """What `serve run` would deploy of a committed file: (deployment, LLMConfig) by name."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)

    def built(name):
        (application,) = read_config(PROJECT_ROOT / "configs" / name)["applications"]
        ingress = build(application["args"])
        *_, deployments = ingress._bound_deployment.init_args
        bound = {name: one._bound_deployment for name, one in deployments.items()}
        assert {one["name"] for one in application["deployments"]} <= {"router", "playground", *bound}
        models = {name: one for name, one in bound.items() if one.func_or_class is LateLanguageModel}
        return {name: (one, build_llm_config(one.init_args[0])) for name, one in models.items()}

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


def test_an_eager_model_on_a_processor_compiles_nothing_unless_its_own_environment_says_so():
    for keys, expected in (
        ({"accelerator": "cpu", "engine": {"enforce_eager": True}}, "1"),
        ({"accelerator": "cpu", "engine": {"enforce_eager": True}, "environment": {"TORCHDYNAMO_DISABLE": "0"}}, "0"),
        ({"accelerator": "cpu"}, None),
        ({"engine": {"enforce_eager": True}}, None),
    ):
        variables = options_of(**keys)["ray_actor_options"]["runtime_env"]["env_vars"]
        assert variables.get("TORCHDYNAMO_DISABLE") == expected


def test_each_worker_has_a_bundle_with_its_resources_and_nodes_must_be_allowed():
    options = options_of(engine={"tensor_parallel_size": 2}, resources={"llm": 1}, accelerator_type="L4")
    worker = {"CPU": 1.0, "GPU": 1.0, "llm": 1.0, "accelerator_type:L4": 0.001}
    assert options["placement_group_bundles"] == [worker] * 2
    engine = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    for nodes, strategy in ((1, "STRICT_PACK"), (2, "PACK")):
        options = options_of(engine=engine, nodes=nodes)
        assert (options["placement_group_strategy"], len(options["placement_group_bundles"])) == (strategy, 4)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"accelerator": "cpu", "num_cpus": 0.25},
        {"accelerator_type": "A10G", "engine": {"tensor_parallel_size": 4}, "nodes": 2},
        {"resources": {"llm": 1}, "deployment": {"num_replicas": 2, "ray_actor_options": {"num_cpus": 1, "memory": 5}}},
        {"deployment": {"ray_actor_options": {"resources": {"llm": 2}}, "autoscaling_config": {"max_replicas": 9}}},
    ],
    ids=str,
)
def test_options_are_those_of_ray_serve_llm(keys, monkeypatch):
    """It would compose them from the same settings, but imports vLLM for that."""
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))  # or it starts a cluster
    settings = LanguageModelSettings(name="one", **keys)
    ours = bind_language_model(settings)._bound_deployment
    actor = {"num_cpus": 0} | settings.deployment.get("ray_actor_options", {})
    options = DEPLOYMENT | settings.deployment | {"ray_actor_options": actor}
    if "num_replicas" not in options:
        options["autoscaling_config"] = build_autoscaling(options.get("autoscaling_config") or {}, options)
    config = build_llm_config(settings)
    config.deployment_config = options
    theirs = build_llm_deployment(config, override_serve_options={"name": "one"})._bound_deployment
    assert ours._deployment_config == theirs._deployment_config
    for name in ("placement_group_bundles", "placement_group_strategy"):
        assert getattr(ours._replica_config, name) == getattr(theirs._replica_config, name)
    actor = theirs._replica_config.ray_actor_options
    actor["runtime_env"].pop("worker_process_setup_hook")  # does nothing but import ray.serve.llm
    assert ours._replica_config.ray_actor_options == actor


def test_limits_have_useful_defaults():
    options = options_of()
    assert (options["max_ongoing_requests"], options["autoscaling_config"]["target_ongoing_requests"]) == (64, 48)
    options = options_of(deployment={"max_ongoing_requests": 8, "max_queued_requests": 9})
    assert (options["max_queued_requests"], options["autoscaling_config"]["target_ongoing_requests"]) == (9, 6)
    assert "autoscaling_config" not in options_of(deployment={"num_replicas": 2})


def test_a_wrong_configuration_is_refused_with_the_models_name():
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
