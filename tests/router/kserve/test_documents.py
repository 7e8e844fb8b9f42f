"""The JSON of an inference request and the binary tensors after it: what each field may hold, and each refusal."""

import struct
import time

import pytest

from serve_app.errors import InvalidRequestError, UnsupportedError
from serve_app.router.kserve.documents import parse_request, with_timeout
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


def test_a_request_with_nothing_but_inputs_has_the_defaults():
    asked, as_binary = parse(inputs=[tensor()])
    (given,) = asked.inputs
    assert (given.name, given.datatype, given.shape, given.data) == ("x", "INT32", (2,), struct.pack("<2i", 1, 2))
    assert (asked.model, asked.version, asked.id, asked.outputs, asked.parameters) == ("m", 3, "", (), {})
    assert (asked.sequence, asked.priority, asked.timeout_us, asked.deadline) == (Sequence(), 0, 0, None)
    assert as_binary == {"": False}


def test_every_field_of_a_request_is_read():
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


def test_inputs_in_json_and_binary_may_be_mixed_and_binary_data_is_in_the_order_of_inputs():
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


def test_binary_inputs_are_views_of_the_body():
    body = bytes(8)
    asked, _ = parse(body, inputs=[binary()])
    assert isinstance(asked.inputs[0].data, memoryview)
    assert asked.inputs[0].data.obj is body


def test_binary_data_that_is_not_what_was_announced_is_refused():
    for body, entries, message in (
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
    ):
        assert message in refusal_of(body, inputs=entries)


NOT_TEXT = "must be valid UTF-8 without zero bytes"
NOT_UNSIGNED = "it must be an unsigned integer"
RESERVED = "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."
INPUTS = [
    (without("name"), "Unable to parse 'name': it is missing"),
    (tensor(name=None), "Unable to parse 'name': it must be a string"),
    (tensor(name="a\0b"), f"'name' {NOT_TEXT}"),
    (tensor(name="\ud800"), f"'name' {NOT_TEXT}"),
    (without("datatype"), "Unable to parse 'datatype': it is missing"),
    (tensor(datatype=32), "Unable to parse 'datatype': it must be a string"),
    (tensor(datatype="int32"), "invalid datatype for input x"),
    (tensor(datatype="BF16"), "receiving BF16 data via JSON is not supported"),
    (without("shape"), "Unable to parse 'shape': it must be a list of unsigned integers"),
    *((tensor(shape=shape), "Unable to parse 'shape'") for shape in (2, [-1, 2], [2.0], [True, 2], ["2"], [2**63])),
    (tensor(shape=[1] * 33), "input 'x' has 33 dimensions; 32 is the most"),
    (tensor(shape=[2**62] * 100_000), "input 'x' has 100000 dimensions; 32 is the most"),
    (tensor(parameters=[]), "Unable to parse 'parameters': it must be an object"),
    (without("data"), "input 'x' must set only one of the following fields"),
    (tensor(parameters={"binary_data_size": 8}), "input 'x' must set only one of the following fields"),
    *(
        (binary(size=size), f"Unable to parse 'binary_data_size': {NOT_UNSIGNED}")
        for size in (-1, "8", 8.0, True, 2**64)
    ),
    (tensor(data=None, shape=[1]), "has values that are not INT32"),
    (tensor(data=None), "input 'x' has 1 values"),
    (tensor(data=[1]), "input 'x' has 1 values"),
]
OUTPUTS = [
    ({}, "Unable to parse 'name': it is missing"),
    ({"name": "a\0"}, f"'name' {NOT_TEXT}"),
    ({"name": "y", "parameters": None}, "Unable to parse 'parameters': it must be an object"),
    ({"name": "y", "parameters": {"binary_data": 1}}, "Unable to parse 'binary_data': it must be true or false"),
    *(({"name": "y", "parameters": {"classification": count}}, f"Unable to parse 'classification': {NOT_UNSIGNED}")
      for count in (-1, "3", 2**63)),
]  # fmt: skip
PARAMETERS = [
    *((wrong, "Unable to parse 'parameters': it must be an object") for wrong in (None, [])),
    *(({"priority": wrong}, f"Unable to parse 'priority': {NOT_UNSIGNED}") for wrong in (-1, True, 2**64)),
    *(({"timeout": wrong}, f"Unable to parse 'timeout': {NOT_UNSIGNED}") for wrong in ("5", 1.5, None)),
    *(({"sequence_id": wrong}, "Unable to parse 'sequence_id': it must be an unsigned integer or a string")
      for wrong in (-1, 2**64, True, 1.5, None)),
    *(({"sequence_id": wrong}, f"'sequence_id' {NOT_TEXT}") for wrong in ("a\0b", "\ud800")),
    *(({name: wrong}, f"Unable to parse '{name}': it must be true or false")
      for name, wrong in (("sequence_start", 1), ("sequence_end", "true"), ("binary_data_output", 1))),
    *(({name: True}, RESERVED) for name in ("triton_", "triton_enable_empty_final_response")),
    *(({"mine": wrong}, "parameter 'mine' has invalid type. It should be either 'int', 'bool', or 'string'.")
      for wrong in (None, [1], {})),
    *(({"mine": wrong}, "parameter 'mine' doesn't fit into 64 bits") for wrong in (2**63, -(2**63) - 1)),
    ({"mine": "a\0"}, f"parameter 'mine' {NOT_TEXT}"),
    *(({name: 1}, f"parameter {NOT_TEXT}") for name in ("mi\0ne", "\ud800")),
]  # fmt: skip


def test_a_field_with_a_wrong_value_is_named():
    for entry, message in INPUTS:
        assert message in refusal_of(inputs=[tensor("fine"), entry]), message
    for output, message in OUTPUTS:
        assert message in refusal_of(outputs=[output]), output
    for parameters, message in PARAMETERS:
        assert refusal_of(parameters=parameters) == message, parameters
    for identifier in (1, None, ["a"]):
        assert refusal_of(id=identifier) == "Unable to parse 'id': it must be a string"
    for identifier in ("a\0b", "\udfff"):
        assert refusal_of(id=identifier) == f"'id' {NOT_TEXT}"


def test_inputs_and_outputs_are_lists_of_objects_and_inputs_are_required():
    for entries in (None, {}, "x", [1], [tensor(), None], [[tensor()]]):
        assert refusal_of(inputs=entries) == "Unable to parse 'inputs': it must be a list of objects"
        assert refusal_of(outputs=entries) == "Unable to parse 'outputs': it must be a list of objects"
    with pytest.raises(InvalidRequestError, match="Unable to parse 'inputs': it is missing"):
        parse_request("m", -1, {"outputs": []}, memoryview(b""), None)
    assert refusal_of(inputs=[tensor(), tensor("y"), tensor()]) == "input 'x' already exists in request"


def test_shared_memory_is_unsupported_in_both_directions():
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    entry = without("data", parameters=region)
    assert "input 'x' is in shared memory" in refusal_of(error=UnsupportedError, inputs=[entry])
    output = {"name": "y", "parameters": region}
    assert "output 'y' is requested in shared memory" in refusal_of(error=UnsupportedError, outputs=[output])


def test_a_sequence_is_named_by_a_number_or_text():
    for key in (0, "", 2**64 - 1, "call-7", "ü" * 128):
        asked, _ = parse(parameters={"sequence_id": key, "sequence_start": True, "sequence_end": True})
        assert asked.sequence == Sequence(key, start=True, end=True)


def test_the_earlier_of_deadline_and_timeout_counts(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    for deadline, timeout_us, expected in (
        (None, 0, None), (1005.0, 0, 1005.0), (None, 2_500_000, 1002.5), (1005.0, 2_500_000, 1002.5),
        (1001.0, 2_500_000, 1001.0), (1001.0, 2**64 - 1, 1001.0),
    ):  # fmt: skip
        assert with_timeout(deadline, timeout_us) == expected
    assert parse(parameters={"timeout": 500_000}, deadline=1001.0)[0].deadline == 1000.5
