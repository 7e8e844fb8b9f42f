"""Every path of the protocol over HTTP, with a data plane that is made up."""

import base64
import gzip
import json
import struct
import time
import zlib

import pytest

from serve_app.errors import (
    DeadlineExceededError,
    EngineError,
    ModelError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
)
from serve_app.router.kserve.http import UNSUPPORTED
from serve_app.router.kserve.models import FIXED_SETTINGS, NO_SHARED_MEMORY
from serve_app.types.tensors import InferAnswer

ECHO = "/v2/models/echo"
INPUT = {"name": "x", "datatype": "INT32", "shape": [2], "data": [1, 2]}
NOT_FOUND = "Request for unknown model: 'none' is not found; available: echo"
HEADER = "Inference-Header-Content-Length"


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v2", {"name": "serve_app", "version": "1.2", "extensions": ["statistics"]}),
        ("GET", "/v2/models", {"models": ["a", "b"]}),
        ("GET", "/v2/models/stats", {"model_stats": [{"name": "all", "version": "-1"}]}),
        ("GET", ECHO, {"name": "echo", "versions": ["-1"], "outputs": [],
                       "inputs": [{"name": "x", "datatype": "INT32", "shape": [-1]}]}),
        ("GET", f"{ECHO}/config", {"name": "echo", "max_batch_size": 0}),
        ("GET", f"{ECHO}/versions/7/config", {"name": "echo", "max_batch_size": 0}),
        ("GET", f"{ECHO}/stats", {"model_stats": [{"name": "echo", "version": "-1"}]}),
        ("GET", f"{ECHO}/versions/7/stats", {"model_stats": [{"name": "echo", "version": "7"}]}),
        ("POST", "/v2/repository/index",
         [{"name": "b", "state": "READY"}, {"name": "a", "version": "1", "state": "READY"}, {"name": "c"}]),
        ("POST", "/v2/repository/anything/index",
         [{"name": "b", "state": "READY"}, {"name": "a", "version": "1", "state": "READY"}, {"name": "c"}]),
    ],
)  # fmt: skip
async def test_what_is_asked_is_answered_in_json(client, method, path, expected):
    answer = await client.request(method, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == expected


async def test_health_is_a_status_without_a_body(client, plane):
    for path in ("/v2/health/live", "/v2/health/ready", f"{ECHO}/ready", f"{ECHO}/versions/3/ready"):
        answer = await client.get(path)
        assert (answer.status_code, answer.content) == (200, b"")
    assert plane.asked == [("echo", -1), ("echo", 3)]
    plane.is_ready = False
    assert (await client.get("/v2/health/live")).status_code == 200
    ready = await client.get("/v2/health/ready")
    assert error_of(ready, 503) == "not every deployment is ready; try again later"
    assert ready.headers["retry-after"] == "1"
    assert error_of(await client.get(f"{ECHO}/ready"), 400) == "Model version not ready"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_path_that_does_not_exist_says_so(client, method):
    for path in ("/v2/", "/v1", "/", f"{ECHO}/", f"{ECHO}/versions/1/", "/v2/models/echo/nothing", "/v2/models//infer",
                 "/v2/models/a%2Fb/infer", "/v2/health", "/v2/repository/a/models/b/reload/now"):  # fmt: skip
        assert error_of(await client.request(method, path), 404) == "Not Found"


@pytest.mark.parametrize("version", ["-1", "x", "1.0", "%C2%B2", "%D9%A1", str(2**63), "9" * 5000, "+1", "%201"])
@pytest.mark.parametrize("end", ["", "/ready", "/config", "/stats"])
async def test_a_version_that_is_no_number_is_a_path_that_does_not_exist(client, version, end):
    assert error_of(await client.get(f"{ECHO}/versions/{version}{end}"), 404) == "Not Found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2"), ("PUT", "/v2/health/live"), ("GET", f"{ECHO}/infer"), ("POST", ECHO), ("DELETE", ECHO),
        ("GET", f"{ECHO}/generate"), ("GET", "/v2/repository/index"), ("GET", "/v2/repository/models/echo/load"),
        ("PUT", "/v2/repository/models/echo/unload"), ("POST", "/v2/models"), ("DELETE", "/v2/logging"),
    ],
)  # fmt: skip
async def test_a_method_that_a_path_does_not_take_is_refused(client, plane, method, path):
    answer = await client.request(method, path)
    assert error_of(answer, 405) == "Method Not Allowed"
    assert method not in answer.headers["allow"]
    assert plane.changes == []


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", UNSUPPORTED)
async def test_what_triton_has_and_this_has_not_gives_its_reason(client, method, path):
    url = path.replace("{rest:path}", "region/r/register").replace("{model}", "echo")
    assert (
        error_of(await client.request(method, url), 501)
        == f"{url}: {NO_SHARED_MEMORY if 'memory' in path else FIXED_SETTINGS}"
    )


async def test_a_repository_has_no_name(client, plane):
    for action in ("load", "unload"):
        answer = await client.post(f"/v2/repository/mine/models/echo/{action}")
        assert error_of(answer, 501) == "'repository_name' specification is not supported"
    assert error_of(await client.post("/v2/repository/mine/models/echo/reload"), 404) == "Not Found"
    assert plane.changes == []


async def test_an_inference_in_json(client, plane):
    document = {"id": "7", "inputs": [INPUT], "parameters": {"mine": 1}}
    answer = await client.post(f"{ECHO}/versions/4/infer", json=document, headers={"accept-encoding": "identity"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert HEADER not in answer.headers
    assert answer.json() == {"id": "7", "model_name": "echo", "model_version": "1", "outputs": [
        {"name": "x_out", "datatype": "INT32", "shape": [2], "data": [1, 2]}]}  # fmt: skip
    (asked,) = plane.asked
    assert (asked.version, asked.parameters, asked.model) == (4, {"mine": 1}, "echo")


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
async def test_an_inference_in_bytes_both_ways_compressed_and_not(client, encoding):
    row = {"name": "x", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [row], "parameters": {"binary_data_output": True}}).encode()
    body = head + struct.pack("<2i", 5, -6)
    compress = {"gzip": gzip.compress, "deflate": zlib.compress, None: bytes}[encoding]
    named = {"content-encoding": encoding} if encoding else {}
    headers = {HEADER: str(len(head)), "accept-encoding": encoding or "identity"} | named
    answer = await client.post(f"{ECHO}/infer", content=compress(body), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[HEADER])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output == {"name": "x_out", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}}
    assert answer.content[length:] == struct.pack("<2i", 5, -6)


@pytest.mark.parametrize(("max_batch_size", "shape"), [(0, (2,)), (8, (1, 2))])
async def test_a_raw_binary_request_is_the_models_one_input(client, plane, max_batch_size, shape):
    plane.max_batch_size = max_batch_size
    plane.inputs = [{"name": "x", "datatype": "INT32", "shape": [-1] * len(shape)}]
    answer = await client.post(f"{ECHO}/infer", content=bytes(8), headers={HEADER: "0", "accept-encoding": "identity"})
    assert answer.status_code == 200, answer.text
    assert plane.asked[0].inputs[0].shape == shape
    assert answer.content[int(answer.headers[HEADER]) :] == bytes(8)


@pytest.mark.parametrize(
    ("send", "status", "message"),
    [
        ({"content": b""}, 400, "the body is empty"),
        ({"content": b"{"}, 400, "failed to parse the request JSON buffer"),
        ({"content": b"{}"}, 400, "Unable to parse 'inputs': it is missing"),
        ({"content": b"{}", "headers": {HEADER: "3"}}, 400, "inference header size should be in range (0, 2), got: 3"),
        ({"content": b"{}", "headers": {"content-encoding": "gzip"}}, 400, "the body is not valid gzip data"),
        ({"content": b"{}", "headers": {"content-encoding": "br"}}, 501, "Unsupported compression type 'br'"),
        ({"content": b"abc", "headers": {HEADER: "0"}}, 400, "the body has 3 bytes, which doesn't fit input 'x'"),
        (
            {"content": gzip.compress(bytes(2 << 20)), "headers": {"content-encoding": "gzip"}},
            413,
            "larger than the limit",
        ),
        ({"json": {"inputs": [INPUT]}, "headers": {"x-request-timeout-s": "no"}}, 400, "greater than 0, got 'no'"),
        ({"content": json.dumps({"inputs": [INPUT | {"name": "\ud800"}]})}, 400, "'name' must be valid UTF-8"),
        ({"json": {"inputs": [INPUT, INPUT]}}, 400, "input 'x' already exists in request"),
    ],
)
async def test_an_inference_that_makes_no_sense_never_leaves_the_router(serve, plane, send, status, message):
    async with serve(max_body_mib=1) as client:
        assert message in error_of(await client.post(f"{ECHO}/infer", **send), status)
    assert plane.asked == []


@pytest.mark.parametrize("method_and_path", ["GET ", "GET /config", "GET /stats", "POST /infer", "POST /generate"])
async def test_a_model_that_nobody_has_is_not_found(client, method_and_path):
    method, _, end = method_and_path.partition(" ")
    send = {"json": {"inputs": []}} if method == "POST" else {}
    assert error_of(await client.request(method, f"/v2/models/none{end}", **send), 404) == NOT_FOUND


@pytest.mark.parametrize(
    ("problem", "status", "message"),
    [
        (NotFoundError("gone"), 404, "gone"),
        (TooManyRequestsError("slower"), 429, "slower"),
        (UnavailableError("queue full"), 503, "queue full"),
        (DeadlineExceededError("late"), 504, "late"),
        (ModelError("the model's own words"), 500, "the model's own words"),
        (EngineError("core.cpp:84"), 500, "internal error; see the service's log"),
        (KeyError("secret"), 500, "internal error; see the service's log"),
    ],
)
async def test_what_fails_behind_the_router_has_its_status(client, plane, problem, status, message):
    plane.answers = [problem]
    answer = await client.post(f"{ECHO}/infer", json={"inputs": [INPUT]})
    assert error_of(answer, status) == message
    assert ("retry-after" in answer.headers) == (status in (429, 503))


async def test_the_deadline_is_the_earliest_of_header_timeout_and_configuration(serve, plane, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    async with serve(request_timeout_s=60) as client:
        for header, timeout_us, expected in ((None, 0, 1060), ("5", 0, 1005), ("5", 2_000_000, 1002), ("90", 0, 1060)):
            document = {"inputs": [INPUT], "parameters": {"timeout": timeout_us}}
            headers = {"x-request-timeout-s": header} if header else {}
            await client.post(f"{ECHO}/infer", json=document, headers=headers)
            assert plane.asked[-1].deadline == expected


async def test_an_output_that_json_cannot_say_is_the_callers_mistake(client, plane):
    plane.inputs = [{"name": "x", "datatype": "FP16", "shape": [-1]}]
    await client.post(f"{ECHO}/infer", content=bytes(4), headers={HEADER: "0"})
    plane.answers = [InferAnswer("echo", "1", outputs=plane.asked[0].inputs)]
    answer = await client.post(f"{ECHO}/infer", json={"inputs": [INPUT]})
    assert "sending FP16 data via JSON is not supported" in error_of(answer, 400)


async def test_the_index_can_be_of_what_is_ready_only(client):
    ready = await client.post("/v2/repository/index", json={"ready": True})
    assert [row["name"] for row in ready.json()] == ["b", "a"]
    assert len((await client.post("/v2/repository/index", json={"ready": False})).json()) == 3
    for sent in ({"ready": 1}, {"ready": "true"}, {"ready": None}):
        answer = await client.post("/v2/repository/index", json=sent)
        assert error_of(answer, 400) == "Unable to parse 'ready': it must be true or false"
    assert "it is not an object" in error_of(await client.post("/v2/repository/index", json=[]), 400)


async def test_models_are_loaded_and_unloaded(client, plane):
    parameters = {"config": "{}", "file:1/model.py": base64.b64encode(b"x").decode()}
    for action, sent in (
        ("load", {}), ("load", {"json": {"parameters": parameters}}),
        ("unload", {}), ("unload", {"json": {"parameters": {"unload_dependents": True}}}),
    ):  # fmt: skip
        answer = await client.post(f"/v2/repository/models/echo/{action}", **sent)
        assert (answer.status_code, answer.content) == (200, b"")
    assert plane.changes == [
        ("load", "echo", {}), ("load", "echo", {"config": "{}", "file:1/model.py": b"x"}),
        ("unload", "echo", False), ("unload", "echo", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "sent", "message"),
    [
        ("load", {"parameters": None}, "Unable to parse 'parameters': it must be an object"),
        ("load", {"parameters": {"x": "y"}}, "unknown load parameter 'x'"),
        ("load", [], "it is not an object"),
        ("unload", {"parameters": []}, "Unable to parse 'unload_dependents': it must be true or false"),
        ("unload", {"parameters": {"unload_dependents": 1}}, "Unable to parse 'unload_dependents'"),
        ("unload", {"parameters": {"unload_dependents": None}}, "Unable to parse 'unload_dependents'"),
    ],
)
async def test_a_load_that_makes_no_sense_changes_nothing(client, plane, action, sent, message):
    assert message in error_of(await client.post(f"/v2/repository/models/echo/{action}", json=sent), 400)
    assert plane.changes == []


async def test_only_the_admin_loads_and_unloads(serve, plane, tmp_path):
    key = tmp_path / "key"
    key.write_text("right\n")
    async with serve(key) as client:
        for action in ("load", "unload"):
            path = f"/v2/repository/models/echo/{action}"
            # who has no key doesn't learn what would be wrong with the request
            none = await client.post(path, content=b"{")
            assert "this needs the admin key" in error_of(none, 401)
            wrong = await client.post(path, headers={"authorization": "Bearer wrong"})
            assert error_of(wrong, 403) == "the given key is not the admin key"
            assert plane.changes == []
            assert (await client.post(path, headers={"authorization": "Bearer right"})).status_code == 200
            assert plane.changes.pop()[:2] == (action, "echo")
        assert (await client.post("/v2/repository/index")).status_code == 200
        assert (await client.get(ECHO)).status_code == 200
