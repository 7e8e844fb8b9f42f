"""Tiny graphs, and a fake TensorRT that processes import."""

import importlib.util
import json
import shutil
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from serve_app.detection.onnx_graph import OPSET

FLAVOURS = {
    "10": {"version": "10.14.1.48"},
    "11": {"version": "11.0.0.12"},
    "11 without the flag": {"version": "11.9.0", "no_flag": True},
}


class FakeTensorRT:
    """A package in its own folder that records the calls to it."""

    def __init__(self, site):
        self.site = site
        self.folder = site / "tensorrt"
        self.folder.mkdir(parents=True)
        shutil.copyfile(Path(__file__).parent / "fake_tensorrt.py", self.folder / "__init__.py")

    def behave(self, flavour="10", **behaviour):
        (self.folder / "behaviour.json").write_text(json.dumps(FLAVOURS[flavour] | behaviour))
        return self

    def module(self):
        """Load it into this process, anew each time."""
        spec = importlib.util.spec_from_file_location("fake_tensorrt_here", self.folder / "__init__.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def calls(self, name=None):
        lines = [line for file in self.folder.glob("calls/*") for line in file.read_text().splitlines()]
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if name in (None, call["call"])]

    def builders(self):
        """The ids of the processes that have started to build."""
        return {
            int(file.stem) for file in self.folder.glob("calls/*") if "build_serialized_network" in file.read_text()
        }


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A fake TensorRT on the import path of this process and its children."""
    package = FakeTensorRT(tmp_path / "site").behave()
    monkeypatch.setenv("PYTHONPATH", str(package.site))
    monkeypatch.syspath_prepend(package.site)
    return package


def make_graph(*inputs, kind="Identity"):
    """One node on the first of `inputs`, each a name with its shape."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, inputs[0][1])
    graph = helper.make_graph([helper.make_node(kind, [inputs[0][0]], ["output0"])], "tiny", values, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


@pytest.fixture
def graph_of():
    return make_graph


@pytest.fixture
def model():
    return make_graph(("images", ["batch", 3, 32, 32]))


@pytest.fixture
def graph(tmp_path, model):
    path = tmp_path / "yolo_tiny.onnx"
    onnx.save(model, path)
    return path
