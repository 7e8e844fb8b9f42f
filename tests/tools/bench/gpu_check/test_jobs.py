"""The jobs of a check: sizes, tracks, precision, one server for several deployments, and configs."""

from pathlib import Path

import pytest

from serve_app.detection.preprocess import read_header
from serve_app.settings import (
    PROJECT_ROOT,
    DetectionSettings,
    ModelSource,
    Settings,
    TritonSettings,
    read_config,
    settings_of,
)
from serve_app.tools.bench.gpu_check.cli import default_pictures
from serve_app.tools.bench.gpu_check.engines import EngineChoice
from serve_app.tools.bench.gpu_check.jobs import Planner, find_all_weights, merge_deployments
from serve_app.tools.bench.gpu_check.tasks import copy_configs
from serve_app.tools.bench.load import Load
from serve_app.tools.export.repository import build_repository

DEMO = ModelSource(weights="demo", precision="f16")


def planner(device="cuda", **models):
    detection = DetectionSettings(engine="tensorrt", models=models or {"nano": DEMO})
    return Planner(Settings(detection=detection), device, (b"picture",), Load(8, 1.0, 0.1), Path("/check"))


def test_an_engine_gets_every_track_but_a():
    job = planner(nano=DEMO, small=DEMO).engine_job(EngineChoice("python-torch"))
    assert [track.design.name for track in job.tracks] == ["B", "C", "D1", "D2", "D3"] * 2
    assert job.triton.models[:2] == ("yolo_nano", "yolo_nano_end2end")
    assert (job.detection.engine, job.detection.runs_on) == ("python-torch", "cuda")
    assert job.detection.model_repository == Path("/check/python-torch/models")


def test_fidelity_of_all_tracks_comes_before_their_speed():
    kinds = [part.kind for part in planner().engine_job(EngineChoice("tensorrt")).parts()]
    assert kinds == ["single", "concurrent"] * 5 + ["ladder"] * 5


def test_without_dali_there_is_no_track_d():
    job = planner().engine_job(EngineChoice("tensorrt", pipeline_reasons=("no DALI",)))
    assert [track.design.name for track in job.tracks] == ["B", "C"]


def test_a_job_has_the_precision_that_is_computed_in():
    assert planner().engine_job(EngineChoice("onnxruntime")).detection.models["nano"].precision == "f32"
    assert planner().engine_job(EngineChoice("tensorrt")).detection.models["nano"].precision == "f16"


def test_track_a_has_no_concurrent_part_and_may_be_left_out():
    assert [(part.track, part.kind) for part in planner().baseline_job(measured=True).parts()] == [
        ("A", "single"), ("A", "ladder"),
    ]  # fmt: skip
    left_out = planner().baseline_job(measured=False)
    assert left_out.parts() == []
    assert "nano" in left_out.detection.models, "the reference is needed in any case"


def test_several_deployments_become_one_server_without_a_cache():
    deployments = settings_of(read_config(PROJECT_ROOT / "configs" / "serve.gpu.yaml")).triton
    assert len(deployments) > 1
    one = merge_deployments(deployments, ["yolo_nano"])
    assert one.cuda_pool_mib == sum(deployment.cuda_pool_mib for deployment in deployments)
    cached = TritonSettings(name="a", instances={"yolo_nano": 3}, cache_mib=64, control_mode="explicit")
    other = TritonSettings(name="b", model_repository=Path("/other"), instances={"identity": 2})
    one = merge_deployments([other, cached], ["yolo_nano"])
    assert (one.cache_mib, one.control_mode, one.models) == (0, "none", ("yolo_nano",))
    assert (one.instances, one.cuda_pool_mib) == ({"yolo_nano": 3}, None)


def test_a_size_without_weights_is_left_out_with_its_reason():
    settings, missing = find_all_weights(planner(nano=DEMO, small=DEMO).settings)
    assert list(settings.detection.models) == ["nano"]
    assert settings.detection.models["nano"].weights.endswith("/demo-yolo11n.pt")
    assert missing == {"small": "weights for size 'small': the demo weights are nano only"}


@pytest.fixture
def target(tmp_path):
    return DetectionSettings(
        engine="python-torch", device="cpu", models={"nano": ModelSource(weights="demo")},
        model_repository=tmp_path / "target",
    )  # fmt: skip


def test_served_configs_are_copied_with_their_edits_and_those_of_an_earlier_run_are_removed(tmp_path, target):
    served = target.model_copy(update={"model_repository": tmp_path / "served"})
    build_repository(served, lambda line: None)
    edited = tmp_path / "served" / "yolo_nano" / "configs" / "python-torch.pbtxt"
    edited.write_text(edited.read_text().replace("max_batch_size: 64", "max_batch_size: 16"))
    copy = tmp_path / "target" / "yolo_nano" / "configs" / "python-torch.pbtxt"
    copy_configs(tmp_path / "served", target)
    assert "max_batch_size: 16" in copy.read_text()
    assert not list((tmp_path / "target").rglob("model.pt")), "engines are built, not copied"
    copy_configs(None, target)
    assert not copy.exists()
    build_repository(target, lambda line: None)
    assert "max_batch_size: 64" in copy.read_text()


def test_the_default_pictures_have_several_sizes():
    pictures = default_pictures()
    assert len(pictures) == 17
    headers = [read_header(picture, 10**7) for picture in pictures]
    assert len({(header.width, header.height) for header in headers}) >= 6
