"""JSON of requests: read whole, or refused with the reason before it becomes objects."""

import json
import tracemalloc

import pytest

from serve_app.errors import InvalidRequestError, PayloadTooLargeError
from serve_app.router.parsing import MAX_TENSOR_VALUES, parse_object


def test_a_json_object_is_read_from_bytes_and_from_a_view_of_them():
    text = json.dumps({"a": ["ü", 1]}).encode()
    assert parse_object(text) == parse_object(memoryview(text + b"tail")[: len(text)]) == {"a": ["ü", 1]}


def test_a_body_that_is_no_json_object_is_refused_with_the_reason():
    cases = {
        b"": "Expecting value", b"{": "Expecting property name", b'{"a": 1} x': "Extra data",
        b"\xff\xfe\xfd": "can't decode byte", b"[]": "it is not an object", b"null": "it is not an object",
        b'"demo-llm"': "it is not an object", b"[" * 200_000: "it is nested too deeply",
        b'{"a":' * 200_000: "it is nested too deeply", b'{"a": ' + b"9" * 5000 + b"}": "a number has too many digits",
    }  # fmt: skip
    for text, reason in cases.items():
        with pytest.raises(InvalidRequestError) as caught:
            parse_object(memoryview(text))
        assert caught.value.message.startswith("failed to parse the request JSON buffer: "), text[:20]
        assert reason in caught.value.message, text[:20]


def test_json_of_too_many_values_is_refused_before_it_takes_memory():
    many = {
        "lists": b'{"a": [' + b"[]," * 300_000 + b"[]]}",
        "objects": b'{"a": [' + b"{}," * 300_000 + b"{}]}",
        "numbers": b'{"a": [' + b"1," * 300_000 + b"1]}",
        "depth": b'{"a": ' + b"[" * 300_000 + b"]" * 300_000 + b"}",
        "wide and deep": b'{"a": [' + b"[1,1]," * 4_000_000 + b"1]}",
    }
    with pytest.raises(PayloadTooLargeError):
        parse_object(b"[" * 500_000, MAX_TENSOR_VALUES)
    tracemalloc.start()
    try:
        for name, text in many.items():
            with pytest.raises(PayloadTooLargeError, match="more than 250000 values, or more than 250000 lists"):
                parse_object(text)
            assert tracemalloc.get_traced_memory()[1] < sum(map(len, many.values())) + (16 << 20), name
    finally:
        tracemalloc.stop()


def test_a_document_that_is_too_deep_for_a_replica_is_refused():
    def of_depth(depth):
        return b'{"a": ' + b"[" * (depth - 1) + b"1" + b"]" * (depth - 1) + b"}"

    assert parse_object(of_depth(64))
    for depth in (65, 500, 900):
        with pytest.raises(InvalidRequestError, match="nested too deeply"):
            parse_object(of_depth(depth))


def test_a_tensor_in_json_may_have_more_values_than_a_document():
    values = [0.5] * 1_228_800  # a picture of 640 by 640
    text = json.dumps({"data": values}).encode()
    assert parse_object(text, MAX_TENSOR_VALUES)["data"] == values
    with pytest.raises(PayloadTooLargeError):
        parse_object(text)
