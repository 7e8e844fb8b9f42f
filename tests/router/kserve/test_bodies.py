"""HTTP bodies of the v2 protocol: where their JSON ends, how answers are laid out, and bodies without any JSON."""

import gzip
import json
import zlib

import numpy as np
import pytest
from starlette.requests import Request

from serve_app.errors import InvalidRequestError
from serve_app.router.kserve.bodies import HEADER_LENGTH, answer_body, raw_request, respond, split_body, write_json
from serve_app.router.requests import LARGE_BYTES
from serve_app.types.tensors import ELEMENT_BYTES, InferAnswer, Tensor

NUMBERS = Tensor("n", "INT32", (1, 2), np.array([1, 2], np.int32).tobytes())
TEXTS = Tensor("t", "BYTES", (2,), b"\1\0\0\0a\2\0\0\0\xc3\xbc")
HALVES = Tensor("h", "FP16", (1,), b"\0\x3c")
INFLATE = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}


def request(**headers):
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw})


def split(body, length=None):
    headers = {} if length is None else {"inference_header_content_length": length}
    return tuple(map(bytes, split_body(request(**headers), body)))


def test_the_header_says_where_the_json_ends_and_without_it_all_of_the_body_is_json():
    assert split(b'{"a":1}') == (b'{"a":1}', b"")
    assert split(b"", "0") == (b"", b"")
    for length, parts in {"0": (b"", b"abcd"), "2": (b"ab", b"cd"), "4": (b"abcd", b""), "004": (b"abcd", b"")}.items():
        assert split(b"abcd", length) == parts, length


def test_a_length_that_does_not_fit_the_body_and_an_empty_body_are_refused():
    for length in ("5", "-1", "", " ", "1.0", "+1", "0x1", "²", "1e1", "9" * 18, "9" * 5000, "a" * 5000):
        with pytest.raises(InvalidRequestError) as caught:
            split(b"abcd", length)
        assert caught.value.message == f"inference header size should be in range (0, 4), got: {length[:40]}"
    with pytest.raises(InvalidRequestError, match="the body is empty"):
        split(b"")


def test_an_answer_in_json_has_an_id_and_parameters_only_if_they_are_set():
    body, length = answer_body(InferAnswer("m", "2", "id-1", (NUMBERS, TEXTS), {"p": 1, "q": "r"}), {"": False})
    expected = (
        '{"id":"id-1","model_name":"m","model_version":"2","parameters":{"p":1,"q":"r"},"outputs":['
        '{"name":"n","datatype":"INT32","shape":[1,2],"data":[1,2]},'
        '{"name":"t","datatype":"BYTES","shape":[2],"data":["a","ü"]}]}'
    )
    assert (body.decode(), length) == (expected, None)
    body, _ = answer_body(InferAnswer("m", "1"), {})
    assert json.loads(body) == {"model_name": "m", "model_version": "1", "outputs": []}


def test_binary_outputs_follow_the_json_in_their_order():
    for as_binary, binary in (
        ({"": True}, "nth"), ({"": False, "n": True, "h": True}, "nh"), ({"": True, "t": False}, "nh"),
        ({"h": True}, "h"), ({"": True, "n": False, "t": False}, "h"),
    ):  # fmt: skip
        body, length = answer_body(InferAnswer("m", "1", outputs=(NUMBERS, TEXTS, HALVES)), as_binary)
        tail = body[length:]
        for row, tensor in zip(json.loads(body[:length])["outputs"], (NUMBERS, TEXTS, HALVES), strict=True):
            assert ("data" not in row) == (tensor.name in binary) == ("parameters" in row), as_binary
            if tensor.name in binary:
                size = row["parameters"]["binary_data_size"]
                assert tail[:size] == tensor.data
                tail = tail[size:]
        assert tail == b""
    with pytest.raises(InvalidRequestError, match="sending FP16 data via JSON is not supported"):
        answer_body(InferAnswer("m", "1", outputs=(HALVES,)), {"": False})


def test_json_is_compact_utf_8_even_with_half_surrogate_pairs():
    assert write_json({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'.encode()
    assert write_json({"a": "\ud800"}) == b'{"a":"?"}'


async def test_the_answer_has_the_first_compression_that_the_caller_accepts():
    for accepted, expected in {
        "gzip": "gzip", "deflate": "deflate", "gzip, deflate": "gzip", "deflate, gzip": "deflate",
        "br, GZIP;q=0.5": "gzip", "gzip;q=0, deflate": "deflate", "gzip; q=0.000": None, "gzip ; q=0.0": None,
        "gzip;q=0.": None, "gzip;q=0;x=1": None, "identity": None, "": None, "*": None, "br": None, "gzipped": None,
        ",;,": None,
    }.items():  # fmt: skip
        for plain, length in ((b"{}data" * 100, 2), (b"{}", None)):
            answer = await respond(request(accept_encoding=accepted), plain, length)
            assert answer.headers.get("content-encoding") == expected, accepted
            assert INFLATE[expected](answer.body) == plain
            assert int(answer.headers["content-length"]) == len(answer.body)
            media = "application/octet-stream" if length else "application/json"
            assert answer.headers["content-type"] == media
            # counted before compression
            assert answer.headers.get(HEADER_LENGTH) == ("2" if length else None)
    large = bytes(LARGE_BYTES)
    for name in ("gzip", "deflate"):
        assert INFLATE[name]((await respond(request(accept_encoding=name), large, None)).body) == large


def raw(body, shape, datatype="FP32", batched=False):
    metadata = {"inputs": [{"name": "x", "datatype": datatype, "shape": shape}]}
    asked = raw_request("m", 4, memoryview(body), metadata, batched, 99.0)
    assert (asked.model, asked.version, asked.deadline, asked.outputs) == ("m", 4, 99.0, ())
    (tensor,) = asked.inputs
    assert (tensor.name, tensor.datatype) == ("x", datatype)
    return tensor


def test_the_length_of_a_raw_body_sets_the_one_variable_dimension():
    for size, shape, batched, expected in (
        (8, [2], False, (2,)), (8, ["2"], False, (2,)), (8, [-1], False, (2,)), (24, [3, -1], False, (3, 2)),
        (12, [-1, 3], True, (1, 3)), (24, [-1, 3, -1], True, (1, 3, 2)),
        (24, [-1, 3], False, (2, 3)), (4, [], False, ()), (0, [-1], False, (0,)), (0, [3, -1], False, (3, 0)),
    ):  # fmt: skip
        body = bytes(range(size))
        tensor = raw(body, shape, batched=batched)
        assert (tensor.shape, bytes(tensor.data)) == (expected, body), (size, shape)
        assert isinstance(tensor.data, memoryview), "the body must not be copied"
    for datatype, width in ELEMENT_BYTES.items():
        if datatype != "BYTES":
            assert raw(bytes(16), [-1], datatype).shape == (16 // width,), datatype


def test_a_raw_body_of_text_is_one_element():
    for body in (b"", b"text", "grün\0".encode()):
        for shape, batched, expected in (
            ([1], False, (1,)), ([-1], False, (1,)), ([-1, -1], True, (1, 1)), ([], False, ())
        ):  # fmt: skip
            tensor = raw(body, shape, "BYTES", batched)
            assert (tensor.shape, tensor.elements()) == (expected, [body]), shape


def test_a_raw_body_that_does_not_fit_the_input_is_refused():
    too_open = "input 'x' has more than one variable dimension: send its shape in a JSON header"
    for size, shape, batched in (
        (7, [2], False), (9, [2], False), (0, [2], False), (16, [2], False), (10, [-1], False), (8, [3, -1], False),
        (24, [-1, 3], True), (4, [0, -1], False), (4, [0], False), (0, [], False),
        (24, [-1, -1], False), (24, [-1, -1, -1], True), (24, [3, -1, -1], False),
    ):  # fmt: skip
        with pytest.raises(InvalidRequestError) as caught:
            raw(bytes(size), shape, batched=batched)
        dims = [1, *shape[1:]] if batched else shape
        misfit = f"the body has {size} bytes, which doesn't fit input 'x' of shape {dims}"
        assert caught.value.message == (too_open if dims.count(-1) > 1 else misfit)
    for count in (0, 2):
        rows = [{"name": f"x{index}", "datatype": "FP32", "shape": [1]} for index in range(count)]
        with pytest.raises(InvalidRequestError) as caught:
            raw_request("m", -1, memoryview(bytes(4)), {"inputs": rows}, False, 1.0)
        assert caught.value.message == f"a raw binary request needs a model with exactly one input, 'm' has {count}"
