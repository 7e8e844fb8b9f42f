"""HTTP bodies: what is inside when they are compressed, where their JSON ends, and how answers are laid out."""

import gzip
import json
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from starlette.requests import Request

from serve_app.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedError
from serve_app.router.kserve.bodies import (
    HEADER_LENGTH,
    answer_body,
    respond,
    split_body,
    write_json,
)  # fmt: skip
from serve_app.router.requests import LARGE_BYTES, read_body
from serve_app.types.tensors import InferAnswer, Tensor

LIMIT = 1000
COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress}
NUMBERS = Tensor("n", "INT32", (1, 2), np.array([1, 2], np.int32).tobytes())
TEXTS = Tensor("t", "BYTES", (2,), b"\1\0\0\0a\2\0\0\0\xc3\xbc")
HALVES = Tensor("h", "FP16", (1,), b"\0\x3c")


def request(body=b"", **headers):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    raw = [(name.replace("_", "-").lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


async def refusal_of(body, error, **headers):
    with pytest.raises(error) as caught:
        await read_body(request(body, **headers), LIMIT)
    return caught.value.message


def random_bytes(size):
    return np.random.default_rng(1).bytes(size)


@pytest.mark.parametrize("headers", [{}, {"content_encoding": "identity"}, {"content_encoding": ""}])
async def test_a_body_that_is_not_compressed_stays_as_it_is(headers):
    assert await read_body(request(b"abc", **headers), LIMIT) == b"abc"


@pytest.mark.parametrize("name", ["gzip", "deflate", " GZip ", "DEFLATE"])
@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
async def test_a_compressed_body_is_what_it_was_up_to_the_limit(name, size):
    plain = random_bytes(size)
    assert await read_body(request(COMPRESS[name.strip().lower()](plain), content_encoding=name), LIMIT) == plain


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("size", [LIMIT + 1, 10 * LIMIT])
async def test_a_body_over_the_limit_when_it_is_inflated_is_refused(name, size):
    message = await refusal_of(COMPRESS[name](bytes(size)), PayloadTooLargeError, content_encoding=name)
    assert message == f"the inflated body is larger than the limit of {LIMIT} bytes"


@pytest.mark.parametrize("name", COMPRESS)
async def test_a_bomb_is_never_inflated(name):
    bomb = COMPRESS[name](bytes(50_000_000))
    tracemalloc.start()
    try:
        await refusal_of(bomb, PayloadTooLargeError, content_encoding=name)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("kept", [0, 1, 10, -9, -1])
async def test_a_body_that_was_cut_is_refused(name, kept):
    body = COMPRESS[name](random_bytes(500))[:kept]
    assert await refusal_of(body, InvalidRequestError, content_encoding=name) == f"the {name} body is incomplete"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gzip", b"{}"), ("deflate", b"{}"), ("gzip", zlib.compress(b"{}")), ("deflate", gzip.compress(b"{}", mtime=0)),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-8] + bytes(8)), ("deflate", zlib.compress(b"{}")[:-4] + bytes(4)),
    ],
)  # fmt: skip
async def test_what_is_not_compressed_as_it_says_is_refused(name, body):
    assert await refusal_of(body, InvalidRequestError, content_encoding=name) == f"the body is not valid {name} data"


@pytest.mark.parametrize("name", ["br", "zstd", "gzip, deflate", "x-gzip", "gz\xef"])
async def test_an_encoding_that_is_not_known_is_named(name):
    message = await refusal_of(b"", UnsupportedError, content_encoding=name)
    assert message == f"Unsupported compression type '{name}'; supported: gzip, deflate"


def test_without_a_length_all_of_it_is_json():
    head, tail = split_body(request(), b'{"a":1}')
    assert (bytes(head), bytes(tail)) == (b'{"a":1}', b"")


@pytest.mark.parametrize(
    ("length", "head", "tail"), [("0", b"", b"abcd"), ("2", b"ab", b"cd"), ("4", b"abcd", b""), ("004", b"abcd", b"")]
)
def test_the_length_says_where_the_json_ends(length, head, tail):
    found = split_body(request(inference_header_content_length=length), b"abcd")
    assert tuple(map(bytes, found)) == (head, tail)


@pytest.mark.parametrize(
    "length", ["5", "-1", "", " ", "1.0", "+1", "0x1", "²", "1e1", "9" * 18, "9" * 5000, "a" * 5000]
)
def test_a_length_that_makes_no_sense_is_refused(length):
    with pytest.raises(InvalidRequestError) as caught:
        split_body(request(inference_header_content_length=length), b"abcd")
    expected = "inference header size should be in range (0, 4), got: " + length[:40]
    assert caught.value.message == expected


def test_an_empty_body_is_refused_unless_it_says_that_it_has_no_json():
    with pytest.raises(InvalidRequestError, match="the body is empty"):
        split_body(request(), b"")
    assert tuple(map(bytes, split_body(request(inference_header_content_length="0"), b""))) == (b"", b"")


def test_an_answer_in_json_alone():
    body, length = answer_body(InferAnswer("m", "2", "id-1", (NUMBERS, TEXTS), {"p": 1, "q": "r"}), {"": False})
    assert length is None
    assert (
        body
        == (
            '{"id":"id-1","model_name":"m","model_version":"2","parameters":{"p":1,"q":"r"},"outputs":['
            '{"name":"n","datatype":"INT32","shape":[1,2],"data":[1,2]},'
            '{"name":"t","datatype":"BYTES","shape":[2],"data":["a","ü"]}]}'
        ).encode()
    )


def test_an_answer_has_no_id_and_no_parameters_where_there_are_none():
    body, _ = answer_body(InferAnswer("m", "1"), {})
    assert json.loads(body) == {"model_name": "m", "model_version": "1", "outputs": []}


@pytest.mark.parametrize(
    ("as_binary", "binary"),
    [
        ({"": True}, "nth"), ({"": False, "n": True, "h": True}, "nh"), ({"": True, "t": False}, "nh"),
        ({"h": True}, "h"), ({"": True, "n": False, "t": False}, "h"),
    ],
)  # fmt: skip
def test_binary_outputs_follow_the_json_in_their_order(as_binary, binary):
    body, length = answer_body(InferAnswer("m", "1", outputs=(NUMBERS, TEXTS, HALVES)), as_binary)
    tail = body[length:]
    for row, tensor in zip(json.loads(body[:length])["outputs"], (NUMBERS, TEXTS, HALVES), strict=True):
        assert ("data" not in row) == (tensor.name in binary) == ("parameters" in row)
        if tensor.name in binary:
            size = row["parameters"]["binary_data_size"]
            assert tail[:size] == tensor.data
            tail = tail[size:]
    assert tail == b""


def test_half_precision_that_is_not_asked_for_as_binary_is_refused():
    with pytest.raises(InvalidRequestError, match="sending FP16 data via JSON is not supported"):
        answer_body(InferAnswer("m", "1", outputs=(HALVES,)), {"": False})


def test_json_is_compact_and_says_even_half_characters():
    assert write_json({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'.encode()
    assert write_json({"a": "\ud800"}) == b'{"a":"?"}'


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate", "gzip"), ("deflate, gzip", "deflate"),
        ("br, GZIP;q=0.5", "gzip"), ("gzip;q=0, deflate", "deflate"), ("gzip; q=0.000", None), ("gzip ; q=0.0", None),
        ("identity", None), ("", None), ("*", None), ("br", None), ("gzipped", None), (",;,", None),
    ],
)  # fmt: skip
async def test_the_answer_is_compressed_the_way_that_was_named_first(accepted, expected):
    answer = await respond(request(accept_encoding=accepted), b"body" * 100, None)
    assert answer.headers.get("content-encoding") == expected
    inflate = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[expected]
    assert inflate(answer.body) == b"body" * 100
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("headers", [{}, {"accept_encoding": "gzip"}])
async def test_the_length_of_the_json_part_counts_before_compression(headers):
    answer = await respond(request(**headers), b"{}data", 2)
    assert answer.headers[HEADER_LENGTH] == "2"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert HEADER_LENGTH not in (await respond(request(**headers), b"{}", None)).headers


@pytest.mark.parametrize("name", COMPRESS)
async def test_large_bodies_are_what_they_were_too(name):
    plain = random_bytes(2 * LARGE_BYTES)
    answer = await respond(request(accept_encoding=name), plain, None)
    assert answer.headers["content-encoding"] == name
    assert await read_body(request(answer.body, content_encoding=name), len(plain)) == plain


@pytest.mark.parametrize("parts", [[b"abc", b"def"], [b"", b"a", b""], [bytes(LIMIT - 1), b"a"]])
async def test_every_member_of_a_gzip_body_counts(parts):
    body = b"".join(map(gzip.compress, parts))  # members of one gzip file, as RFC 1952 has them
    assert await read_body(request(body, content_encoding="gzip"), LIMIT) == b"".join(parts)


async def test_the_limit_holds_for_all_members_together():
    body = gzip.compress(bytes(LIMIT)) + gzip.compress(b"a")
    await refusal_of(body, PayloadTooLargeError, content_encoding="gzip")


@pytest.mark.parametrize(
    ("name", "tail", "message"),
    [
        ("gzip", b"garbage", "the body is not valid gzip data"), ("gzip", b"\0", "the gzip body is incomplete"),
        ("gzip", gzip.compress(b"def", mtime=0)[:-1], "the gzip body is incomplete"),
        ("gzip", gzip.compress(b"def", mtime=0)[:5], "the gzip body is incomplete"),
        ("deflate", b"garbage", "7 bytes follow the end of the deflate body"),
        ("deflate", zlib.compress(b""), "8 bytes follow the end of the deflate body"),
    ],
)  # fmt: skip
async def test_what_follows_a_compressed_body_and_is_no_member_of_it_is_refused(name, tail, message):
    body = COMPRESS[name](b"abc") + tail
    assert await refusal_of(body, InvalidRequestError, content_encoding=name) == message


async def inflated_for(members, monkeypatch):
    """How many bytes are handed to zlib for a body of so many members with nothing in them."""
    fed, make = 0, zlib.decompressobj

    class Inflater:
        def __init__(self, window):
            self._inflater = make(window)

        def decompress(self, data, *room):
            nonlocal fed
            fed += len(data)
            return self._inflater.decompress(data, *room)

        def __getattr__(self, name):
            return getattr(self._inflater, name)

    with monkeypatch.context() as patched:
        patched.setattr(zlib, "decompressobj", Inflater)
        with suppress(InvalidRequestError, PayloadTooLargeError):
            await read_body(request(gzip.compress(b"") * members, content_encoding="gzip"), LIMIT)
    return fed


async def test_a_body_with_twice_as_many_members_takes_no_more_than_twice_the_work(monkeypatch):
    assert await inflated_for(8000, monkeypatch) <= 3 * await inflated_for(4000, monkeypatch)


@pytest.mark.parametrize("accepted", ["gzip;q=0.", "gzip;q=0;x=1"])
async def test_an_encoding_that_is_not_wanted_is_not_used(accepted):
    assert "content-encoding" not in (await respond(request(accept_encoding=accepted), b"body", None)).headers
