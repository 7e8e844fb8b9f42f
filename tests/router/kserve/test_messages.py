"""Inference requests and answers as protobuf messages: typed and raw tensors, refusals, and answers."""

import struct
import time

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from serve_app.errors import InvalidRequestError, UnsupportedError
from serve_app.router.kserve.messages import EMPTY_FINAL, parse_message, parse_version, read_message, write_message
from serve_app.router.offload import Offload
from serve_app.types.tensors import InferAnswer, RequestedOutput, Sequence, Tensor

TYPED = {
    "BOOL": ("bool_contents", [True, False], b"\1\0"),
    "UINT8": ("uint_contents", [0, 255], b"\0\xff"),
    "UINT16": ("uint_contents", [0, 65535], b"\0\0\xff\xff"),
    "UINT32": ("uint_contents", [0, 2**32 - 1], struct.pack("<2I", 0, 2**32 - 1)),
    "UINT64": ("uint64_contents", [1, 2**64 - 1], struct.pack("<2Q", 1, 2**64 - 1)),
    "INT8": ("int_contents", [-128, 127], b"\x80\x7f"),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1], struct.pack("<2h", -(2**15), 2**15 - 1)),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1], struct.pack("<2i", -(2**31), 2**31 - 1)),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1], struct.pack("<2q", -(2**63), 2**63 - 1)),
    "FP32": ("fp32_contents", [1.5, float("inf")], struct.pack("<2f", 1.5, float("inf"))),
    "FP64": ("fp64_contents", [0.1, -1e300], struct.pack("<2d", 0.1, -1e300)),
    "BYTES": ("bytes_contents", [b"a\0", b""], b"\2\0\0\0a\0\0\0\0\0"),
}


def message(*inputs, raw=(), **fields):
    made = pb.ModelInferRequest(model_name="m", raw_input_contents=raw, **fields)
    for name, datatype, shape, contents in inputs:
        given = made.inputs.add(name=name, datatype=datatype, shape=shape)
        if contents is not None:
            given.contents.SetInParent()
            for field, values in contents.items():
                getattr(given.contents, field).extend(values)
    return made


def refusal_of(made, error=InvalidRequestError):
    with pytest.raises(error) as caught:
        parse_message(made, None)
    return caught.value.message


def test_typed_contents_of_every_datatype_are_its_bytes():
    for datatype, (field, values, data) in TYPED.items():
        (given,) = parse_message(message(("x", datatype, [1, 2], {field: values})), None).inputs
        assert given == Tensor("x", datatype, (1, 2), data)
        (empty,) = parse_message(message(("x", datatype, [0], {})), None).inputs
        assert empty.data == b""


def test_typed_contents_out_of_range_are_refused():
    for datatype, value in (("UINT8", 256), ("UINT16", 65536), ("INT8", 128), ("INT8", -129), ("INT16", 2**15),
                            ("INT16", -(2**31))):  # fmt: skip
        refusal = refusal_of(message(("x", datatype, [1], {TYPED[datatype][0]: [value]})))
        assert refusal == f"the data of input 'x' has values out of range for {datatype}", value


def test_typed_contents_in_another_field_are_refused():
    for datatype, (field, own, _) in TYPED.items():
        for other, values in {f: v for f, v, _ in TYPED.values() if f != field}.items():
            for contents in ({other: values}, {other: values, field: own}):
                refusal = refusal_of(message(("x", datatype, [2], contents)))
                assert "unexpected explicit tensor data for input tensor 'x' in " in refusal
                assert other in refusal
                assert refusal.endswith(f"expected datatype '{datatype}' in {field}")
    for datatype in ("FP16", "BF16"):
        assert "which must be sent raw" in refusal_of(message(("x", datatype, [1], {"fp32_contents": [1.0]})))
        (given,) = parse_message(message(("x", datatype, [1], None), raw=[b"\0\x3c"]), None).inputs
        assert given.data == b"\0\x3c"


def test_raw_contents_belong_to_the_inputs_by_their_order_and_more_are_ignored():
    made = message(("b", "INT8", [2], None), ("a", "BYTES", [1], None), ("c", "FP32", [0], None),
                   raw=[b"\1\2", b"\1\0\0\0z", b""])  # fmt: skip
    assert [(tensor.name, tensor.data) for tensor in parse_message(made, None).inputs] == [
        ("b", b"\1\2"), ("a", b"\1\0\0\0z"), ("c", b""),
    ]  # fmt: skip
    made = message(("x", "INT8", [1], None), raw=[b"a", b"b", b""])
    assert parse_message(made, None).inputs == (Tensor("x", "INT8", (1,), b"a"),), "as in Triton"


def test_an_input_with_a_wrong_field_is_named():
    for made, refusal in [
        (message(("x", "INT8", [1], None)), "unable to find data for input tensor 'x' for model 'm' in request."),
        (message(("x", "INT8", [1], None), ("y", "INT8", [1], None), raw=[b"a"]),
         "unable to find data for input tensor 'y'"),
        (message(("x", "INT8", [1], {"int_contents": [1]}), raw=[b"a"]), "contents field must not be specified"),
        (message(("x", "INT8", [1], None), ("y", "INT8", [1], {"int_contents": [1]}), raw=[b"a"]),
         "contents field must not be specified when using raw_input_contents for 'y'"),
        (message(("x", "INT8", [2], None), raw=[b"a"]), "input byte size mismatch for input 'x'. Expected 2, got 1"),
        (message(("x", "INT8", [2], None), raw=[b"abc"]), "input byte size mismatch for input 'x'. Expected 2, got 3"),
        (message(("x", "BYTES", [2], None), raw=[b"\0\0\0\0"]), "Expected 8, got 4"),
        (message(("x", "INT8", [2], {"int_contents": [1]})), "Expected 2, got 1"),
        (message(("x", "int8", [1], None), raw=[b"a"]), "invalid datatype for input x"),
        (message(("x", "", [1], None), raw=[b"a"]), "invalid datatype for input x"),
        (message(("x", "INT8", [-1], None), raw=[b"a"]),
         "All input dimensions should be specified for input 'x', got [-1]"),
        (message(("x", "INT8", [1] * 33, None), raw=[b"a"]), "input 'x' has 33 dimensions; 32 is the most"),
        (message(("x", "INT8", [2**63 - 1] * 50_000, None), raw=[b"a"]), "input 'x' has 50000 dimensions"),
        (message(("x", "INT8", [1], None), ("x", "INT8", [1], None), raw=[b"a", b"b"]),
         "'x' already exists in request"),
        (message(("x\0", "INT8", [1], None), raw=[b"a"]), "an input's name must be valid UTF-8 without zero bytes"),
        (message(id="a\0"), "'id' must be valid UTF-8 without zero bytes"),
    ]:  # fmt: skip
        assert refusal in refusal_of(made)


def test_shared_memory_is_unsupported_in_both_directions():
    made = message(("x", "INT8", [1], None))
    made.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert "input 'x' is in shared memory" in refusal_of(made, UnsupportedError)
    made = message()
    made.outputs.add(name="y").parameters["shared_memory_region"].string_param = "r"
    assert "output 'y' is requested in shared memory" in refusal_of(made, UnsupportedError)


def test_a_version_is_a_number_or_omitted():
    for text, version in {"": -1, "1": 1, "007": 7, str(2**63 - 1): 2**63 - 1}.items():
        assert parse_version(text) == parse_message(message(model_version=text), None).version == version
    for text in ("-1", "1.0", "latest", " 1", "²", "٣", str(2**63), "9" * 100_000):
        with pytest.raises(InvalidRequestError) as caught:
            parse_version(text)
        assert caught.value.message == (
            f"failed to get model version from specified version string '{text[:40]}', "
            "version should be an integral value > 0"
        )


def test_parameters_that_the_protocol_defines_are_not_passed_to_the_model(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    made = message(id="i")
    made.parameters["sequence_id"].int64_param = 5
    made.parameters["sequence_start"].bool_param = True
    made.parameters["sequence_end"].bool_param = True
    made.parameters["priority"].uint64_param = 2**64 - 1
    made.parameters["timeout"].int64_param = 3_000_000
    made.parameters[EMPTY_FINAL].bool_param = True
    made.parameters["text"].string_param = "ü"
    made.parameters["part"].double_param = 0.5
    made.outputs.add(name="y").parameters["classification"].int64_param = 4
    made.outputs.add(name="z")
    asked = parse_message(made, 2000.0)
    assert (asked.model, asked.id, asked.outputs) == ("m", "i", (RequestedOutput("y", 4), RequestedOutput("z")))
    assert asked.sequence == Sequence(5, start=True, end=True)
    assert (asked.priority, asked.timeout_us, asked.deadline) == (2**64 - 1, 3_000_000, 1003.0)
    assert asked.parameters == {"text": "ü", "part": 0.5}


def test_a_parameter_with_a_wrong_value_is_named():
    for name, kind, value, refusal in [
        ("mine", None, None, "parameter 'mine' has no value"),
        ("mine", "uint64_param", 2**63, "parameter 'mine' doesn't fit into 64 bits"),
        ("mine", "string_param", "a\0", "parameter 'mine' must be valid UTF-8"),
        ("triton_x", "bool_param", True, "parameter keys starting with 'triton_' are reserved"),
        ("sequence_id", "int64_param", -1, "Unable to parse 'sequence_id'"),
        ("sequence_id", "bool_param", True, "Unable to parse 'sequence_id'"),
        ("sequence_start", "int64_param", 1, "Unable to parse 'sequence_start'"),
        ("priority", "int64_param", -1, "Unable to parse 'priority'"),
        ("timeout", "string_param", "1", "Unable to parse 'timeout'"),
        ("timeout", "double_param", 1.0, "Unable to parse 'timeout'"),
    ]:
        made = message()
        made.parameters[name].SetInParent()
        if kind:
            setattr(made.parameters[name], kind, value)
        assert refusal in refusal_of(made)
    made = message()
    made.outputs.add(name="y").parameters["classification"].int64_param = -1
    assert refusal_of(made) == "Unable to parse 'classification': it must be an unsigned integer"


def test_an_answer_has_raw_outputs_and_parameters_of_every_type():
    outputs = (Tensor("y", "INT8", (2, 1), b"\1\2"), Tensor("z", "BYTES", (1,), memoryview(b"\1\0\0\0a")))
    parameters = {"flag": True, "whole": -7, "part": 0.5, "text": "ü"}
    made = write_message(InferAnswer("m", "3", "i", outputs, parameters))
    back = pb.ModelInferResponse.FromString(made.SerializeToString())
    assert (back.model_name, back.model_version, back.id) == ("m", "3", "i")
    assert [(out.name, out.datatype, list(out.shape)) for out in back.outputs] == [
        ("y", "INT8", [2, 1]), ("z", "BYTES", [1]),
    ]  # fmt: skip
    assert list(back.raw_output_contents) == [b"\1\2", b"\1\0\0\0a"]
    kinds = {name: parameter.WhichOneof("parameter_choice") for name, parameter in back.parameters.items()}
    assert kinds == {"flag": "bool_param", "whole": "int64_param", "part": "double_param", "text": "string_param"}
    assert {name: getattr(back.parameters[name], kind) for name, kind in kinds.items()} == parameters

    final = write_message(InferAnswer("m", "3", "i"))  # the empty final answer of a stream
    assert (final.model_name, final.model_version, final.id, len(final.outputs)) == ("m", "", "i", 0)


async def test_large_typed_contents_are_read_in_another_process_and_raw_ones_are_not():
    class Watched(Offload):
        used = 0

        async def run(self, *arguments, **options):
            self.used += 1
            return await super().run(*arguments, **options)

    offload, values = Watched(), [0.5] * 100_000
    typed = message(("x", "FP32", [len(values)], {"fp32_contents": values}))
    raw = message(("x", "FP32", [len(values)], None), raw=[np.array(values, np.float32).tobytes()])
    assert (await read_message(raw, None, offload)).inputs == (await read_message(typed, None, offload)).inputs
    assert offload.used == 1
    broken = message(("x", "FP32", [7], {"fp32_contents": values}))
    with pytest.raises(InvalidRequestError, match="byte size mismatch for input 'x'"):
        await read_message(broken, None, offload)
    await offload.close()
