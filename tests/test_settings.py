"""What a configuration file may say, and what it is told when it says something else."""

import re
from pathlib import Path

import pytest
import yaml

from serve_app.errors import ConfigurationError
from serve_app.settings import (
    PROJECT_ROOT,
    LanguageModelSettings,
    Section,
    Settings,
    parse_settings,
    read_config,
    settings_of,
)


def refusal(args):
    with pytest.raises(ConfigurationError) as caught:
        parse_settings(args)
    return caught.value.message


def test_an_unknown_key_is_refused_with_the_nearest_valid_name():
    assert "unknown key 'detecton'; did you mean 'detection'?" in refusal({"detecton": {}})


def test_an_unknown_key_deep_inside_is_refused_with_its_place():
    message = refusal({"triton": [{"name": "vision", "control_mod": "poll"}]})
    assert message == "invalid configuration: triton.0: unknown key 'control_mod'; did you mean 'control_mode'?"


def test_a_key_like_no_other_is_refused_with_all_valid_ones():
    assert "unknown key 'zzz'; valid keys: router, detection, triton, baseline" in refusal({"zzz": 1})


@pytest.mark.parametrize(
    ("args", "place"),
    [
        ({"detection": {"confidence": 1.5}}, "detection.confidence"),
        ({"detection": {"image_size": 650}}, "detection.image_size"),
        ({"detection": {"max_detections": 301}}, "detection.max_detections"),
        ({"detection": {"models": {}}}, "detection.models"),
        ({"detection": {"models": {"tiny": {}}}}, "detection.models.tiny"),
        ({"detection": {"models": {"nano": {"precision": "f64"}}}}, "detection.models.nano.precision"),
        ({"triton": [], "baseline": None}, "nothing to serve"),
        ({"triton": [{"name": "vision", "poll_interval_s": 0}]}, "triton.0.poll_interval_s"),
        ({"triton": [{"name": "1st"}]}, "triton.0.name"),
        ({"baseline": {"threads": 0}}, "baseline.threads"),
        ({"router": {"max_body_mib": 0}}, "router.max_body_mib"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_place(args, place):
    assert f"{place}" in refusal(args)


def test_every_mistake_is_told_at_once():
    message = refusal({"detection": {"confidence": 2, "iou": -1}})
    assert "detection.confidence" in message
    assert "detection.iou" in message


def test_two_deployments_of_one_name_are_refused():
    assert "names of triton and llms must be unique" in refusal({"triton": [{"name": "a"}, {"name": "a"}]})
    assert "names of triton and llms must be unique" in refusal({"triton": [{"name": "a"}], "llms": [{"name": "a"}]})
    for taken in ("router", "playground"):
        message = refusal({"llms": [{"name": taken}]})
        assert f"and not router, baseline, playground, keys; got vision, {taken}" in message


def test_there_is_no_playground_unless_the_configuration_has_it():
    assert Settings().playground is None
    assert parse_settings({"playground": {}}).playground.service_url == "http://localhost:8000"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://localhost:8000/predict", "http://a b"])
def test_a_playground_is_told_the_services_root(url):
    assert "playground.service_url" in refusal({"playground": {"service_url": url}})


def test_a_baseline_of_a_size_that_is_not_served_is_refused():
    assert "baseline.sizes must be among detection.models, got large" in refusal({"baseline": {"sizes": ["large"]}})


def test_a_precision_that_the_engine_does_not_compute_in_is_refused_with_those_it_does():
    args = {"detection": {"models": {"nano": {"precision": "fp8"}}}}
    assert "models.nano.precision: openvino supports f32, bf16, int8, got fp8" in refusal(args)
    args["detection"]["engine"] = "tensorrt"
    assert parse_settings(args).detection.runs_on == "cuda"


@pytest.mark.parametrize(("engine", "device"), [("openvino", "cuda"), ("tensorrt", "cpu")])
def test_an_engine_is_not_sent_to_a_device_that_it_has_nothing_to_do_with(engine, device):
    args = {"detection": {"engine": engine, "device": device}}
    assert re.search(f"device: {engine} runs on (the CPU|a GPU) only, got .*; remove device", refusal(args))


@pytest.mark.parametrize("engine", ["onnxruntime", "python-onnxruntime", "python-torch"])
def test_an_engine_for_both_kinds_of_device_takes_the_gpu_unless_it_is_told(engine):
    assert parse_settings({"detection": {"engine": engine}}).detection.runs_on == "cuda"
    assert parse_settings({"detection": {"engine": engine, "device": "cpu"}}).detection.runs_on == "cpu"


def test_model_control_needs_a_key_unless_only_this_machine_reaches_the_ports():
    triton = {"triton": [{"name": "vision", "control_mode": "explicit"}]}
    assert "vision: control_mode explicit needs router.keys_file or router.admin_key_file" in refusal(triton)
    assert not parse_settings(triton | {"router": {"admin_key_file": "/key"}}).has_open_control
    opened = triton | {"router": {"open_model_control": True}}
    assert parse_settings(opened).has_open_control
    application = {"import_path": "serve_app.app:build", "args": opened}
    for options in ({}, {"http_options": {"port": 1}}, {"http_options": {"host": "127.0.0.1"}}):
        assert settings_of({"applications": [application]} | options).has_open_control
    for host in ("0.0.0.0", "10.1.2.3", "::"):
        with pytest.raises(ConfigurationError, match=f"http_options.host is {host}, so load and unload need a key"):
            settings_of({"applications": [application], "http_options": {"host": host}})


def test_the_router_hosts_one_of_the_deployments_there_are():
    assert parse_settings({"router": {"hosts": "vision"}}).hosted.name == "vision"
    assert parse_settings({}).hosted is None
    message = "router.hosts must be one of the names of triton and llms, vision; got visoin"
    assert message in refusal({"router": {"hosts": "visoin"}})


def test_the_router_hosts_a_language_model_of_one_process_that_is_always_there():
    def hosting(**model):
        return {"router": {"hosts": "llama"}, "llms": [{"name": "llama"} | model, {"name": "other"}]}

    settings = parse_settings(hosting())
    assert settings.hosted.name == "llama"
    assert [model.name for model in settings.separate_llms] == ["other"]
    assert [triton.name for triton in settings.separate] == ["vision"]
    for model, message in (
        ({"engine": {"tensor_parallel_size": 2}}, "router.hosts: llama has 2 workers, and a router is one process"),
        ({"deployment": {"autoscaling_config": {"min_replicas": 0}}}, "router.hosts: llama scales to zero"),
    ):
        assert message in refusal(hosting(**model))


def test_instances_cannot_be_overridden_in_a_polled_repository():
    args = {"triton": [{"name": "vision", "control_mode": "poll", "instances": {"yolo": 2}}]}
    assert "instances can't be overridden with control_mode poll" in refusal(args)


def test_a_polled_repository_is_served_whole():
    args = {"triton": [{"name": "vision", "control_mode": "poll", "models": ["yolo"]}]}
    assert "control_mode poll serves the whole repository" in refusal(args)


def test_a_polled_repository_is_read_as_it_is_so_its_configs_must_be_for_the_engine():
    triton = {"name": "vision", "control_mode": "poll"}
    message = refusal({"detection": {"engine": "tensorrt"}, "triton": [triton]})
    assert "vision: control_mode poll can't be used with detection.engine tensorrt" in message
    foreign = triton | {"model_repository": "/models"}
    assert parse_settings({"detection": {"engine": "tensorrt"}, "triton": [foreign]}).triton[0].control_mode == "poll"


def test_relative_paths_start_at_the_project_root_defaults_too():
    assert parse_settings({}).detection.model_repository == PROJECT_ROOT / "model_repository" / "cpu"
    changed = parse_settings({"detection": {"model_repository": "elsewhere"}})
    assert changed.detection.model_repository == PROJECT_ROOT / "elsewhere"
    absolute = parse_settings({"detection": {"model_repository": "/models"}})
    assert absolute.detection.model_repository == Path("/models")


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parse_settings({}).router.max_body_mib = 1


def sections(kind=Settings, seen=None):
    seen = {} if seen is None else seen
    seen[kind.__name__] = kind
    for field in kind.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, Section) and inner.__name__ not in seen:
                sections(inner, seen)
    return seen


def test_every_key_is_described():
    undescribed = [
        f"{name}.{key}"
        for name, kind in sections().items()
        for key, field in kind.model_fields.items()
        if not field.description and name != "Settings"
    ]
    assert undescribed == []
    assert len(sections()) > 4


@pytest.mark.parametrize("path", sorted((PROJECT_ROOT / "configs").glob("serve*.yaml")), ids=lambda path: path.name)
def test_a_committed_configuration_is_valid_and_names_deployments_that_exist(path):
    config = read_config(path)
    settings = settings_of(config)
    known = {"router", "baseline", "playground", *(server.name for server in (*settings.triton, *settings.llms))}
    assert {one["name"] for one in config["applications"][0]["deployments"]} <= known


def test_the_default_configuration_documents_every_key():
    text = (PROJECT_ROOT / "configs" / "serve.yaml").read_text()
    missing = [key for kind in sections().values() for key in kind.model_fields if f"{key}:" not in text]
    assert missing == []


def test_the_default_configuration_says_the_defaults():
    args = yaml.safe_load((PROJECT_ROOT / "configs" / "serve.yaml").read_text())["applications"][0]["args"]
    hosts = {"hosts": args["router"]["hosts"]}  # what is already configured keeps a deployment for pictures
    assert parse_settings(args) == parse_settings({"llms": args["llms"], "playground": {}, "router": hosts})
    (model,) = parse_settings(args).llms
    plain = LanguageModelSettings(name="plain")
    chosen = {"name", "source", "accelerator", "num_cpus", "engine", "deployment", "priority"}
    assert {key for key in type(model).model_fields if getattr(model, key) != getattr(plain, key)} == chosen


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("applications: [", "1:16: not valid YAML"),
        ("[1, 2]", "`applications:` is missing or empty"),
        ("http_options: {}", "`applications:` is missing or empty"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_its_name(tmp_path, content, reason):
    path = tmp_path / "serve.yaml"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        read_config(path)
    assert str(path) in caught.value.message


def test_a_file_that_is_not_there_is_refused_with_its_name(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml: No such file or directory"):
        read_config(tmp_path / "nowhere.yaml")


def test_a_file_without_our_application_is_refused():
    with pytest.raises(ConfigurationError, match="no application has import_path"):
        settings_of({"applications": [{"import_path": "other:app"}]})


def language_model(**keys):
    return {"llms": [{"name": "one"} | keys]}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"engine": {"hf_token": "hf_x"}}, "hf_token would be shown wherever the configuration is"),
        ({"engine": {"lora_modules": ["polite=/adapters/polite"]}}, "each is {name: …, path: …}"),
        ({"engine": {"lora_modules": [{"name": "polite"}]}}, "each is {name: …, path: …}"),
        ({"environment": {"HF_TOKEN": "hf_x"}}, "HF_TOKEN would be shown by Ray"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "AWS_SECRET_ACCESS_KEY would be shown by Ray"),
        ({"num_gpus": 0.5}, "vLLM takes 0.92 of the GPU's memory and num_gpus is 0.5"),
        (
            {"num_gpus": 0.5, "engine": {"gpu_memory_utilization": 0.6}},
            "vLLM takes 0.6 of the GPU's memory and num_gpus",
        ),
        ({"num_gpus": 2}, "llms.0.num_gpus"),
        ({"accelerator": "cpu", "accelerator_type": "A10G"}, "accelerator_type names a GPU, and accelerator is cpu"),
        ({"name": "a/b"}, "llms.0.name"),
        ({"engin": {}}, "unknown key 'engin'; did you mean 'engine'?"),
        ({"wake_timeout_s": 0}, "llms.0.wake_timeout_s"),
    ],
)
def test_a_language_model_that_can_not_be_meant_is_refused(keys, reason):
    message = refusal(language_model(**keys))
    assert reason in message
    assert "hf_x" not in message


def test_a_language_model_scales_to_zero_only_where_it_may_have_no_replica():
    def scales_to_zero(deployment):
        return parse_settings(language_model(deployment=deployment)).llms[0].scales_to_zero

    assert scales_to_zero({"autoscaling_config": {"min_replicas": 0}})
    assert not scales_to_zero({"autoscaling_config": {"min_replicas": 1}})
    assert not scales_to_zero({})


def test_values_come_from_the_environment_with_their_types(monkeypatch):
    monkeypatch.setenv("tensor_parallel_size", "4")
    monkeypatch.setenv("SERVE_APP_FOLDER", "llama: 2")
    monkeypatch.delenv("gpu_memory_utilization", raising=False)
    engine = {"tensor_parallel_size": "${tensor_parallel_size:-1}"}
    engine |= {"gpu_memory_utilization": "${gpu_memory_utilization:-0.9}", "dtype": "${dtype_of_nobody:-auto}"}
    (model,) = parse_settings(language_model(engine=engine, source="s3://bucket/${SERVE_APP_FOLDER}")).llms
    assert model.engine == {"tensor_parallel_size": 4, "gpu_memory_utilization": 0.9, "dtype": "auto"}
    assert model.source == "s3://bucket/llama: 2"


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("SERVE_APP_MODEL", raising=False)
    assert "SERVE_APP_MODEL is not set" in refusal(language_model(source="${SERVE_APP_MODEL}"))
