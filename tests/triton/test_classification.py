"""Highest values as `value:index:label`, in the words that Triton writes them."""

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


def test_the_highest_values_come_first_with_their_places():
    assert classified([0.25, 4, -1, 3], 3) == ((3,), ["4.000000:1", "3.000000:3", "0.250000:0"])


def test_every_member_of_a_batch_has_a_row_of_its_own():
    expected = ["3.000000:1", "2.000000:2", "6.000000:2", "5.000000:0"]
    assert classified([[1, 3, 2], [5, 4, 6]], 2, batched=True) == ((2, 2), expected)


def test_without_a_batch_all_values_are_one_row():
    assert classified([[1, 3, 2], [5, 4, 6]], 2) == ((2,), ["6.000000:5", "5.000000:3"])


def test_further_dimensions_of_a_batch_are_one_row_of_each_member():
    shape, texts = classified([[[1, 2], [3, 9]], [[8, 5], [7, 6]]], 1, batched=True)
    assert (shape, texts) == ((2, 1), ["9.000000:3", "8.000000:0"])


@pytest.mark.parametrize("batched", [True, False])
def test_a_single_number_is_its_own_highest(batched):
    assert classified(2.5, 3, ["only"], batched) == ((1,), ["2.500000:0:only"])


def test_among_equal_values_the_first_comes_first():
    assert classified([1, 7, 7, 0, 7], 3) == ((3,), ["7.000000:1", "7.000000:2", "7.000000:4"])


@pytest.mark.parametrize(("batched", "shape"), [(False, (6,)), (True, (2, 3))])
def test_more_classes_than_values_give_every_value(batched, shape):
    found, texts = classified([[1, 3, 2], [5, 4, 6]], 100, batched=batched)
    assert found == shape
    assert len(texts) == len(set(texts)) == 6


def test_labels_stand_behind_the_places_they_belong_to():
    assert classified([1, 2], 2, ["cat", "dog"]) == ((2,), ["2.000000:1:dog", "1.000000:0:cat"])


def test_values_beyond_the_last_label_have_none():
    assert classified([1, 2, 3], 3, ["cat"]) == ((3,), ["3.000000:2", "2.000000:1", "1.000000:0:cat"])


def test_a_label_may_hold_colons_and_letters_of_any_script():
    assert classified([1, 2], 2, ["a:b", "кошка"]) == ((2,), ["2.000000:1:кошка", "1.000000:0:a:b"])


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_are_written_without_a_fraction(datatype):
    kind = {"datatype": datatype, "numpy_type": datatype.lower()}
    assert classified([1, 3, 2], 2, **kind) == ((2,), ["3:1", "2:2"])


@pytest.mark.parametrize("datatype", ["INT8", "INT16", "INT32", "INT64"])
def test_negative_integers_are_below_all_others_down_to_the_least(datatype):
    least = np.iinfo(datatype.lower()).min
    assert classified([least, -1, 0], 3, datatype=datatype, numpy_type=datatype.lower())[1] == [
        "0:2",
        "-1:1",
        f"{least}:0",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1234567, "0.123457"),
        (1e-9, "0.000000"),
        (-2.5, "-2.500000"),
        (16777216.0, "16777216.000000"),
        (np.inf, "inf"),
        (-np.inf, "-inf"),
    ],
)
@pytest.mark.parametrize(("datatype", "numpy_type"), [("FP32", np.float32), ("FP64", np.float64)])
def test_floats_are_written_with_six_digits_after_the_point(value, text, datatype, numpy_type):
    assert classified([value], 1, datatype=datatype, numpy_type=numpy_type)[1] == [f"{text}:0"]


def test_values_that_are_no_numbers_come_last():
    assert classified([np.nan, 1, np.inf, -np.inf], 4)[1] == ["inf:2", "1.000000:1", "-inf:3", "nan:0"]


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", b"\1\0"),
        ("FP16", b"\0\0\0\0"),
        ("BF16", b"\0\0\0\0"),
        ("BYTES", pack_elements([b"a", b"b"])),
    ],
)
def test_types_that_triton_can_not_classify_are_refused_by_name(datatype, data):
    with pytest.raises(InvalidRequestError, match=f"class result not available for output .* {datatype}") as caught:
        classify(Tensor("scores", datatype, (2,), data), 1, (), False)
    assert "'scores'" in caught.value.message


def test_nothing_has_no_highest_value():
    assert classified(np.zeros((0,)), 3) == ((0,), [])


def test_members_of_a_batch_without_values_have_empty_rows():
    assert classified(np.zeros((2, 0)), 3, batched=True) == ((2, 0), [])


def test_an_empty_batch_has_no_rows():
    assert classified(np.zeros((0, 3)), 3, batched=True) == ((0, 3), [])


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_large_integers_that_differ_in_their_last_bit_are_told_apart(datatype):
    found = classified([2**53, 2**53 + 1], 1, datatype=datatype, numpy_type=datatype.lower())
    assert found == ((1,), [f"{2**53 + 1}:1"])
