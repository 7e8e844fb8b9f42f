"""The model repository: explicit loading with overrides, polling, registering, errors of loading."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import serve_app.triton.embedded as triton

MODELS = Path(__file__).parent / "models"

Get = Callable[[str], triton.Model]
ONES = {"IN0": np.ones(3, np.float32)}
CONFIG = {
    "backend": "python",
    "input": [{"name": "IN0", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "OUT0", "data_type": "TYPE_FP32", "dims": [-1]}],
}
DOUBLES = (MODELS / "identity" / "1" / "model.py").read_text().replace("as_numpy()", "as_numpy() * 2")


def values(model: triton.Model) -> list[float]:
    (response,) = model.infer(inputs=ONES)
    result: list[float] = np.from_dlpack(response.outputs["OUT0"]).tolist()
    return result


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    shutil.copytree(MODELS / "identity", folder / "identity", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def explicit(server: triton.Server, repository: Path) -> Iterator[triton.Server]:
    """The shared server with a repository of the test's own, in which `identity` is called `mine`."""
    server.register_model_repository(str(repository), {"identity": "mine"})
    yield server
    if server.model("mine").ready():
        server.unload("mine", wait_until_unloaded=True)
    server.unregister_model_repository(str(repository))


def test_a_registered_repository_offers_its_models_under_their_new_names(explicit: triton.Server) -> None:
    assert ("mine", -1) in explicit.models()
    assert values(explicit.load("mine")) == [1, 1, 1]


def test_an_unregistered_repository_offers_nothing(server: triton.Server, repository: Path) -> None:
    server.register_model_repository(str(repository), {"identity": "mine"})
    server.unregister_model_repository(str(repository))
    assert not any(name == "mine" for name, _ in server.models())
    with pytest.raises(triton.InvalidArgumentError, match="failed to unregister"):
        server.unregister_model_repository(str(repository))


def test_a_model_is_loaded_and_unloaded(explicit: triton.Server) -> None:
    model = explicit.load("mine")
    assert model.ready()
    assert explicit.models()["mine", 1].state == "READY"
    assert ("mine", 1) in explicit.models(exclude_not_ready=True)
    explicit.unload(model, wait_until_unloaded=True)
    assert not model.ready()
    assert explicit.models()["mine", 1].state == "UNAVAILABLE"
    with pytest.raises(triton.NotFoundError, match="unknown model: 'mine' has no available versions"):
        values(model)


def test_a_load_with_a_configuration_replaces_that_of_the_repository(explicit: triton.Server) -> None:
    config = explicit.load("mine").config()
    config["instance_group"] = [{"kind": "KIND_CPU", "count": 2}]
    model = explicit.load("mine", {"config": json.dumps(config)})
    assert model.config()["instance_group"][0]["count"] == 2
    assert values(model) == [1, 1, 1]


def test_a_load_with_files_replaces_the_whole_model(explicit: triton.Server) -> None:
    files = {"config": json.dumps(CONFIG), "file:1/model.py": DOUBLES.encode()}
    assert values(explicit.load("mine", files)) == [2, 2, 2]


def test_a_load_of_an_unknown_model_says_so(server: triton.Server) -> None:
    with pytest.raises(triton.InternalError, match="failed to load 'nope'"):
        server.load("nope")


def test_a_load_with_a_wrong_configuration_is_refused(explicit: triton.Server) -> None:
    with pytest.raises(triton.TritonError, match="failed to load 'mine'"):
        explicit.load("mine", {"config": json.dumps({"no_such_field": 1})})
    with pytest.raises(triton.TritonError, match="input 'IN0' must specify 'data_type'"):
        explicit.load("mine", {"config": json.dumps({"backend": "python", "input": [{"name": "IN0"}]})})


def test_a_load_of_a_model_that_raises_says_what_it_raised(explicit: triton.Server) -> None:
    broken = b"class TritonPythonModel:\n    def initialize(self, args):\n        raise RuntimeError('no weights')\n"
    with pytest.raises(triton.TritonError, match="no weights"):
        explicit.load("mine", {"config": json.dumps(CONFIG), "file:1/model.py": broken})


def test_parameters_of_a_wrong_type_are_refused(server: triton.Server) -> None:
    with pytest.raises(triton.InvalidArgumentError, match="Unsupported Value"):
        server.load("identity", {"config": ["a list"]})  # type: ignore[dict-item]


def test_an_unknown_model_is_no_key_of_the_dictionary_of_models(server: triton.Server) -> None:
    with pytest.raises(KeyError, match="Unknown Model: nope"):
        server.models()["nope"]
    assert server.models()["identity"].version == -1


def test_polling_is_refused_where_the_mode_is_explicit(server: triton.Server) -> None:
    with pytest.raises(triton.UnavailableError, match="polling is disabled"):
        server.poll_model_repository()


def test_a_polled_repository_that_gains_a_version_serves_it(repository: Path) -> None:
    config = repository / "identity" / "config.pbtxt"
    config.write_text(config.read_text() + "version_policy { all {} }\n")
    server = triton.Server(model_repository=str(repository), model_control_mode=triton.ModelControlMode.POLL).start(
        wait_until_ready=True
    )
    try:
        assert values(server.model("identity")) == [1, 1, 1]
        (repository / "identity" / "2").mkdir()
        (repository / "identity" / "2" / "model.py").write_text(DOUBLES)
        future = time.time() + 5
        os.utime(repository / "identity" / "2" / "model.py", (future, future))
        server.poll_model_repository()
        assert {key for key, model in server.models().items() if model.state == "READY"} == {
            ("identity", 1),
            ("identity", 2),
        }
        assert values(server.model("identity")) == [2, 2, 2]
        assert values(server.model("identity", 1)) == [1, 1, 1]
    finally:
        server.stop()
