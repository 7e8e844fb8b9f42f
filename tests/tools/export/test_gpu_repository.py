"""The repository for GPUs: its configs, the graphs they are for, and that it looks like the one for the CPU."""

import json

import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelQueuePolicy

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT, DetectionSettings
from serve_app.tools.export.layout import ON_CPU, ON_GPU, repository_layout
from serve_app.tools.export.repository import build_plans, build_repository


def settings(folder, weights, precision, **changes):
    return DetectionSettings(
        model_repository=folder, models={"nano": {"weights": str(weights), "precision": precision}}, **changes
    )


def test_the_committed_configs_are_what_the_export_writes():
    committed = PROJECT_ROOT / "model_repository" / "gpu"
    for model in repository_layout(["nano"], 640, ON_GPU):
        assert (committed / model.name / "config.pbtxt").read_text() == model.config
        for name, text in model.alternatives.items():
            assert (committed / model.name / "configs" / f"{name}.pbtxt").read_text() == text
        if model.model_py:
            assert (committed / model.name / "1" / "model.py").read_text() == model.model_py


def parsed(text):
    return text_format.Parse(text, ModelConfig())


def interface(config):
    """All that a client can see of a model's inputs and outputs."""
    tensors = (*config.input, *config.output)
    return config.name, config.max_batch_size, [(one.name, one.data_type, list(one.dims)) for one in tensors]


def test_a_client_cannot_tell_the_repositories_or_their_alternatives_apart():
    on_cpu, on_gpu = (list(repository_layout(["nano", "small"], 640, kind)) for kind in (ON_CPU, ON_GPU))
    assert [model.name for model in on_cpu] == [model.name for model in on_gpu]
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        expected = interface(parsed(cpu.config))
        for text in (gpu.config, *gpu.alternatives.values()):
            assert interface(parsed(text)) == expected


def test_the_gpus_configs_have_the_numbers_of_the_design():
    models = {model.name: parsed(model.config) for model in repository_layout(["nano"], 640, ON_GPU)}
    for name in ("yolo_nano", "yolo_nano_end2end"):
        batching = models[name].dynamic_batching
        assert (models[name].max_batch_size, list(batching.preferred_batch_size)) == (64, [4, 8, 16, 32])
        assert batching.max_queue_delay_microseconds == 5000
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
def for_a_gpu(request, tmp_path_factory, demo_weights):
    folder = tmp_path_factory.mktemp("gpu")
    precision = "f16" if request.param == "tensorrt" else "f32"
    build_repository(settings(folder, demo_weights, precision, engine=request.param), lambda line: None)
    return request.param, folder


def test_the_gpus_configs_name_only_inputs_and_outputs_that_their_graphs_have(for_a_gpu):
    engine, folder = for_a_gpu
    asked = set() if engine == "tensorrt" else {"score_threshold", "iou_threshold"}
    for model in repository_layout(["nano"], 640, ON_GPU):
        if model.graph is None:
            continue
        graph = onnxruntime.InferenceSession(folder / model.name / "1" / "model.onnx")
        inputs = {one.name: one for one in graph.get_inputs()}
        outputs = {one.name: one for one in graph.get_outputs()}
        for text in (model.config, *model.alternatives.values()):
            config = parsed(text)
            assert {one.name for one in config.input} == inputs.keys() - (asked if model.graph != "raw" else set())
            assert {one.name for one in config.output} == outputs.keys()
            assert list(config.input[0].dims) == inputs["images"].shape[1:]
            for one in config.output:
                kind = {"TYPE_FP32": "tensor(float)", "TYPE_INT32": "tensor(int32)"}[DataType.Name(one.data_type)]
                assert outputs[one.name].type == kind
                fits = zip(one.dims, outputs[one.name].shape[1:], strict=True)
                assert all((wanted == real) if isinstance(real, int) else (wanted == -1) for wanted, real in fits)


def test_a_card_tells_which_thresholds_are_built_in(for_a_gpu):
    engine, folder = for_a_gpu
    card = json.loads((folder / "yolo_nano_end2end" / "1" / "model.json").read_text())
    raw = json.loads((folder / "yolo_nano" / "1" / "model.json").read_text())
    assert (card["fixed_iou"], card["least_confidence"]) == ((0.7, 0.05) if engine == "tensorrt" else (None, 0.0))
    assert (raw["fixed_iou"], raw["device"], raw["backend"]) == (None, "cuda", engine)


def test_triton_gets_a_pipeline_for_its_dali_backend_where_it_reads_with_that(for_a_gpu):
    engine, folder = for_a_gpu
    assert (folder / "yolo_preprocess" / "1" / "model.dali").is_file() == (engine == "tensorrt")


def test_another_size_of_picture_is_told_of_every_config_and_the_pipeline_is_written_anew(tmp_path, demo_weights):
    def build(side, lines, **changes):
        changed = settings(tmp_path / "r", demo_weights, "f32", engine="tensorrt", image_size=side)
        return build_repository(changed, lines.append, **changes)

    build(320, [])
    pipeline = tmp_path / "r" / "yolo_preprocess" / "1" / "model.dali"
    before = pipeline.read_bytes()
    for config in (tmp_path / "r").glob("*/config.pbtxt"):
        config.unlink()
    with pytest.raises(ConfigurationError, match=r"configs/.*\.pbtxt is for pictures of 320 pixels"):
        build(256, [])
    for config in (tmp_path / "r").glob("*/configs/*.pbtxt"):
        config.unlink()
    lines = []
    build(256, lines)
    assert "yolo_preprocess: DALI's pipeline for the GPU" in lines
    assert pipeline.read_bytes() != before
    lines.clear()
    assert build(256, lines) == 0
    assert lines == []


def test_where_no_plan_can_be_built_it_is_said_and_the_repository_is_complete(tmp_path, demo_weights):
    lines = []
    build_plans(settings(tmp_path, demo_weights, "f16", engine="tensorrt", plans=tmp_path / "plans"), lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("no plans built here: TensorRT's plans are built on the GPU that runs them")
    assert lines[0].endswith("A replica builds its own at its first start, in minutes")
