"""The JSON of an inference request and the bytes after it: what each field may say, and how it is refused."""

import json
import struct
import time

import pytest

from serve_app.errors import InvalidRequestError, UnsupportedError
from serve_app.router.kserve.documents import parse_request, with_timeout
from serve_app.router.requests import parse_object
from serve_app.types.tensors import RequestedOutput, Sequence


def tensor(name="x", **changes):
    return {"name": name, "datatype": "INT32", "shape": [2], "data": [1, 2]} | changes


def without(key, **changes):
    return {name: value for name, value in tensor(**changes).items() if name != key}


def binary(name="x", size=8, **changes):
    return without("data", name=name, parameters={"binary_data_size": size}, **changes)


def parse(binary=b"", deadline=None, **document):
    return parse_request("m", 3, {"inputs": []} | document, memoryview(binary), deadline)


def refusal_of(binary=b"", error=InvalidRequestError, **document):
    with pytest.raises(error) as caught:
        parse(binary, **document)
    return caught.value.message


def test_the_least_that_can_be_said():
    asked, as_binary = parse(inputs=[tensor()])
    (given,) = asked.inputs
    assert (given.name, given.datatype, given.shape, given.data) == ("x", "INT32", (2,), struct.pack("<2i", 1, 2))
    assert (asked.model, asked.version, asked.id, asked.outputs, asked.parameters) == ("m", 3, "", (), {})
    assert (asked.sequence, asked.priority, asked.timeout_us, asked.deadline) == (Sequence(), 0, 0, None)
    assert as_binary == {"": False}


def test_everything_that_can_be_said():
    asked, as_binary = parse(
        id="grün-1",
        inputs=[tensor()],
        outputs=[
            {"name": "a"},
            {"name": "b", "parameters": {"binary_data": False, "classification": 3}},
            {"name": "c", "parameters": {"binary_data": True}},
        ],
        parameters={
            "sequence_id": 7, "sequence_start": True, "sequence_end": False, "priority": 2, "timeout": 5_000_000,
            "binary_data_output": True, "text": "t", "whole": -(2**63), "part": 1.5, "flag": False,
        },
        deadline=1.0,
    )  # fmt: skip
    assert asked.id == "grün-1"
    assert asked.outputs == (RequestedOutput("a"), RequestedOutput("b", 3), RequestedOutput("c"))
    assert as_binary == {"": True, "a": True, "b": False, "c": True}
    assert asked.sequence == Sequence(7, start=True)
    assert (asked.priority, asked.timeout_us, asked.deadline) == (2, 5_000_000, 1.0)
    assert asked.parameters == {"text": "t", "whole": -(2**63), "part": 1.5, "flag": False}


def test_inputs_in_json_and_in_bytes_may_be_mixed_and_bytes_go_by_the_order_of_inputs():
    asked, _ = parse(
        b"\1\0\0\0\2\0\0\0" + b"\x03\0\0\0abc" + b"\0\x3c",
        inputs=[
            binary("first"), tensor("second"),
            binary("third", 7, datatype="BYTES", shape=[1]), tensor("fourth", datatype="BYTES", data=["a", "b"]),
            binary("fifth", 2, datatype="FP16", shape=[1]), binary("sixth", 0, shape=[0]),
        ],
    )  # fmt: skip
    given = {entry.name: bytes(entry.data) for entry in asked.inputs}
    assert given == {
        "first": struct.pack("<2i", 1, 2), "second": struct.pack("<2i", 1, 2), "third": b"\x03\0\0\0abc",
        "fourth": b"\1\0\0\0a\1\0\0\0b", "fifth": b"\0\x3c", "sixth": b"",
    }  # fmt: skip


def test_binary_inputs_are_slices_of_the_body():
    body = bytes(8)
    asked, _ = parse(body, inputs=[binary()])
    assert isinstance(asked.inputs[0].data, memoryview)
    assert asked.inputs[0].data.obj is body


@pytest.mark.parametrize(
    ("body", "entries", "message"),
    [
        (b"", [binary()], "unexpected size for input 'x', expecting 8 additional bytes for model 'm'"),
        (bytes(7), [binary()], "unexpected size for input 'x', expecting 1 additional bytes for model 'm'"),
        (bytes(12), [binary(), binary("y")], "unexpected size for input 'y', expecting 4 additional bytes"),
        (b"", [binary(size=2**64 - 1)], f"expecting {2**64 - 1} additional bytes"),
        (bytes(9), [binary()], "unexpected additional input data for model 'm'"),
        (bytes(1), [tensor()], "unexpected additional input data for model 'm'"),
        (bytes(4), [binary(size=4)], "input byte size mismatch for input 'x'. Expected 8, got 4"),
        (bytes(12), [binary(size=12)], "input byte size mismatch for input 'x'. Expected 8, got 12"),
        (bytes(4), [binary(size=4, datatype="BYTES")], "input byte size mismatch for input 'x'. Expected 8, got 4"),
        (b"", [binary(size=0, shape=[2**63 - 1] * 32)], "input byte size mismatch for input 'x'. Expected"),
    ],
)
def test_bytes_that_are_not_what_was_announced_are_refused(body, entries, message):
    assert message in refusal_of(body, inputs=entries)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (without("name"), "Unable to parse 'name': it is missing"),
        (tensor(name=None), "Unable to parse 'name': it must be a string"),
        (tensor(name="a\0b"), "'name' must be valid UTF-8 without zero bytes"),
        (tensor(name="\ud800"), "'name' must be valid UTF-8 without zero bytes"),
        (without("datatype"), "Unable to parse 'datatype': it is missing"),
        (tensor(datatype=32), "Unable to parse 'datatype': it must be a string"),
        (tensor(datatype="int32"), "invalid datatype for input x"),
        (tensor(datatype="BF16"), "receiving BF16 data via JSON is not supported"),
        (without("shape"), "Unable to parse 'shape'"),
        (tensor(shape=2), "Unable to parse 'shape'"),
        (tensor(shape=[-1, 2]), "Unable to parse 'shape'"),
        (tensor(shape=[2.0]), "Unable to parse 'shape'"),
        (tensor(shape=[True, 2]), "Unable to parse 'shape'"),
        (tensor(shape=["2"]), "Unable to parse 'shape'"),
        (tensor(shape=[2**63]), "Unable to parse 'shape'"),
        (tensor(shape=[1] * 33), "input 'x' has 33 dimensions; 32 is the most"),
        (tensor(shape=[2**62] * 100_000), "input 'x' has 100000 dimensions; 32 is the most"),
        (tensor(parameters=[]), "Unable to parse 'parameters': it must be an object"),
        (without("data"), "input 'x' must set only one of the following fields"),
        (tensor(parameters={"binary_data_size": 8}), "input 'x' must set only one of the following fields"),
        (binary(size=-1), "Unable to parse 'binary_data_size': it must be an unsigned integer"),
        (binary(size="8"), "Unable to parse 'binary_data_size'"),
        (binary(size=8.0), "Unable to parse 'binary_data_size'"),
        (binary(size=True), "Unable to parse 'binary_data_size'"),
        (binary(size=2**64), "Unable to parse 'binary_data_size'"),
        (tensor(data=None, shape=[1]), "has values that are not INT32"),
        (tensor(data=None), "input 'x' has 1 values"),
        (tensor(data=[1]), "input 'x' has 1 values"),
    ],
)
def test_an_input_that_makes_no_sense_is_named(entry, message):
    assert message in refusal_of(inputs=[tensor("fine"), entry])


@pytest.mark.parametrize("entries", [None, {}, "x", [1], [tensor(), None], [[tensor()]]])
def test_inputs_are_a_list_of_objects(entries):
    assert "Unable to parse 'inputs'" in refusal_of(inputs=entries)
    assert "Unable to parse 'outputs'" in refusal_of(outputs=entries)


def test_inputs_must_be_there_and_outputs_need_not():
    with pytest.raises(InvalidRequestError, match="Unable to parse 'inputs': it is missing"):
        parse_request("m", -1, {"outputs": []}, memoryview(b""), None)


def test_two_inputs_of_one_name_are_refused():
    assert refusal_of(inputs=[tensor(), tensor("y"), tensor()]) == "input 'x' already exists in request"


def test_shared_memory_is_unsupported_in_both_directions():
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    assert "input 'x' is in shared memory" in refusal_of(
        error=UnsupportedError, inputs=[without("data", parameters=region)]
    )
    assert "output 'y' is requested in shared memory" in refusal_of(
        error=UnsupportedError, outputs=[{"name": "y", "parameters": region}]
    )


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({}, "Unable to parse 'name': it is missing"),
        ({"name": "a\0"}, "'name' must be valid UTF-8 without zero bytes"),
        ({"name": "y", "parameters": None}, "Unable to parse 'parameters'"),
        ({"name": "y", "parameters": {"binary_data": 1}}, "Unable to parse 'binary_data'"),
        ({"name": "y", "parameters": {"classification": -1}}, "Unable to parse 'classification'"),
        ({"name": "y", "parameters": {"classification": "3"}}, "Unable to parse 'classification'"),
        ({"name": "y", "parameters": {"classification": 2**63}}, "Unable to parse 'classification'"),
    ],
)
def test_an_output_that_makes_no_sense_is_named(output, message):
    assert message in refusal_of(outputs=[output])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (None, "Unable to parse 'parameters': it must be an object"),
        ([], "Unable to parse 'parameters': it must be an object"),
        ({"priority": -1}, "Unable to parse 'priority': it must be an unsigned integer"),
        ({"priority": True}, "Unable to parse 'priority'"),
        ({"priority": 2**64}, "Unable to parse 'priority'"),
        ({"timeout": "5"}, "Unable to parse 'timeout'"),
        ({"timeout": 1.5}, "Unable to parse 'timeout'"),
        ({"timeout": None}, "Unable to parse 'timeout'"),
        ({"sequence_id": -1}, "Unable to parse 'sequence_id'"),
        ({"sequence_id": 2**64}, "Unable to parse 'sequence_id'"),
        ({"sequence_id": True}, "Unable to parse 'sequence_id'"),
        ({"sequence_id": 1.5}, "Unable to parse 'sequence_id'"),
        ({"sequence_id": None}, "Unable to parse 'sequence_id'"),
        ({"sequence_start": 1}, "Unable to parse 'sequence_start': it must be true or false"),
        ({"sequence_end": "true"}, "Unable to parse 'sequence_end'"),
        ({"binary_data_output": 1}, "Unable to parse 'binary_data_output'"),
        ({"triton_": 1}, "parameter keys starting with 'triton_' are reserved for Triton usage"),
        ({"triton_enable_empty_final_response": True}, "parameter keys starting with 'triton_' are reserved"),
        ({"mine": None}, "parameter 'mine' has invalid type"),
        ({"mine": [1]}, "parameter 'mine' has invalid type"),
        ({"mine": {}}, "parameter 'mine' has invalid type"),
        ({"mine": 2**63}, "parameter 'mine' doesn't fit into 64 bits"),
        ({"mine": -(2**63) - 1}, "parameter 'mine' doesn't fit into 64 bits"),
        ({"mine": "a\0"}, "parameter 'mine' must be valid UTF-8 without zero bytes"),
        ({"mi\0ne": 1}, "parameter must be valid UTF-8 without zero bytes"),
        ({"\ud800": 1}, "parameter must be valid UTF-8 without zero bytes"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(parameters, message):
    assert message in refusal_of(parameters=parameters)


@pytest.mark.parametrize(
    ("key", "expected"), [(0, 0), ("", ""), (2**64 - 1, 2**64 - 1), ("call-7", "call-7"), ("ü" * 128, "ü" * 128)]
)
def test_a_sequence_is_named_by_a_number_or_text(key, expected):
    asked, _ = parse(parameters={"sequence_id": key, "sequence_start": True, "sequence_end": True})
    assert asked.sequence == Sequence(expected, start=True, end=True)


@pytest.mark.parametrize("identifier", [1, None, ["a"], "a\0b", "\udfff"])
def test_an_id_is_text_that_can_be_passed_on(identifier):
    assert "'id'" in refusal_of(id=identifier)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "failed to parse the request JSON buffer"),
        (b"{", "failed to parse the request JSON buffer"),
        (b'{"a": 1} x', "failed to parse the request JSON buffer"),
        (b"\xff\xfe\xfd", "failed to parse the request JSON buffer"),
        (b"[]", "it is not an object"),
        (b"null", "it is not an object"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b'{"a":' * 200_000, "it is nested too deeply"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "failed to parse the request JSON buffer"),
    ],
)
def test_what_is_no_json_object_is_refused(text, message):
    with pytest.raises(InvalidRequestError) as caught:
        parse_object(memoryview(text))
    assert message in caught.value.message


def test_a_json_object_is_read_from_bytes_and_from_a_part_of_them():
    text = json.dumps({"a": ["ü", 1]}).encode()
    assert parse_object(text) == parse_object(memoryview(text + b"tail")[: len(text)]) == {"a": ["ü", 1]}


def test_the_earlier_of_deadline_and_timeout_counts(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert with_timeout(None, 0) is None
    assert with_timeout(1005.0, 0) == 1005.0
    assert with_timeout(None, 2_500_000) == 1002.5
    assert with_timeout(1005.0, 2_500_000) == 1002.5
    assert with_timeout(1001.0, 2_500_000) == 1001.0
    assert with_timeout(1001.0, 2**64 - 1) == 1001.0
    assert parse(parameters={"timeout": 500_000}, deadline=1001.0)[0].deadline == 1000.5


@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
def test_a_sequence_is_named_by_text_that_can_be_passed_on(key):
    assert "must be valid UTF-8 without zero bytes" in refusal_of(parameters={"sequence_id": key})


def test_a_number_that_is_too_long_to_read_shows_no_internals():
    with pytest.raises(InvalidRequestError) as caught:
        parse_object(b'{"a": ' + b"9" * 5000 + b"}")
    assert "sys." not in caught.value.message


def test_a_null_is_not_said_to_be_missing():
    assert "missing" not in refusal_of(inputs=None)
