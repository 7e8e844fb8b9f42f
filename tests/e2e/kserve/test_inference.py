"""Inference by each of the stock clients: every datatype, layout and option comes back right."""

import json

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

TYPES = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 65535]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-32768, 32767]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -65504.0]], np.float16),
    "FP32": np.array([[0.1, np.inf]], np.float32),
    "FP64": np.array([[0.1, -1e300]], np.float64),
    "BF16": np.array([[0.5, -3.0]], ml_dtypes.bfloat16),
    "STRING": np.array([[b"", "größer".encode()], [b"\x00\xff", b"x" * 70_000]], dtype=object),
}


def test_every_datatype_comes_back_as_it_went(client):
    for datatype, array in TYPES.items():
        wire = "BYTES" if datatype == "STRING" else datatype
        answer = client.infer("echo", [client.input(f"IN_{datatype}", wire, array)])
        assert np.array_equal(answer.as_numpy(f"OUT_{datatype}"), array), datatype


def test_every_datatype_that_json_has_comes_back_through_json_as_it_went(http):
    through_json = {name: array for name, array in TYPES.items() if name not in ("FP16", "BF16")}
    for datatype, array in (through_json | {"STRING": np.array([["", "größer"]], dtype=object)}).items():
        given = http.module.InferInput(f"IN_{datatype}", array.shape, "BYTES" if datatype == "STRING" else datatype)
        given.set_data_from_numpy(array, binary_data=False)
        answer = http.infer("echo", [given], outputs=[http.output(f"OUT_{datatype}", binary_data=False)])
        assert answer.as_numpy(f"OUT_{datatype}").tolist() == array.tolist(), datatype


def test_json_and_binary_inputs_go_together(http):
    first = http.module.InferInput("IN_INT32", [1, 2], "INT32")
    first.set_data_from_numpy(np.array([[1, 2]], np.int32), binary_data=False)
    second = http.input("IN_FP32", "FP32", np.array([[0.5]], np.float32))
    outputs = [http.output("OUT_INT32", binary_data=True), http.output("OUT_FP32", binary_data=False)]
    answer = http.infer("echo", [first, second], outputs=outputs)
    assert answer.as_numpy("OUT_INT32").tolist() == [[1, 2]]
    assert answer.as_numpy("OUT_FP32").tolist() == [[0.5]]


def test_an_empty_tensor_comes_back_empty(client):
    answer = client.infer("identity", [client.input("IN0", "FP32", np.empty(0, np.float32))])
    assert answer.as_numpy("OUT0").shape == (0,)


def test_the_id_comes_back_and_only_the_outputs_that_were_asked_for(client):
    inputs = [
        client.input("IN_INT8", "INT8", np.ones((1, 1), np.int8)),
        client.input("IN_UINT8", "UINT8", np.ones((1, 1), np.uint8)),
    ]
    answer = client.infer("echo", inputs, request_id="seven", outputs=[client.output("OUT_UINT8")])
    head = answer.get_response()
    assert (head["id"] if isinstance(head, dict) else head.id) == "seven"
    assert answer.as_numpy("OUT_INT8") is None
    assert answer.as_numpy("OUT_UINT8").tolist() == [[1]]


def test_an_output_that_no_model_has_is_refused(client):
    with pytest.raises(InferenceServerException, match="unexpected inference output 'NOPE'"):
        client.infer("identity", [client.ones()], outputs=[client.output("NOPE")])


def test_classification_gives_values_with_their_places(client):
    scores = client.input("IN0", "FP32", np.array([0.25, 4.0, 1.5], np.float32))
    answer = client.infer("identity", [scores], outputs=[client.output("OUT0", class_count=2)])
    assert answer.as_numpy("OUT0").tolist() == [b"4.000000:1", b"1.500000:2"]


def test_request_parameters_reach_the_model(client):
    given = {"text": "größer", "number": -7, "flag": True}
    answer = client.infer("parameters", [ask_for_parameters(client)], request_id="p1", parameters=given)
    seen = json.loads(answer.as_numpy("SEEN").ravel()[0])
    assert seen["parameters"] == given
    assert seen["request_id"] == "p1"


def ask_for_parameters(client):
    metadata = client.get_model_metadata("parameters")
    (given,) = metadata["inputs"][:1]
    return client.input(given["name"], given["datatype"], np.ones([1] * len(given["shape"]), np.float32))


def test_a_sequence_stays_together_over_two_replicas(client):
    values = [1.0, 2.0, 4.0, 8.0]
    for key in (77, "a text key"):
        for position, value in enumerate(values):
            answer = client.infer(
                "accumulate", [client.input("VALUE", "FP32", np.array([[value]], np.float32))],
                sequence_id=key, sequence_start=position == 0, sequence_end=position == len(values) - 1,
            )  # fmt: skip
            assert answer.as_numpy("SUM").tolist() == [[sum(values[: position + 1])]]


def test_compressed_requests_and_answers(http):
    array = np.zeros(50_000, np.float32)
    for algorithm in ("gzip", "deflate"):
        answer = http.infer(
            "identity", [http.input("IN0", "FP32", array)],
            request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
        )  # fmt: skip
        assert np.array_equal(answer.as_numpy("OUT0"), array)


def test_grpc_compression(grpc):
    array = np.zeros(50_000, np.float32)
    answer = grpc.infer("identity", [grpc.input("IN0", "FP32", array)], compression_algorithm="gzip")
    assert np.array_equal(answer.as_numpy("OUT0"), array)


def test_typed_contents_are_taken_as_raw_ones_are(grpc):
    request = grpcclient.service_pb2.ModelInferRequest(model_name="echo")
    for name, field, values in (
        ("BOOL", "bool_contents", [True, False]), ("UINT8", "uint_contents", [1, 255]),
        ("INT16", "int_contents", [-5, 5]), ("INT64", "int64_contents", [-(2**60), 1]),
        ("UINT64", "uint64_contents", [2**64 - 1, 0]), ("FP32", "fp32_contents", [0.1, -1]),
        ("FP64", "fp64_contents", [0.1, 1e300]), ("STRING", "bytes_contents", [b"", b"\xff\0"]),
    ):  # fmt: skip
        datatype = "BYTES" if name == "STRING" else name
        given = request.inputs.add(name=f"IN_{name}", datatype=datatype, shape=[1, 2])
        getattr(given.contents, field).extend(values)
    answer = grpcclient.InferResult(grpc.run(lambda: grpc._client._client_stub.ModelInfer(request)))
    assert answer.as_numpy("OUT_BOOL").tolist() == [[True, False]]
    assert answer.as_numpy("OUT_UINT8").tolist() == [[1, 255]]
    assert answer.as_numpy("OUT_INT16").tolist() == [[-5, 5]]
    assert answer.as_numpy("OUT_INT64").tolist() == [[-(2**60), 1]]
    assert answer.as_numpy("OUT_UINT64").tolist() == [[2**64 - 1, 0]]
    assert answer.as_numpy("OUT_FP64").tolist() == [[0.1, 1e300]]
    assert answer.as_numpy("OUT_STRING").tolist() == [[b"", b"\xff\0"]]
