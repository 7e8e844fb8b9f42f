"""Tiny model repositories for the Python backend."""

from pathlib import Path

import pytest

from serve_app.settings import TritonSettings
from serve_app.triton.engine import Engine
from serve_app.triton.repository import ModelRepository

EMBEDDED_MODELS = Path(__file__).parent / "embedded" / "models"

DOUBLING = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if x.flat[0] < 0:
                time.sleep(-float(x.flat[0]))
            tensor = pb_utils.Tensor("y", x * 2)
            answers.append(pb_utils.InferenceResponse([tensor]))
        return answers
"""
CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 4
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
{more}
"""
ENSEMBLE = """
name: "{name}"
platform: "ensemble"
max_batch_size: 4
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
ensemble_scheduling {{ step [
  {{ model_name: "{first}" model_version: -1
     input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "t" }} }},
  {{ model_name: "{second}" model_version: -1
     input_map {{ key: "x" value: "t" }} output_map {{ key: "y" value: "y" }} }}
] }}
"""


class Repository:
    """Writes models into a folder."""

    def __init__(self, path):
        self.path = path

    def add(self, name, model_py=DOUBLING, more="", config=None):
        version = self.path / name / "1"
        version.mkdir(parents=True)
        (self.path / name / "config.pbtxt").write_text(config or CONFIG.format(name=name, more=more))
        (version / "model.py").write_text(model_py)
        return self

    def add_ensemble(self, name, first, second):
        (self.path / name / "1").mkdir(parents=True)
        (self.path / name / "config.pbtxt").write_text(ENSEMBLE.format(name=name, first=first, second=second))
        return self


@pytest.fixture(scope="session")
def repository_in():
    """Repositories in folders of a fixture's own, which may live longer than a test."""
    return Repository


@pytest.fixture(scope="session")
def embedded_models():
    """The models that show what a request can ask for."""
    return EMBEDDED_MODELS


@pytest.fixture(scope="module")
def run_models():
    """Engines in explicit mode over a folder, with some of its models; stopped whatever happens."""
    engines = []

    def run(folder, *names):
        settings = TritonSettings(name="test", models=names, control_mode="explicit", drain_timeout_s=5)
        engines.append(Engine(ModelRepository(folder, names, None), settings))
        engines[-1].start()
        return engines[-1]

    yield run
    for engine in engines:
        engine.stop()


@pytest.fixture
def config_template():
    return CONFIG


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    return Repository(folder)
