"""The repository for GPUs: its configs, the graphs they are for, and that its models look like those on CPUs."""

import json

import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelQueuePolicy

from serve_app.errors import ConfigurationError
from serve_app.settings import DetectionSettings
from serve_app.tools.export.layout import ON_CPU, ON_GPU, repository_layout
from serve_app.tools.export.repository import build_plans, build_repository

SIDE = 64  # what is tested here doesn't depend on the size of pictures


def build(folder, weights, engine, lines=None, side=SIDE):
    models = {"nano": {"weights": str(weights), "precision": "f16" if engine == "tensorrt" else "f32"}}
    settings = DetectionSettings(
        model_repository=folder, models=models, engine=engine, image_size=side, plans=folder / "plans"
    )
    report = (lambda line: None) if lines is None else lines.append
    return build_repository(settings, report), settings


def parsed(text):
    return text_format.Parse(text, ModelConfig())


def interface(config):
    """All that a client can see of a model's inputs and outputs."""
    tensors = (*config.input, *config.output)
    return config.name, config.max_batch_size, [(one.name, one.data_type, list(one.dims)) for one in tensors]


def test_models_have_the_same_interface_on_cpus_gpus_and_every_alternative_backend():
    on_cpu, on_gpu = (list(repository_layout(["nano", "small"], 640, kind)) for kind in (ON_CPU, ON_GPU))
    assert [model.name for model in on_cpu] == [model.name for model in on_gpu]
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        expected = interface(parsed(cpu.config))
        for text in (gpu.config, *gpu.alternatives.values()):
            assert interface(parsed(text)) == expected


def test_batching_queues_and_instances_on_gpus_are_as_documented():
    models = {model.name: parsed(model.config) for model in repository_layout(["nano"], 640, ON_GPU)}
    for name in ("yolo_nano", "yolo_nano_end2end"):
        batching = models[name].dynamic_batching
        assert (models[name].max_batch_size, list(batching.preferred_batch_size)) == (64, [4, 8, 16, 32])
        assert batching.max_queue_delay_microseconds == 5000
        assert models[name].instance_group[0].count == 2
    tiers = {"streaming": (8, 100, 3, True), "balanced": (64, 500, 2, False), "batch": (128, 5000, 1, False)}
    for tier, numbers in tiers.items():
        config = models[f"yolo_nano_engine_{tier}"]
        batching = config.dynamic_batching
        seen = (config.max_batch_size, batching.max_queue_delay_microseconds, config.instance_group[0].count)
        assert (*seen, batching.preserve_ordering) == numbers
    for config in models.values():
        if not config.HasField("dynamic_batching"):
            assert config.platform == "ensemble"
            continue
        assert config.version_policy.latest.num_versions == 1
        policy = config.dynamic_batching.default_queue_policy
        assert (policy.default_timeout_microseconds, policy.max_queue_size) == (1_000_000, 128)
        assert ModelQueuePolicy.TimeoutAction.Name(policy.timeout_action) == "REJECT"
        sizes = [warm.batch_size for warm in config.model_warmup]
        assert sizes == ([] if config.backend == "dali" else [1, config.max_batch_size])


@pytest.fixture(scope="module", params=["tensorrt", "python-onnxruntime"])
def built(request, tmp_path_factory, demo_weights):
    folder = tmp_path_factory.mktemp("gpu")
    build(folder, demo_weights, request.param)
    return request.param, folder


def test_every_config_names_the_inputs_and_outputs_of_its_graph(built):
    engine, folder = built
    thresholds = set() if engine == "tensorrt" else {"score_threshold", "iou_threshold"}
    types = {"TYPE_FP32": "tensor(float)", "TYPE_INT32": "tensor(int32)"}
    for model in repository_layout(["nano"], SIDE, ON_GPU):
        if model.graph is None:
            continue
        graph = onnxruntime.InferenceSession(folder / model.name / "1" / "model.onnx")
        inputs = {one.name: one for one in graph.get_inputs()}
        outputs = {one.name: one for one in graph.get_outputs()}
        for text in (model.config, *model.alternatives.values()):
            config = parsed(text)
            expected = inputs.keys() - (thresholds if model.graph != "raw" else set())
            assert {one.name for one in config.input} == expected
            assert {one.name for one in config.output} == outputs.keys()
            assert list(config.input[0].dims) == inputs["images"].shape[1:]
            for one in config.output:
                assert outputs[one.name].type == types[DataType.Name(one.data_type)]
                fits = zip(one.dims, outputs[one.name].shape[1:], strict=True)
                assert all((wanted == real) if isinstance(real, int) else (wanted == -1) for wanted, real in fits)


def test_a_card_records_the_built_in_thresholds_and_only_tritons_dali_backend_gets_a_pipeline(built):
    engine, folder = built
    card, raw = (
        json.loads((folder / name / "1" / "model.json").read_text()) for name in ("yolo_nano_end2end", "yolo_nano")
    )
    assert (card["fixed_iou"], card["least_confidence"]) == ((0.7, 0.05) if engine == "tensorrt" else (None, 0.0))
    assert (raw["fixed_iou"], raw["device"], raw["backend"]) == (None, "cuda", engine)
    assert (folder / "yolo_preprocess" / "1" / "model.dali").is_file() == (engine == "tensorrt")


def test_another_image_size_needs_new_configs_and_a_new_dali_pipeline(tmp_path, demo_weights):
    build(tmp_path, demo_weights, "tensorrt")
    pipeline = tmp_path / "yolo_preprocess" / "1" / "model.dali"
    before = pipeline.read_bytes()
    for config in tmp_path.glob("*/config.pbtxt"):
        config.unlink()
    with pytest.raises(ConfigurationError, match=r"configs/.*\.pbtxt is for an image_size of 64, but .* is 96: delete"):
        build(tmp_path, demo_weights, "tensorrt", side=96)
    for config in tmp_path.glob("*/configs/*.pbtxt"):
        config.unlink()
    lines = []
    build(tmp_path, demo_weights, "tensorrt", lines, side=96)
    assert "yolo_preprocess: DALI pipeline for the GPU" in lines
    assert pipeline.read_bytes() != before
    lines.clear()
    built, settings = build(tmp_path, demo_weights, "tensorrt", lines, side=96)
    assert (built, lines) == (0, [])
    assert not build_plans(settings, lines.append)
    (line,) = lines
    assert line.startswith("no TensorRT plans built: ")
    assert line.endswith(". Replicas build missing plans at their first start, in minutes")
