"""Every path of the v2 protocol over HTTP, over a fake data plane."""

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
    assert answer.status_code == status, (answer.request, answer.text)
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    return answer.json()["error"]


async def test_every_question_is_answered_in_json(client):
    for method, path, expected in [
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
    ]:  # fmt: skip
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), path
        assert answer.json() == expected, path


async def test_health_is_a_status_without_a_body(client, plane):
    for path in ("/v2/health/live", "/v2/health/ready", f"{ECHO}/ready", f"{ECHO}/versions/3/ready"):
        answer = await client.get(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    assert plane.asked == [("echo", -1), ("echo", 3)]
    plane.is_ready = False
    assert (await client.get("/v2/health/live")).status_code == 200
    ready = await client.get("/v2/health/ready")
    assert error_of(ready, 503) == "not every deployment is ready; try again later"
    assert ready.headers["retry-after"] == "1"
    assert error_of(await client.get(f"{ECHO}/ready"), 400) == "Model version not ready"


async def test_unknown_paths_methods_and_versions_are_refused(client, plane):
    paths = ["/v2/", "/v1", "/", f"{ECHO}/", f"{ECHO}/versions/1/", "/v2/models/echo/nothing", "/v2/models//infer",
             "/v2/models/a%2Fb/infer", "/v2/health", "/v2/repository/a/models/b/reload/now"]  # fmt: skip
    for version in ("-1", "x", "1.0", "%C2%B2", "%D9%A1", str(2**63), "9" * 5000, "+1", "%201"):
        paths += [f"{ECHO}/versions/{version}{end}" for end in ("", "/ready", "/config", "/stats")]
    for path in paths:
        assert error_of(await client.get(path), 404) == "Not Found"
    for path in paths[:10]:
        assert error_of(await client.post(path), 404) == "Not Found"
    for method, path in (
        ("POST", "/v2"), ("PUT", "/v2/health/live"), ("GET", f"{ECHO}/infer"), ("POST", ECHO), ("DELETE", ECHO),
        ("GET", f"{ECHO}/generate"), ("GET", "/v2/repository/index"), ("GET", "/v2/repository/models/echo/load"),
        ("PUT", "/v2/repository/models/echo/unload"), ("POST", "/v2/models"), ("DELETE", "/v2/logging"),
    ):  # fmt: skip
        answer = await client.request(method, path)
        assert error_of(answer, 405) == "Method Not Allowed", path
        assert method not in answer.headers["allow"]
    assert plane.changes == []


async def test_unsupported_paths_give_their_reason(client):
    for path in UNSUPPORTED:
        url = path.replace("{rest:path}", "region/r/register").replace("{model}", "echo")
        reason = NO_SHARED_MEMORY if "memory" in path else FIXED_SETTINGS
        for method in ("GET", "POST"):
            assert error_of(await client.request(method, url), 501) == f"{url}: {reason}"


async def test_a_named_repository_is_unsupported(client, plane):
    for action in ("load", "unload"):
        answer = await client.post(f"/v2/repository/mine/models/echo/{action}")
        assert error_of(answer, 501) == "'repository_name' specification is not supported"
    assert error_of(await client.post("/v2/repository/mine/models/echo/reload"), 404) == "Not Found"
    assert plane.changes == []


async def test_an_inference_in_json_is_answered_in_json(client, plane):
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
async def test_an_inference_in_binary_is_answered_in_binary_with_the_same_compression(client, encoding):
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


async def test_a_raw_binary_request_is_the_models_one_input(client, plane):
    for plane.max_batch_size, shape in ((0, (2,)), (8, (1, 2))):
        plane.inputs = [{"name": "x", "datatype": "INT32", "shape": [-1] * len(shape)}]
        headers = {HEADER: "0", "accept-encoding": "identity"}
        answer = await client.post(f"{ECHO}/infer", content=bytes(8), headers=headers)
        assert answer.status_code == 200, answer.text
        assert plane.asked[-1].inputs[0].shape == shape
        assert answer.content[int(answer.headers[HEADER]) :] == bytes(8)


async def test_a_wrong_inference_is_refused_before_it_reaches_the_model(serve, plane):
    bomb = gzip.compress(bytes(2 << 20))
    async with serve(max_body_mib=1) as client:
        for send, status, message in (
            ({"content": b""}, 400, "the body is empty"),
            ({"content": b"{"}, 400, "failed to parse the request JSON buffer"),
            ({"content": b"{}"}, 400, "Unable to parse 'inputs': it is missing"),
            ({"content": b"{}", "headers": {HEADER: "3"}}, 400, "header size should be in range (0, 2), got: 3"),
            ({"content": b"{}", "headers": {"content-encoding": "gzip"}}, 400, "the body is not valid gzip data"),
            ({"content": b"{}", "headers": {"content-encoding": "br"}}, 501, "Unsupported compression type 'br'"),
            ({"content": b"abc", "headers": {HEADER: "0"}}, 400, "the body has 3 bytes, which doesn't fit input 'x'"),
            ({"content": bomb, "headers": {"content-encoding": "gzip"}}, 413, "larger than the limit"),
            ({"json": {"inputs": [INPUT]}, "headers": {"x-request-timeout-s": "no"}}, 400, "than 0, got 'no'"),
            ({"content": json.dumps({"inputs": [INPUT | {"name": "\ud800"}]})}, 400, "'name' must be valid UTF-8"),
            ({"json": {"inputs": [INPUT, INPUT]}}, 400, "input 'x' already exists in request"),
        ):
            assert message in error_of(await client.post(f"{ECHO}/infer", **send), status), send
    assert plane.asked == []


async def test_an_unknown_model_is_not_found_on_every_path(client):
    for method, end in (("GET", ""), ("GET", "/config"), ("GET", "/stats"), ("POST", "/infer"), ("POST", "/generate")):
        send = {"json": {"inputs": []}} if method == "POST" else {}
        assert error_of(await client.request(method, f"/v2/models/none{end}", **send), 404) == NOT_FOUND


async def test_a_failure_behind_the_router_has_its_status_and_internal_ones_show_nothing(client, plane):
    internal = "internal error; see the service's log"
    for problem, status, message in (
        (NotFoundError("gone"), 404, "gone"),
        (TooManyRequestsError("slower"), 429, "slower"),
        (UnavailableError("queue full"), 503, "queue full"),
        (DeadlineExceededError("late"), 504, "late"),
        (ModelError("the model's own words"), 500, "the model's own words"),
        (EngineError("core.cpp:84"), 500, internal),
        (KeyError("secret"), 500, internal),
    ):
        plane.answers = [problem]
        answer = await client.post(f"{ECHO}/infer", json={"inputs": [INPUT]})
        assert error_of(answer, status) == message, problem
        assert ("retry-after" in answer.headers) == (status in (429, 503)), problem


async def test_the_deadline_is_the_earliest_of_header_timeout_and_configuration(serve, plane, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    async with serve(request_timeout_s=60) as client:
        for header, timeout_us, expected in ((None, 0, 1060), ("5", 0, 1005), ("5", 2_000_000, 1002), ("90", 0, 1060)):
            document = {"inputs": [INPUT], "parameters": {"timeout": timeout_us}}
            headers = {"x-request-timeout-s": header} if header else {}
            await client.post(f"{ECHO}/infer", json=document, headers=headers)
            assert plane.asked[-1].deadline == expected, (header, timeout_us)


async def test_an_output_that_json_cannot_hold_is_a_bad_request(client, plane):
    plane.inputs = [{"name": "x", "datatype": "FP16", "shape": [-1]}]
    await client.post(f"{ECHO}/infer", content=bytes(4), headers={HEADER: "0"})
    plane.answers = [InferAnswer("echo", "1", outputs=plane.asked[0].inputs)]
    answer = await client.post(f"{ECHO}/infer", json={"inputs": [INPUT]})
    assert "sending FP16 data via JSON is not supported" in error_of(answer, 400)


async def test_the_index_can_be_limited_to_ready_models(client):
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
        assert (answer.status_code, answer.content) == (200, b""), (action, sent)
    assert plane.changes == [
        ("load", "echo", {}), ("load", "echo", {"config": "{}", "file:1/model.py": b"x"}),
        ("unload", "echo", False), ("unload", "echo", True),
    ]  # fmt: skip


async def test_a_wrong_load_or_unload_changes_nothing(client, plane):
    no_flag = "Unable to parse 'unload_dependents': it must be true or false"
    for action, sent, message in (
        ("load", {"parameters": None}, "Unable to parse 'parameters': it must be an object"),
        ("load", {"parameters": {"x": "y"}}, "unknown load parameter 'x'"),
        ("load", [], "it is not an object"),
        ("unload", {"parameters": []}, no_flag),
        ("unload", {"parameters": {"unload_dependents": 1}}, no_flag),
        ("unload", {"parameters": {"unload_dependents": None}}, no_flag),
    ):
        assert message in error_of(await client.post(f"/v2/repository/models/echo/{action}", json=sent), 400)
    assert plane.changes == []


async def test_loads_and_unloads_need_the_admin_key(serve, plane, tmp_path):
    key = tmp_path / "key"
    key.write_text("right\n")
    async with serve(key) as client:
        for action in ("load", "unload"):
            path = f"/v2/repository/models/echo/{action}"
            # the key is checked before the request
            none = await client.post(path, content=b"{")
            assert "this needs the admin key" in error_of(none, 401)
            wrong = await client.post(path, headers={"authorization": "Bearer wrong"})
            assert error_of(wrong, 403) == "the given key is not the admin key"
            assert plane.changes == []
            assert (await client.post(path, headers={"authorization": "Bearer right"})).status_code == 200
            assert plane.changes.pop()[:2] == (action, "echo")
        assert (await client.post("/v2/repository/index")).status_code == 200
        assert (await client.get(ECHO)).status_code == 200
