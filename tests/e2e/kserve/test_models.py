"""What the stock clients ask of the server and its models, their errors, and the control of what is loaded."""

import json

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException


def test_the_server_is_live_and_ready_and_names_its_extensions(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "serve_app"
    assert {"binary_tensor_data", "classification", "statistics", "model_repository"} <= set(metadata["extensions"])


def test_a_model_tells_whether_it_is_ready_and_what_it_is(client):
    assert client.is_model_ready("identity")
    assert client.is_model_ready("identity", "1")
    assert not client.is_model_ready("identity", "7")
    assert not client.is_model_ready("no_such_model")
    metadata = client.get_model_metadata("identity")
    (given,) = metadata["inputs"]
    assert (given["name"], given["datatype"], [int(size) for size in given["shape"]]) == ("IN0", "FP32", [-1])
    config = client.get_model_config("identity")
    assert config.get("config", config)["backend"] == "python"


def test_an_unknown_model_is_an_error_that_names_what_there_is(client):
    for call in (client.get_model_metadata, client.get_model_config):
        with pytest.raises(
            InferenceServerException, match=r"unknown model: 'nope' is not found; available: .*identity"
        ):
            call("nope")
        with pytest.raises(InferenceServerException, match="'identity' version 9 is not found"):
            call("identity", "9")


def test_statistics_of_one_model_and_of_all(client, wait_for):
    before = successes(client, "identity")
    for _ in range(3):
        client.infer("identity", [client.ones()])
    wait_for(lambda: successes(client, "identity") == before + 3, 30, "three more are counted")
    names = {row["name"] for row in client.get_inference_statistics()["model_stats"]}
    assert {"identity", "yolo", "yolo_nano_gpu_e2e"} <= names


def successes(client, model):
    (row,) = client.get_inference_statistics(model)["model_stats"]
    return int(row["inference_stats"]["success"].get("count", 0))


def test_errors_of_a_model_come_with_their_message_and_no_internals(client):
    with pytest.raises(InferenceServerException, match="the model raised") as raised:
        client.infer("failing", [client.input("HOW", "BYTES", np.array([b"raise"], dtype=object))])
    assert "model.py" not in str(raised.value)
    with pytest.raises(InferenceServerException, match="no: busy") as raised:
        client.infer("failing", [client.input("HOW", "BYTES", np.array([b"busy"], dtype=object))])
    assert raised.value.status() in ("503", "StatusCode.UNAVAILABLE")


def test_a_deadline_that_passes_is_told(client):
    with pytest.raises(InferenceServerException) as raised:
        client.infer("slow", [client.input("SECONDS", "FP32", np.array([[3]], np.float32))], timeout=300_000)
    assert raised.value.status() in ("504", "StatusCode.DEADLINE_EXCEEDED")


def test_a_decoupled_model_is_refused_where_one_answer_is_all_there_is(client):
    with pytest.raises(InferenceServerException, match="decoupled") as raised:
        client.infer("decoupled", [client.input("COUNT", "FP32", np.array([2, 0], np.float32))])
    assert raised.value.status() in ("501", "StatusCode.UNIMPLEMENTED")


def test_shared_memory_traces_and_log_settings_are_off(client):
    for call in ("get_system_shared_memory_status", "get_cuda_shared_memory_status", "get_trace_settings",
                 "get_log_settings"):  # fmt: skip
        with pytest.raises(
            InferenceServerException, match=r"shared memory is not supported|can't be changed"
        ) as raised:
            getattr(client, call)()
        assert raised.value.status() in ("501", "StatusCode.UNIMPLEMENTED"), call


def index(client):
    rows = client.get_model_repository_index()
    rows = rows.get("models", []) if isinstance(rows, dict) else rows
    return {row["name"]: row.get("state") for row in rows}


def test_a_model_is_unloaded_and_loaded_on_every_replica(client, wait_for):
    assert index(client)["parameters"] == "READY"
    client.unload_model("parameters")
    wait_for(
        lambda: index(client)["parameters"] == "UNAVAILABLE", 30, "it is unloaded"
    )  # Triton answers before it is done
    for _ in range(10):  # whichever replica is asked
        assert not client.is_model_ready("parameters")
    client.load_model("parameters")
    for _ in range(10):
        assert client.is_model_ready("parameters")


def test_a_model_comes_whole_with_the_load_request(client):
    name = f"made_up_{client.kind.replace('.', '_')}"
    code = b"""
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT0",
            pb_utils.get_input_tensor_by_name(r, "IN0").as_numpy() * 3)]) for r in requests]
"""
    config = json.dumps(
        {"backend": "python", "input": [{"name": "IN0", "data_type": "TYPE_FP32", "dims": [-1]}],
         "output": [{"name": "OUT0", "data_type": "TYPE_FP32", "dims": [-1]}], "instance_group": [{"kind": "KIND_CPU"}]}
    )  # fmt: skip
    client.load_model(name, config=config, files={"file:1/model.py": code})
    for _ in range(6):
        assert client.infer(name, [client.ones()]).as_numpy("OUT0").tolist() == [3, 3, 3, 3]
    client.unload_model(name)


def test_a_load_that_fails_says_why(client):
    with pytest.raises(InferenceServerException, match="failed to load 'identity'"):
        client.load_model("identity", config='{"backend": "no_such_backend"}')
    client.load_model("identity")
    assert client.is_model_ready("identity")


def test_control_is_refused_where_it_is_off(client):
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not allowed"):
        client.unload_model("yolo")
    assert client.is_model_ready("yolo")
