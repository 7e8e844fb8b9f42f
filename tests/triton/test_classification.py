"""The highest values of an output as `value:index:label`, as Triton writes them."""

import numpy as np
import pytest

from serve_app.errors import InvalidRequestError
from serve_app.triton.classification import classify
from serve_app.types.tensors import Tensor, pack_elements

INTEGERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")


def tensor(values, datatype="FP32", numpy_type=np.float32):
    array = np.array(values, numpy_type)
    return Tensor("scores", datatype, array.shape, array.tobytes())


def classified(values, count, labels=(), batched=False, **kind):
    answer = classify(tensor(values, **kind), count, labels, batched)
    assert (answer.name, answer.datatype) == ("scores", "BYTES")
    return answer.shape, [element.decode() for element in answer.elements()]


def test_the_highest_values_come_first_with_their_indexes_and_labels():
    square = [[1, 3, 2], [5, 4, 6]]
    for values, count, options, shape, texts in (
        ([0.25, 4, -1, 3], 3, {}, (3,), ["4.000000:1", "3.000000:3", "0.250000:0"]),
        ([1, 7, 7, 0, 7], 3, {}, (3,), ["7.000000:1", "7.000000:2", "7.000000:4"]),  # of equal values the first
        ([np.nan, 1, np.inf, -np.inf], 4, {}, (4,), ["inf:2", "1.000000:1", "-inf:3", "nan:0"]),
        (square, 2, {}, (2,), ["6.000000:5", "5.000000:3"]),
        (square, 2, {"batched": True}, (2, 2), ["3.000000:1", "2.000000:2", "6.000000:2", "5.000000:0"]),
        ([[[1, 2], [3, 9]], [[8, 5], [7, 6]]], 1, {"batched": True}, (2, 1), ["9.000000:3", "8.000000:0"]),
        ([1, 2], 100, {}, (2,), ["2.000000:1", "1.000000:0"]),
        ([[1, 2], [4, 3]], 100, {"batched": True}, (2, 2), ["2.000000:1", "1.000000:0", "4.000000:0", "3.000000:1"]),
        (2.5, 3, {"labels": ["only"]}, (1,), ["2.500000:0:only"]),
        (2.5, 3, {"labels": ["only"], "batched": True}, (1,), ["2.500000:0:only"]),
        ([1, 2, 3], 3, {"labels": ["cat"]}, (3,), ["3.000000:2", "2.000000:1", "1.000000:0:cat"]),
        ([1, 2], 2, {"labels": ["a:b", "кошка"]}, (2,), ["2.000000:1:кошка", "1.000000:0:a:b"]),
        (np.zeros((0,)), 3, {}, (0,), []),
        (np.zeros((2, 0)), 3, {"batched": True}, (2, 0), []),
        (np.zeros((0, 3)), 3, {"batched": True}, (0, 3), []),
    ):
        assert classified(values, count, **options) == (shape, texts)


def test_integers_are_written_without_a_fraction_and_compared_exactly():
    for datatype in INTEGERS:
        kind = {"datatype": datatype, "numpy_type": datatype.lower()}
        limits = np.iinfo(datatype.lower())
        assert classified([1, 3, 2], 2, **kind) == ((2,), ["3:1", "2:2"])
        assert classified([limits.max - 1, limits.max], 1, **kind) == ((1,), [f"{limits.max}:1"])
        if limits.min < 0:
            assert classified([limits.min, -1, 0], 3, **kind)[1] == ["0:2", "-1:1", f"{limits.min}:0"]
        if limits.bits == 64:
            assert classified([2**53, 2**53 + 1], 1, **kind)[1] == [f"{2**53 + 1}:1"]


def test_floats_are_written_with_six_digits_after_the_point():
    for value, text in ((0.1234567, "0.123457"), (1e-9, "0.000000"), (-2.5, "-2.500000"),
                        (16777216.0, "16777216.000000"), (np.inf, "inf"), (-np.inf, "-inf")):  # fmt: skip
        for datatype, numpy_type in (("FP32", np.float32), ("FP64", np.float64)):
            assert classified([value], 1, datatype=datatype, numpy_type=numpy_type)[1] == [f"{text}:0"]


def test_datatypes_that_triton_does_not_classify_are_refused_by_name():
    for datatype, data in (("BOOL", b"\1\0"), ("FP16", bytes(4)), ("BF16", bytes(4)),
                           ("BYTES", pack_elements([b"a", b"b"]))):  # fmt: skip
        with pytest.raises(InvalidRequestError, match=f"class result not available for output .* {datatype}") as caught:
            classify(Tensor("scores", datatype, (2,), data), 1, (), False)
        assert "'scores'" in caught.value.message
