"""The raw binary request: how a body without a word of JSON becomes the one input of its model."""

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.router.kserve.bodies import raw_request


def ask(body, shape, datatype="FP32", batched=False):
    metadata = {"inputs": [{"name": "x", "datatype": datatype, "shape": shape}]}
    asked = raw_request("m", 4, memoryview(body), metadata, batched, 99.0)
    assert (asked.model, asked.version, asked.deadline, asked.outputs) == ("m", 4, 99.0, ())
    (tensor,) = asked.inputs
    assert (tensor.name, tensor.datatype) == ("x", datatype)
    return tensor


@pytest.mark.parametrize(
    ("size", "shape", "batched", "expected"),
    [
        (8, [2], False, (2,)), (8, ["2"], False, (2,)), (8, [-1], False, (2,)), (24, [3, -1], False, (3, 2)),
        (12, [-1, 3], True, (1, 3)), (24, [-1, 3, -1], True, (1, 3, 2)),
        (24, [-1, 3], False, (2, 3)), (4, [], False, ()), (0, [-1], False, (0,)), (0, [3, -1], False, (3, 0)),
    ],
)  # fmt: skip
def test_the_length_of_the_body_says_the_one_open_dimension(size, shape, batched, expected):
    body = bytes(range(size))
    tensor = ask(body, shape, batched=batched)
    assert tensor.shape == expected
    assert bytes(tensor.data) == body


def test_the_body_is_not_copied():
    assert isinstance(ask(bytes(8), [-1]).data, memoryview)


@pytest.mark.parametrize("datatype", ["UINT8", "BOOL", "INT16", "FP16", "BF16", "UINT64", "FP64"])
def test_every_datatype_has_its_width(datatype):
    assert ask(bytes(16), [-1], datatype).shape == (
        16 // {"UINT8": 1, "BOOL": 1, "INT16": 2, "FP16": 2, "BF16": 2, "UINT64": 8, "FP64": 8}[datatype],
    )


@pytest.mark.parametrize(
    ("shape", "batched", "expected"),
    [([1], False, (1,)), ([-1], False, (1,)), ([-1, -1], True, (1, 1)), ([], False, ())],
)
@pytest.mark.parametrize("body", [b"", b"text", "grün\0".encode()])
def test_text_is_one_element(body, shape, batched, expected):
    tensor = ask(body, shape, "BYTES", batched)
    assert tensor.shape == expected
    assert tensor.elements() == [body]


@pytest.mark.parametrize(
    ("size", "shape", "batched"),
    [
        (7, [2], False), (9, [2], False), (0, [2], False), (16, [2], False), (10, [-1], False), (8, [3, -1], False),
        (24, [-1, 3], True), (4, [0, -1], False), (4, [0], False), (0, [], False),
    ],
)  # fmt: skip
def test_bytes_that_are_no_whole_input_are_refused(size, shape, batched):
    with pytest.raises(InvalidRequestError) as caught:
        ask(bytes(size), shape, batched=batched)
    assert f"the body has {size} bytes, which doesn't fit input 'x' of shape" in caught.value.message


@pytest.mark.parametrize(("shape", "batched"), [([-1, -1], False), ([-1, -1, -1], True), ([3, -1, -1], False)])
def test_two_open_dimensions_are_one_too_many(shape, batched):
    with pytest.raises(InvalidRequestError, match="input 'x' has more than one variable dimension"):
        ask(bytes(24), shape, batched=batched)


@pytest.mark.parametrize("count", [0, 2])
def test_a_model_must_have_one_input(count):
    rows = [{"name": f"x{index}", "datatype": "FP32", "shape": [1]} for index in range(count)]
    with pytest.raises(InvalidRequestError, match="needs a model with exactly one input, 'm' has"):
        raw_request("m", -1, memoryview(bytes(4)), {"inputs": rows}, False, 1.0)
