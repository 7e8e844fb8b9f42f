"""Tensor values between JSON and the protocol's bytes: each datatype, its limits, and what isn't a value of it."""

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import InvalidRequestError
from serve_app.router.kserve.values import pack_values, unpack_values
from serve_app.types.tensors import NUMPY_TYPES, Tensor

INTEGERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
LIMITS = {name: (int(np.iinfo(NUMPY_TYPES[name]).min), int(np.iinfo(NUMPY_TYPES[name]).max)) for name in INTEGERS}
VALUES = {name: st.integers(*limits) for name, limits in LIMITS.items()} | {
    "BOOL": st.booleans(),
    "FP32": st.floats(width=32),
    "FP64": st.floats(),
    "BYTES": st.text(st.characters(exclude_categories=["Cs"])),
}
EXAMPLES = {name: [low, 1, high] for name, (low, high) in LIMITS.items()} | {
    "BOOL": [True, False, True],
    "FP32": [-1.5, 0.0, 3e38],
    "FP64": [-1.5, 5e-324, 1.7e308],
    "BYTES": ["a", "", "grün\n"],
}


def refusal_of(datatype, shape, values):
    with pytest.raises(InvalidRequestError) as caught:
        pack_values("x", datatype, shape, values)
    return caught.value.message


def layout(datatype, values):
    """The bytes as the protocol defines them."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values)
    kinds = {"BOOL": "?", "FP32": "f", "FP64": "d"} | dict(zip(INTEGERS, "BHIQbhiq", strict=True))
    return struct.pack(f"<{len(values)}{kinds[datatype]}", *values)


@given(st.data())
def test_values_of_every_datatype_go_from_json_to_bytes_and_back(data):
    for datatype, kind in VALUES.items():
        values = json.loads(json.dumps(data.draw(st.lists(kind, max_size=6), datatype)))
        packed = pack_values("x", datatype, (len(values),), values)
        assert packed == layout(datatype, values)
        back = unpack_values(Tensor("x", datatype, (len(values),), packed))
        assert pack_values("x", datatype, (len(values),), back) == packed
        assert list(map(type, back)) == [float if datatype.startswith("FP") else type(value) for value in values]


def test_values_may_be_nested_in_any_way_if_their_number_fits_the_shape():
    for datatype, (one, two, three) in EXAMPLES.items():
        data = layout(datatype, [one, two, three])
        nestings = ([one, two, three], [[one], [two, three]], [one, [two], three], [[[one]], [[], [two], [three]]])
        for values in nestings:
            for shape in ((3,), (1, 3)):
                assert pack_values("x", datatype, shape, values) == data, values
        for shape in ((), (1,), (1, 1)):
            assert pack_values("x", datatype, shape, one) == layout(datatype, [one])
        for values in ([], [[], []]):
            assert pack_values("x", datatype, (2, 0), values) == b""
        assert unpack_values(Tensor("x", datatype, (2, 0), b"")) == []
        nothing, single = [], [one]
        for _ in range(900):  # as deep as a parser lets through
            nothing, single = [nothing], [single]
        assert pack_values("x", datatype, (0,), nothing) == b""
        assert pack_values("x", datatype, (1,), single) == layout(datatype, [one])


def test_another_number_of_values_than_the_shape_needs_is_refused():
    for datatype, (one, two, three) in EXAMPLES.items():
        cases = [((2,), [one, two, three], 3), ((2, 2), [one, two, three], 3), ((1,), [], 0), ((0,), [one], 1),
                 ((), [one, two], 2), ((3,), [one, [two]], 2), ((3,), [[], [one]], 1),
                 ((3,), [[one, two], [three], one], 4)]  # fmt: skip
        for shape, values, count in cases:
            expected = f"input 'x' has {count} values, but its shape {list(shape)} needs {math.prod(shape)}"
            assert refusal_of(datatype, shape, values) == expected
    for values in (2**63, 1.0, "1", None, {}, [1, "a"], [[None], True]):  # counted before their types are checked
        assert "but its shape [5] needs 5" in refusal_of("BOOL", (5,), values)


@given(st.sampled_from(INTEGERS), st.integers(-(10**400), 10**400), st.data())
def test_an_integer_out_of_range_is_refused_with_the_range_of_the_values(datatype, beyond, data):
    low, high = LIMITS[datatype]
    beyond += high + 1 if beyond >= 0 else low
    values = sorted([data.draw(st.integers(low, high)), beyond])
    message = refusal_of(datatype, (2,), values)
    assert message == f"the data of input 'x' ranges from {values[0]} to {values[1]}, out of range for {datatype}"
    if datatype == "UINT64":
        wide = [-1, 2**63]  # no type of NumPy holds both
        assert refusal_of(datatype, (2,), wide).endswith(
            "ranges from -1 to 9223372036854775808, out of range for UINT64"
        )


def test_floats_take_integers_and_what_json_calls_numbers():
    assert pack_values("x", "FP32", (3,), [1e39, -1e39, 7]) == struct.pack("<3f", math.inf, -math.inf, 7.0)
    for datatype in ("FP32", "FP64"):
        for value in (10**400, -(10**400)):
            message = refusal_of(datatype, (2,), [0.5, value])
            assert message == f"the data of input 'x' has an integer out of range for {datatype}"
        for value in (2**63, 2**70, 10**30, -(2**64)):
            assert pack_values("x", datatype, (1,), [value]) == pack_values("x", datatype, (1,), [float(value)])
        packed = pack_values("x", datatype, (4,), json.loads("[NaN, Infinity, -Infinity, -0.0]"))
        assert list(map(str, unpack_values(Tensor("x", datatype, (4,), packed)))) == ["nan", "inf", "-inf", "-0.0"]


def test_a_value_of_another_type_is_refused_wherever_it_stands():
    wrong = {
        "BOOL": [1, "true", 0.0, None, math.nan], "INT32": [True, 1.0, "1", math.nan, math.inf],
        "INT64": [None], "UINT8": [{}, True, -math.inf], "UINT64": [1.5, "1", True, math.nan],
        "FP32": ["1.5", True, None], "FP64": [{"a": 1}, "nan"], "BYTES": [1, None, True, {"b64": "AA=="}],
    }  # fmt: skip
    for datatype, values in wrong.items():
        good = EXAMPLES[datatype][0]
        for value in values:
            for given_values, shape in (
                ([value], (1,)),
                ([[value, value]], (2,)),
                (value, ()),
                ([good, [value]], (2,)),
            ):
                message = refusal_of(datatype, shape, given_values)
                assert message == f"the data of input 'x' has values that are not {datatype}", value


def test_a_long_text_among_many_numbers_costs_no_more_memory_than_it_sends():
    # NumPy would make more of it than an address space holds
    values = ["a" * 9_000_000] + ["b"] * 5_000_000
    for datatype in ("INT32", "FP32", "BOOL"):
        assert refusal_of(datatype, (5_000_001,), values).endswith(f"has values that are not {datatype}")


def test_text_keeps_zero_bytes_and_half_surrogate_pairs_and_other_bytes_are_only_sent_as_binary():
    packed = pack_values("x", "BYTES", (3,), ["a\0b", json.loads(r'"\ud800"'), "😀"])
    assert Tensor("x", "BYTES", (3,), packed).elements() == [b"a\0b", b"\xed\xa0\x80", "😀".encode()]
    for element in (b"\xff\xfe", b"\xed\xa0\x80", b"\xc3"):
        tensor = Tensor("y", "BYTES", (1,), len(element).to_bytes(4, "little") + element)
        with pytest.raises(InvalidRequestError) as caught:
            unpack_values(tensor)
        assert caught.value.message == "output 'y' is not valid UTF-8: request it as binary data"


def test_half_precision_passes_as_binary_only_and_an_unknown_datatype_not_at_all():
    for datatype in ("FP16", "BF16"):
        for shape, values in (((1,), [1.0]), ((0,), [])):
            assert refusal_of(datatype, shape, values) == (
                f"receiving {datatype} data via JSON is not supported. Please use the binary data format for input x"
            )
        with pytest.raises(InvalidRequestError) as caught:
            unpack_values(Tensor("y", datatype, (1,), b"\0\0"))
        assert caught.value.message == (
            f"sending {datatype} data via JSON is not supported. Please use the binary data format for output y"
        )
    for datatype in ("fp32", "STRING", "", "FP8"):
        assert refusal_of(datatype, (1,), [1]) == "invalid datatype for input x"
