"""What a deployment takes from a model repository, before any server is started."""

import json

import pytest
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.triton.repository import ModelRepository

KIND_CPU = ModelInstanceGroup.KIND_CPU
CARD = {"name": "", "backend": "openvino", "device": "cpu", "precision": "f32", "image_size": 640, "weights": "w.pt"}


def selected(repository, *patterns, sizes=("nano",)):
    return sorted(ModelRepository(repository.path, patterns or ("*",), sizes).selected)


def test_a_star_means_everything_but_sizes_that_are_not_configured(repository):
    repository.add("yolo").add("yolo_nano").add("yolo_small_end2end").add("mine")
    assert selected(repository) == ["mine", "yolo", "yolo_nano"]
    assert selected(repository, "yolo_small_end2end", "mine") == ["mine", "yolo_small_end2end"]


def test_the_steps_of_an_ensemble_come_with_it(repository):
    repository.add("one").add("two").add("other").add_ensemble("both", "one", "two")
    assert selected(repository, "both") == ["both", "one", "two"]


def test_a_step_that_is_missing_is_named(repository):
    repository.add("one").add_ensemble("both", "one", "two")
    with pytest.raises(ModelLoadError, match="model 'both': its ensemble step 'two' is not in"):
        selected(repository)


def test_a_pattern_that_matches_nothing_is_refused_with_what_there_is(repository):
    repository.add("one").add("two")
    with pytest.raises(ConfigurationError, match=r"no model matches 'three' in .*; available: one, two"):
        selected(repository, "three")


def test_a_config_that_cannot_be_parsed_is_named_with_its_line(repository):
    repository.add("broken", config='name: "broken"\nmax_batch_sise: 3\n')
    with pytest.raises(ModelLoadError, match=r"model 'broken': .*config\.pbtxt: 2:1 : .*max_batch_sise"):
        selected(repository)


def test_a_missing_repository_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere does not exist; run `make models` to build it"):
        ModelRepository(tmp_path / "nowhere", ["*"], [])


def test_the_card_of_a_model_is_of_its_newest_version_and_of_an_ensemble_its_engines(repository):
    repository.add("one").add("two").add_ensemble("both", "one", "two")
    for version, labels in (("1", ["old"]), ("10", ["new"]), ("9", ["older"])):
        folder = repository.path / "two" / version
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text(json.dumps(CARD | {"labels": labels, "key": "abc"}))
    cards = ModelRepository(repository.path, ["*"], []).cards()
    assert set(cards) == {"two", "both"}
    assert cards["both"].labels == cards["two"].labels == ("new",)


def test_models_that_make_models_wrote_are_told_from_others_whose_configs_triton_may_have_to_complete(repository):
    ours = '"""Decodes."""\n\nfrom serve_app.triton.python_models.picture import TritonPythonModel\n'
    repository.add("one", ours).add("two", ours).add("mine").add_ensemble("both", "one", "two")
    repository.add("graph", config='backend: "onnxruntime"')
    models = ModelRepository(repository.path, ("*",), None).all
    assert {name for name, model in models.items() if model.is_exported} == {"one", "two", "both"}
