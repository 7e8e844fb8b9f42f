"""What the server reads instead of the repository: other instances, other configs, TensorRT's plans."""

import shutil
from pathlib import Path

import pytest
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from serve_app.errors import ModelLoadError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.triton.overlay import Overlay, Preparation
from serve_app.triton.repository import ModelRepository

KIND_CPU = ModelInstanceGroup.KIND_CPU
ON_TENSORRT = 'name: "{name}"\nplatform: "tensorrt_plan"\nmax_batch_size: 64\n'


def whole(path, backing=""):
    return ModelRepository(path, ["*"], [], backing)


@pytest.mark.parametrize("relative", [False, True])
def test_it_has_other_instance_counts_and_the_same_files(repository, monkeypatch, relative):
    repository.add("one", more="instance_group [ { kind: KIND_CPU count: 1 } ]").add("two").add("three")
    monkeypatch.chdir(repository.path.parent)
    models = whole(Path(repository.path.name) if relative else repository.path)
    overlay = Preparation({"one": 3, "two": 2}).overlay_of(models)
    seen = whole(overlay.path).all
    assert [(group.count, group.kind) for group in seen["one"].config.instance_group] == [(3, KIND_CPU)]
    assert [group.count for group in seen["two"].config.instance_group] == [2]
    assert not seen["three"].config.instance_group
    for name in ("one", "two", "three"):
        assert (overlay.path / name / "1" / "model.py").samefile(repository.path / name / "1" / "model.py")
    overlay.close()
    assert not overlay.path.exists()


def test_there_is_no_overlay_if_the_repository_needs_no_change(repository):
    repository.add("one").add("two")
    assert (
        Preparation({}, "cpu", lambda *_: pytest.fail("no plan is needed")).overlay_of(whole(repository.path)) is None
    )


def test_the_config_for_another_backend_takes_the_place_of_the_first(repository):
    repository.add("one", config=ON_TENSORRT.format(name="one")).add("two")
    other = repository.path / "one" / "configs"
    other.mkdir()
    parameter = 'parameters { key: "device" value { string_value: "cuda" } }'
    (other / "python-torch.pbtxt").write_text(f'name: "one"\nbackend: "python"\n{parameter}\n')
    overlay = Preparation({}, "cpu").overlay_of(whole(repository.path, "python-torch"))
    seen = whole(overlay.path).all
    assert (seen["one"].config.backend, seen["two"].config.backend) == ("python", "python")
    assert seen["one"].config.parameters["device"].string_value == "cpu"
    assert not seen["two"].config.parameters


@pytest.fixture
def tensorrt(repository):
    """Three models, two with graphs, and an ensemble over one of them."""
    for name in ("one", "two", "ready"):
        repository.add(name, config=ON_TENSORRT.format(name=name))
        (repository.path / name / "1" / "model.onnx").write_text(f"graph of {name}")
    (repository.path / "ready" / "1" / "model.plan").write_text("a plan that came with the repository")
    return repository.add("python").add_ensemble("both", "python", "one")


class Plans:
    """Stands for the cache of plans, which tests/export/plans tries."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []

    def __call__(self, name, graph, max_batch):
        self.asked.append((name, graph.read_text(), max_batch))
        plan = self.folder / f"{name}.plan"
        plan.write_text(f"plan of {name}")
        return plan


def test_models_that_start_get_their_plans_beside_their_graphs(tensorrt, tmp_path):
    plans = Plans(tmp_path)
    repository = ModelRepository(tensorrt.path, ["both", "ready"], [])
    overlay = Preparation({}, plan_for=plans).overlay_of(repository)
    assert plans.asked == [("one", "graph of one", 64)]
    assert (overlay.path / "one" / "1" / "model.plan").read_text() == "plan of one"
    assert (overlay.path / "one" / "1" / "model.onnx").read_text() == "graph of one"
    assert (overlay.path / "ready" / "1" / "model.plan").read_text() == "a plan that came with the repository"
    assert not (tensorrt.path / "one" / "1" / "model.plan").exists()


def overlay_over(tensorrt, plans, *names):
    repository = ModelRepository(tensorrt.path, names, [])
    overlay = Overlay(repository, Preparation(plan_for=plans))
    overlay.refresh(*repository.selected)
    return overlay


def test_a_model_that_is_loaded_later_gets_its_plan_then_through_an_ensemble_too(tensorrt, tmp_path):
    plans = Plans(tmp_path)
    overlay = overlay_over(tensorrt, plans, "python")
    overlay.refresh("two")
    overlay.refresh("both")
    overlay.refresh("came with its load request")
    assert [name for name, _, _ in plans.asked] == ["two", "one"]
    assert (overlay.path / "one" / "1" / "model.plan").read_text() == "plan of one"


def test_every_version_has_a_plan_of_its_own(tensorrt, tmp_path):
    newer = tensorrt.path / "one" / "7"
    newer.mkdir()
    (newer / "model.onnx").write_text("newer graph of one")
    plans = Plans(tmp_path)
    overlay_over(tensorrt, plans, "one")
    assert [graph for _, graph, _ in plans.asked] == ["graph of one", "newer graph of one"]


def test_a_model_that_is_loaded_again_is_read_again(tensorrt, tmp_path):
    """New weights, a new version, another batch size, and a model that is new altogether."""
    plans = Plans(tmp_path)
    overlay = overlay_over(tensorrt, plans, "one")
    (tensorrt.path / "one" / "1" / "model.onnx").write_text("better graph of one")
    shutil.copytree(tensorrt.path / "one" / "1", tensorrt.path / "one" / "2")
    config = tensorrt.path / "one" / "config.pbtxt"
    config.write_text(config.read_text().replace("64", "16"))
    tensorrt.add("new", config=ON_TENSORRT.format(name="new"))
    (tensorrt.path / "new" / "1" / "model.onnx").write_text("graph of new")
    plans.asked.clear()
    overlay.refresh("one", "new")
    assert plans.asked == [
        ("one", "better graph of one", 16),
        ("one", "better graph of one", 16),
        ("new", "graph of new", 64),
    ]
    assert sorted(path.parent.name for path in (overlay.path / "one").glob("*/model.plan")) == ["1", "2"]
    assert (tensorrt.path / "one" / "1" / "model.onnx").read_text() == "better graph of one"


def test_models_that_are_not_served_are_not_read(repository):
    repository.add("one").add("broken", config="what is this?")
    (repository.path / "lost+found").mkdir()
    models = ModelRepository(repository.path, ["one"], [])
    assert Preparation().overlay_of(models) is None
    overlay = Preparation({"one": 2}).overlay_of(models)
    assert (overlay.path / "broken").is_symlink()


def test_plans_that_come_with_a_foreign_repository_need_no_overlay(repository, tmp_path):
    repository.add("ready", config=ON_TENSORRT.format(name="ready"))
    for file in ("model.onnx", "model.plan"):
        (repository.path / "ready" / "1" / file).write_text("made elsewhere")
    assert Preparation(plan_for=Plans(tmp_path)).overlay_of(whole(repository.path)) is None


def test_without_a_gpu_a_model_that_needs_a_plan_says_so(tensorrt, tmp_path):
    detection = DetectionSettings(model_repository=tensorrt.path, engine="tensorrt", plans=tmp_path / "plans")
    triton = TritonSettings(name="vision", models=("one",))
    preparation = Preparation.of(triton, detection, lambda line: None)
    with pytest.raises(ModelLoadError, match="model 'one' can't be loaded: TensorRT's plans are built on the GPU that"):
        preparation.overlay_of(ModelRepository.of(triton, detection))
    assert not (tmp_path / "plans").exists()
