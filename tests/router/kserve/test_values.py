"""Tensor values between JSON and the protocol's bytes: each datatype, its ends, and everything that isn't it."""

import json
import math
import struct

import numpy as np
import pytest

from serve_app.errors import InvalidRequestError
from serve_app.router.kserve.values import pack_values, unpack_values
from serve_app.types.tensors import Tensor

CASES = {
    "BOOL": ([True, False, True], b"\x01\x00\x01"),
    "UINT8": ([0, 1, 255], b"\x00\x01\xff"),
    "UINT16": ([0, 1, 65535], struct.pack("<3H", 0, 1, 65535)),
    "UINT32": ([0, 1, 2**32 - 1], struct.pack("<3I", 0, 1, 2**32 - 1)),
    "UINT64": ([0, 1, 2**64 - 1], struct.pack("<3Q", 0, 1, 2**64 - 1)),
    "INT8": ([-128, 0, 127], struct.pack("<3b", -128, 0, 127)),
    "INT16": ([-(2**15), 0, 2**15 - 1], struct.pack("<3h", -(2**15), 0, 2**15 - 1)),
    "INT32": ([-(2**31), 0, 2**31 - 1], struct.pack("<3i", -(2**31), 0, 2**31 - 1)),
    "INT64": ([-(2**63), 0, 2**63 - 1], struct.pack("<3q", -(2**63), 0, 2**63 - 1)),
    "FP32": ([-1.5, 0.0, 3.0e38], struct.pack("<3f", -1.5, 0.0, 3.0e38)),
    "FP64": ([-1.5, 5e-324, 1.7e308], struct.pack("<3d", -1.5, 5e-324, 1.7e308)),
    "BYTES": (["a", "", "grün\n"], b"\x01\0\0\0a\0\0\0\0\x06\0\0\0gr\xc3\xbcn\n"),
}


def refusal_of(datatype, shape, values):
    with pytest.raises(InvalidRequestError) as caught:
        pack_values("x", datatype, shape, values)
    return caught.value.message


@pytest.mark.parametrize("datatype", CASES)
def test_every_datatype_goes_from_json_to_bytes_and_back(datatype):
    values, data = CASES[datatype]
    packed = pack_values("x", datatype, (3,), json.loads(json.dumps(values)))
    assert packed == data
    back = unpack_values(Tensor("x", datatype, (3,), packed))
    assert json.loads(json.dumps(back)) == (values if datatype != "FP32" else np.float32(values).tolist())
    assert {type(value) for value in back} <= {bool, int, float, str}


@pytest.mark.parametrize("datatype", CASES)
def test_nested_and_flat_lists_say_the_same(datatype):
    (one, two, three), _ = CASES[datatype]
    nested = [[[one], [two]], [[three], [one]]]
    assert pack_values("x", datatype, (2, 2), nested) == pack_values("x", datatype, (2, 2), [one, two, three, one])


@pytest.mark.parametrize("datatype", CASES)
def test_a_lone_value_is_one_element(datatype):
    (one, *_), _ = CASES[datatype]
    for shape in ((), (1,), (1, 1)):
        assert pack_values("x", datatype, shape, one) == pack_values("x", datatype, (1,), [one])


@pytest.mark.parametrize("datatype", CASES)
def test_nothing_fills_a_shape_with_a_zero(datatype):
    for values in ([], [[], []]):
        assert pack_values("x", datatype, (2, 0), values) == b""
    assert unpack_values(Tensor("x", datatype, (2, 0), b"")) == []


@pytest.mark.parametrize("datatype", CASES)
@pytest.mark.parametrize(("shape", "count"), [((2,), 3), ((2, 2), 3), ((1,), 0), ((0,), 1), ((), 2)])
def test_another_number_of_values_than_the_shape_takes_is_refused(datatype, shape, count):
    values = (CASES[datatype][0] * 2)[:count]
    message = refusal_of(datatype, shape, values)
    assert f"input 'x' has {count} values" in message
    assert f"its shape {list(shape)} needs {math.prod(shape)}" in message


@pytest.mark.parametrize(
    ("datatype", "low", "high"),
    [
        ("UINT8", -1, 255), ("UINT8", 0, 256), ("UINT16", 0, 65536), ("UINT32", 0, 2**32), ("UINT32", -5, 0),
        ("INT8", -129, 0), ("INT8", 0, 128), ("INT16", -(2**15) - 1, 0), ("INT32", 0, 2**31), ("INT64", 2**63, 2**63),
        ("UINT64", -1, 5),
    ],
)  # fmt: skip
def test_a_whole_number_beyond_its_datatype_is_named(datatype, low, high):
    message = refusal_of(datatype, (2,), [low, high])
    assert message == f"the data of input 'x' ranges from {low} to {high}, out of range for {datatype}"


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("UINT64", [2**64]), ("UINT64", [-1, 2**63]), ("UINT64", [1, 10**400]), ("UINT8", [-(10**30), 10**30]),
        ("INT64", [-1, 2**63]), ("INT64", [0, 2**63]), ("INT64", [-(2**63) - 1]), ("INT64", [2**64]),
        ("INT64", [10**400]), ("INT32", [10**30]),
    ],
)  # fmt: skip
def test_a_whole_number_beyond_every_datatype_is_named_too(datatype, values):
    message = refusal_of(datatype, (len(values),), values)
    assert message == f"the data of input 'x' ranges from {values[0]} to {values[-1]}, out of range for {datatype}"


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_a_whole_number_that_no_fraction_reaches_is_refused(datatype, value):
    message = refusal_of(datatype, (2,), [0.5, value])
    assert message == f"the data of input 'x' has an integer out of range for {datatype}"


@pytest.mark.parametrize(
    "values", [[2**63, 0], [2**64 - 1, 1], [0, 2**63 + 1, 2**53 + 1], [[2**63], [1]], [2**63 - 1, 2**63]]
)
def test_large_and_small_unsigned_numbers_keep_every_digit(values):
    flat = [item for entry in values for item in (entry if isinstance(entry, list) else [entry])]
    packed = pack_values("x", "UINT64", (len(flat),), values)
    assert packed == struct.pack(f"<{len(flat)}Q", *flat)
    assert unpack_values(Tensor("x", "UINT64", (len(flat),), packed)) == flat


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("BOOL", 1), ("BOOL", "true"), ("BOOL", 0.0), ("BOOL", None), ("INT32", True), ("INT32", 1.0), ("INT32", "1"),
        ("INT64", None), ("UINT8", {}), ("UINT64", 1.5), ("UINT64", "1"), ("UINT64", True), ("FP32", "1.5"),
        ("FP32", True), ("FP32", None), ("FP64", {"a": 1}), ("FP64", "nan"), ("BYTES", 1), ("BYTES", None),
        ("BYTES", True), ("BYTES", {"b64": "AA=="}),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(datatype, value):
    good = CASES[datatype][0][0]
    for values, shape in (([value], (1,)), ([[value, value]], (2,)), (value, ()), ([good, [value]], (2,))):
        message = refusal_of(datatype, shape, values)
        assert message == f"the data of input 'x' has values that are not {datatype}"


@pytest.mark.parametrize("values", [2**63, 1.0, "1", None, {}, [1, "a"], [[None], True]])
def test_the_values_are_counted_before_their_kinds_are_looked_at(values):
    assert "but its shape [5] needs 5" in refusal_of("BOOL", (5,), values)


@pytest.mark.parametrize("datatype", CASES)
def test_only_the_number_of_values_counts_however_they_are_nested(datatype):
    (one, two, three), data = CASES[datatype]
    for values in ([[one], [two, three]], [one, [two], three], [[one, two], three], [[[one]], [[], [two], [three]]]):
        assert pack_values("x", datatype, (3,), values) == data
        assert pack_values("x", datatype, (1, 3), values) == data
    for values, count in (([one, [two]], 2), ([[], [one]], 1), ([[one, two], [three], one], 4)):
        message = refusal_of(datatype, (3,), values)
        assert message == f"input 'x' has {count} values, but its shape [3] needs 3"


@pytest.mark.parametrize("datatype", ["INT32", "FP32", "BYTES"])
def test_nesting_as_deep_as_a_parser_lets_through_is_no_fault(datatype):
    (one, *_), _ = CASES[datatype]
    nothing, single = [], [one]
    for _ in range(900):
        nothing, single = [nothing], [single]
    assert pack_values("x", datatype, (0,), nothing) == b""
    assert pack_values("x", datatype, (1,), single) == pack_values("x", datatype, (1,), one)


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_what_is_no_number_and_what_has_no_end_pass(datatype):
    packed = pack_values("x", datatype, (4,), json.loads("[NaN, Infinity, -Infinity, -0.0]"))
    nan, inf, negative, zero = unpack_values(Tensor("x", datatype, (4,), packed))
    assert math.isnan(nan)
    assert (inf, negative) == (math.inf, -math.inf)
    assert math.copysign(1, zero) == -1


@pytest.mark.parametrize("values", [[math.nan], [math.inf], [1, -math.inf]])
@pytest.mark.parametrize("datatype", ["INT32", "UINT8", "UINT64", "BOOL"])
def test_what_is_no_number_is_no_whole_number(datatype, values):
    assert refusal_of(datatype, (len(values),), values).endswith(f"has values that are not {datatype}")


def test_what_is_too_large_for_a_fraction_becomes_infinite_and_whole_numbers_become_fractions():
    assert pack_values("x", "FP32", (3,), [1e39, -1e39, 7]) == struct.pack("<3f", math.inf, -math.inf, 7.0)
    assert pack_values("x", "FP64", (2,), [2**63, 1]) == struct.pack("<2d", 2.0**63, 1.0)


def test_text_keeps_its_zero_bytes_and_even_half_characters():
    packed = pack_values("x", "BYTES", (3,), ["a\0b", json.loads(r'"\ud800"'), "😀"])
    elements = Tensor("x", "BYTES", (3,), packed).elements()
    assert elements == [b"a\0b", b"\xed\xa0\x80", "😀".encode()]
    assert unpack_values(Tensor("x", "BYTES", (1,), pack_values("x", "BYTES", (1,), ["a\0b"]))) == ["a\0b"]


@pytest.mark.parametrize("element", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc3"])
def test_bytes_that_are_no_text_must_be_asked_for_as_binary(element):
    tensor = Tensor("y", "BYTES", (1,), len(element).to_bytes(4, "little") + element)
    with pytest.raises(InvalidRequestError, match="output 'y' is not valid UTF-8"):
        unpack_values(tensor)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_passes_as_bytes_only(datatype):
    assert f"receiving {datatype} data via JSON is not supported" in refusal_of(datatype, (1,), [1.0])
    assert "for input x" in refusal_of(datatype, (0,), [])
    with pytest.raises(InvalidRequestError) as caught:
        unpack_values(Tensor("y", datatype, (1,), b"\0\0"))
    assert f"sending {datatype} data via JSON is not supported" in caught.value.message
    assert caught.value.message.endswith("binary data format for output y")


@pytest.mark.parametrize("datatype", ["fp32", "STRING", "", "FP8"])
def test_a_datatype_that_does_not_exist_is_refused(datatype):
    assert refusal_of(datatype, (1,), [1]) == "invalid datatype for input x"


@pytest.mark.parametrize("datatype", ["INT32", "FP32", "BOOL"])
def test_a_long_text_among_many_values_costs_no_more_than_it_sends(datatype):
    # 29 MB of JSON, of which NumPy would make more than an address space holds: nothing is really allocated here
    values = ["a" * 9_000_000] + ["b"] * 5_000_000
    assert refusal_of(datatype, (5_000_001,), values).endswith(f"has values that are not {datatype}")


@pytest.mark.parametrize(("datatype", "value"), [("FP32", 2**70), ("FP64", 10**30), ("FP64", -(2**64))])
def test_a_large_whole_number_is_a_fraction_too(datatype, value):
    assert pack_values("x", datatype, (1,), [value]) == pack_values("x", datatype, (1,), [float(value)])


@pytest.mark.parametrize(("datatype", "other"), [("INT32", 2), ("UINT64", 2**63), ("FP32", 1.5), ("UINT8", 0)])
def test_a_truth_value_among_numbers_is_refused_as_it_is_alone(datatype, other):
    assert refusal_of(datatype, (2,), [True, other]).endswith(f"has values that are not {datatype}")
