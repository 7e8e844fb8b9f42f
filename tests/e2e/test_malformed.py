"""Requests that are wrong in every way: none is a server's error, and the service is right afterwards."""

import gzip
import json
import struct

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ultralytics import ASSETS

BUS = (ASSETS / "bus.jpg").read_bytes()
SIGNATURES = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP", b"BM"]
ENDPOINTS = [
    "/predict/nano", "/predict/nano_end2end", "/predict/nano_gpu_e2e_streaming", "/predict/nano_gpu_e2e",
    "/predict/nano_gpu_e2e_batch", "/pytorch/predict/nano",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
DATATYPES = st.sampled_from(
    ["BOOL", "UINT8", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64", "BF16", "BYTES", "fp32", ""]
)
KNOWN = ["IN_FP32", "IN_STRING", "IN_INT64", "IN_BF16", "IN0", "", "\0", "ü" * 300]
NAMES = st.sampled_from(KNOWN) | st.text(max_size=5)
QUERY_VALUES = st.sampled_from(["0.5", "nan", "-1", "1e999", "", "x", "true", "7,8", "٣", "99999999"])
SIZES = st.integers(-2, 6) | st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64, 10**30])
PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["binary_data_size", "binary_data", "classification", "shared_memory_region", "priority", "timeout",
         "sequence_id", "sequence_start", "sequence_end", "binary_data_output", "triton_x", "custom"]
    ) | st.text(max_size=4),
    JSON | st.integers(0, 64) | st.booleans(),
    max_size=3,
)  # fmt: skip


def maybe(good):
    """Mostly what belongs there."""
    return st.one_of(good, good, good, JSON)


TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": maybe(NAMES), "datatype": maybe(DATATYPES), "shape": maybe(st.lists(SIZES, max_size=4)),
        "data": maybe(st.lists(st.integers() | st.floats() | st.text(max_size=4) | st.booleans(), max_size=6)),
        "parameters": maybe(PARAMETERS),
    },
)  # fmt: skip
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "id": maybe(st.text(max_size=8)), "inputs": maybe(st.lists(TENSORS, max_size=3)),
        "outputs": maybe(st.lists(TENSORS, max_size=2)), "parameters": maybe(PARAMETERS),
    },
)  # fmt: skip
PATHS = st.sampled_from(
    ["/v2/models/echo/infer", "/v2/models/identity/infer", "/v2/models/yolo/infer", "/v2/models/echo/versions/1/infer",
     "/v2/models/identity/generate", "/v2/models/echo/generate_stream", "/v2/repository/index",
     "/v2/repository/models/no_such_model/load", "/v2/repository/models/no_such_model/unload"]
)  # fmt: skip
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
# derandomized: a run that fails here fails everywhere
steady = settings(deadline=None, derandomize=True, suppress_health_check=QUIET)


def require_no_fault(answer):
    assert answer.status_code < 500 or answer.status_code in (501, 504), (answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert set(answer.json()) == {"error"}
        assert "Traceback" not in answer.text
        assert '.py"' not in answer.text


def framed(name, datatype, shape, data):
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return {"content": head + data, "headers": {"Inference-Header-Content-Length": str(len(head))}}


@pytest.fixture(scope="module", autouse=True)
def service_is_right_afterwards(client):
    yield
    assert client.get("/v2/health/live").status_code == 200
    ones = {"inputs": [{"name": "IN0", "shape": [2], "datatype": "FP32", "data": [1, 2.5]}]}
    answer = client.post("/v2/models/identity/infer", json=ones)
    assert answer.json()["outputs"][0]["data"] == [1.0, 2.5]
    for endpoint in ENDPOINTS:
        assert client.post(endpoint, content=BUS).status_code == 200


@steady
@given(path=PATHS, document=REQUESTS | JSON)
def test_json_that_means_nothing_is_the_callers_mistake(client, path, document):
    try:
        body = json.dumps(document)
    except (ValueError, UnicodeError):
        return
    require_no_fault(client.post(path, content=body.encode("utf-8", "surrogatepass")))


@steady
@given(
    path=PATHS, document=REQUESTS, tail=st.binary(max_size=64),
    length=st.none() | st.integers(-3, 300).map(str) | st.sampled_from(["", "x", "1e3", "99999999999999999999", "²"]),
    encoding=st.sampled_from([None, None, None, "gzip", "deflate", "br", "gzip, gzip"]), squeeze=st.booleans(),
)  # fmt: skip
def test_binary_framing_that_does_not_add_up_is_the_callers_mistake(
    client, path, document, tail, length, encoding, squeeze
):
    head = json.dumps(document).encode("utf-8", "surrogatepass")
    body = head + tail
    headers = {"Inference-Header-Content-Length": str(len(head)) if length is None else length}
    if encoding:
        headers["Content-Encoding"] = encoding
        body = gzip.compress(body) if squeeze else body
    try:
        answer = client.post(path, content=body, headers={k: v.encode("latin-1") for k, v in headers.items()})
    except httpx.RemoteProtocolError:  # HAProxy closes on a header that HTTP doesn't allow
        return
    require_no_fault(answer)


@steady
@given(name=NAMES, datatype=DATATYPES, shape=st.lists(SIZES, max_size=4), data=st.binary(max_size=64))
def test_tensors_whose_bytes_and_shapes_differ_are_the_callers_mistake(client, name, datatype, shape, data):
    require_no_fault(client.post("/v2/models/echo/infer", **framed(name, datatype, shape, data)))


@steady
@given(
    endpoint=st.sampled_from(ENDPOINTS), signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=200),
    cut=st.none() | st.integers(0, 5000),
    flips=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
    query=st.dictionaries(
        st.sampled_from(["conf", "iou", "max_det", "classes", "annotate"]), QUERY_VALUES, max_size=2
    ),
)  # fmt: skip
def test_bodies_that_are_no_picture_are_the_callers_mistake(client, endpoint, signature, rest, cut, flips, query):
    body = signature + rest
    if cut is not None:
        damaged = bytearray(BUS[: 20_000 + cut])
        for place, value in flips:
            damaged[place] = value
        body = bytes(damaged)
    answer = client.post(endpoint, content=body, params=query)
    require_no_fault(answer)


@steady
@given(
    endpoint=st.sampled_from(ENDPOINTS),
    content_type=st.sampled_from(
        ["multipart/form-data", "multipart/form-data; boundary=x", "Multipart/Form-Data; boundary=",
         "multipart/mixed; boundary=x"]
    ),
    field=st.sampled_from(["image", "images", "file", "other", ""]),
    body=st.binary(max_size=100),
    ended=st.booleans(),
)  # fmt: skip
def test_forms_that_are_broken_are_the_callers_mistake(client, endpoint, content_type, field, body, ended):
    head = f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="a"\r\n\r\n'.encode()
    content = head + body + (b"\r\n--x--\r\n" if ended else b"")
    require_no_fault(client.post(endpoint, content=content, headers={"Content-Type": content_type}))


def test_what_is_made_to_be_expensive_is_refused_at_once(client):
    deep = b"[" * 500_000
    wide = json.dumps({"inputs": [{"name": "IN0", "datatype": "FP32", "shape": [2**62] * 40_000, "data": []}]})
    digits = b'{"inputs":[{"name":"IN0","datatype":"INT64","shape":[1],"data":[' + b"9" * 100_000 + b"]}]}"
    for body, status in ((deep, 413), (wide.encode(), 400), (digits, 400)):
        answer = client.post("/v2/models/identity/infer", content=body, timeout=20)
        assert answer.status_code == status, answer.text[:200]
    answer = client.post("/v2/models/identity/infer", **framed("IN0", "FP32", [2**32, 2**32], b""))
    assert answer.status_code == 400
    assert "byte size mismatch" in answer.json()["error"]


def test_elements_of_text_that_overrun_their_tensor_are_refused(client):
    for data in (struct.pack("<I", 2**31) + b"ab", struct.pack("<I", 1), struct.pack("<II", 0, 9) + b"x"):
        answer = client.post("/v2/models/echo/infer", **framed("IN_STRING", "BYTES", [1, 1], data))
        assert answer.status_code == 400, answer.text
