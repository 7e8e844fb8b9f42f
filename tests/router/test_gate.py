"""Who gets through the gate: keys, their scopes, models and limits, over HTTP as the router composes it."""

import asyncio
import base64

import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serve_app.errors import ForbiddenError, UnauthorizedError
from serve_app.keys.counter import KeyCounter
from serve_app.keys.file import Key, digest_of
from serve_app.keys.headers import given_key, key_headers
from serve_app.keys.leases import Leases
from serve_app.router.admission import Admission
from serve_app.router.gate import Caller, Gate, RequireKey
from serve_app.router.observe import ObserveRequests
from serve_app.settings import RouterSettings
from serve_app.telemetry.metrics import RequestMetrics

KEYS = {
    "all": {"scopes": ["infer", "llm", "admin"]},
    "vision": {"scopes": ["infer"], "models": ["yolo_*"]},
    "chat": {"scopes": ["llm"], "requests_per_minute": 3, "tokens_per_minute": 1000},
    "one": {"scopes": ["infer"], "concurrent_requests": 1},
    "watcher": {"scopes": ["metrics"]},
}
PATHS = [
    "/predict/nano", "/pytorch/predict/nano", "/v2/models/yolo/infer", "/v2/models/demo-llm/generate", "/v1/models",
    "/v1/chat/completions", "/v2", "/v2/models/yolo", "/v2/repository/models/yolo/load", "/metrics", "/warmup", "/ui/",
    "/docs", "/health", "/v2/health/live", "/v2/health/ready", "/tracks", "/nothing",
]  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    rows = [{"name": name, "sha256": digest_of(f"sa-{name}"), **limits} for name, limits in KEYS.items()]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": rows}))
    (tmp_path / "admin").write_text("the-admin-key\n")
    return RouterSettings(keys_file=tmp_path / "keys.yaml", admin_key_file=tmp_path / "admin")


def build_gate(settings):
    counter = KeyCounter()

    async def call(method, *arguments):
        return getattr(counter, method)(*arguments)

    return Gate(settings, Leases(call, "router"))


@pytest.fixture
def answers():
    """Answers wait for the event where a test sets one."""
    return {"wait": None}


@pytest.fixture
async def client(settings, answers):
    async def answer(request: Request):
        if answers["wait"]:
            await answers["wait"].wait()
        return PlainTextResponse(f"{request.method} {request.url.path}")

    gate, admission = build_gate(settings), Admission(settings, ["demo-llm"])
    application = Starlette(
        routes=[Route(path, answer, methods=["GET", "POST"]) for path in PATHS],
        middleware=[
            Middleware(ObserveRequests, metrics=RequestMetrics()),
            Middleware(RequireKey, gate=gate, admission=admission),
        ],
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as client:
        yield client


def basic(password):
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


def test_a_key_is_found_wherever_clients_put_it():
    for headers, key in (
        ({"authorization": "Bearer sa-a"}, "sa-a"), ({"authorization": "bearer  sa-a "}, "sa-a"),
        ({"x-api-key": " sa-a"}, "sa-a"), ({"authorization": basic("sa-a")}, "sa-a"), (key_headers("sa-a"), "sa-a"),
        ({"authorization": "Bearer schlüssel".encode().decode("latin-1")}, "schlüssel"),
        ({"authorization": "Bearer", "x-api-key": "sa-a"}, ""), ({"authorization": "Basic !"}, ""),
        ({"authorization": "Basic " + base64.b64encode(b"no colon").decode()}, ""), ({}, ""), (key_headers(""), ""),
        ({"authorization": "Digest sa-a", "x-api-key": "sa-a"}, "sa-a"), ({"authorization": "Bearer 鍵"}, "鍵"),
    ):  # fmt: skip
        assert given_key(headers) == key, headers


async def test_every_path_but_probes_asks_for_a_key(client):
    open_paths = {"/health", "/v2/health/live", "/v2/health/ready"}
    for path in [*PATHS, "/not/a/path", "//health", "/health/", "/ui"]:
        for headers in ({}, {"x-api-key": "sa-wrong"}, {"authorization": f"Bearer {digest_of('sa-all')}"}):
            answer = await client.post(path, headers=headers, content=b"x")
            assert answer.status_code == (200 if path in open_paths else 401), (path, headers)
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
    answer = await client.get("/tracks")
    assert answer.json() == {
        "error": "this needs an API key: send it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'"
    }
    answer = await client.post("/v1/chat/completions", headers={"x-api-key": "sa-wrong"})
    assert answer.json()["error"]["message"] == "the API key is unknown or revoked"
    assert answer.json()["error"]["type"] == "authentication_error"
    answer = await client.get("/ui/", headers={"accept": "text/html,*/*"})
    assert answer.headers["www-authenticate"].startswith('Basic realm="serve_app')


async def test_each_scope_opens_its_paths_alone(client):
    refused = {
        "all": [],
        "vision": ["/v1/chat/completions", "/v2/models/demo-llm/generate", "/metrics", "/warmup"],
        "watcher": [
            "/predict/nano", "/pytorch/predict/nano", "/v2/models/yolo/infer", "/v1/chat/completions",
            "/v2/models/demo-llm/generate", "/warmup",
        ],
    }  # fmt: skip
    for name, paths in refused.items():
        for path in PATHS:
            status = (await client.post(path, headers=key_headers(f"sa-{name}"))).status_code
            assert status == (403 if path in paths else 200), (name, path)
    for path in PATHS:
        status = (await client.post(path, headers={"authorization": basic("the-admin-key")})).status_code
        works = path.startswith(("/predict", "/pytorch", "/v1/chat")) or path.endswith(("/infer", "/generate"))
        assert status == (403 if works else 200), path


async def test_what_is_left_is_in_the_headers_and_beyond_is_429(client):
    headers = key_headers("sa-chat")
    answers = [await client.post("/v1/chat/completions", headers=headers) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0", "0"]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
    assert 55 <= int(answers[-1].headers["retry-after"]) <= 61
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"
    assert (await client.get("/v1/models", headers=headers)).status_code == 200
    assert "x-ratelimit-limit-requests" not in (await client.get("/v2", headers=key_headers("sa-all"))).headers


async def test_requests_at_a_time_are_counted_until_their_answers_end(client, answers):
    headers, answers["wait"] = key_headers("sa-one"), asyncio.Event()
    first = asyncio.create_task(client.post("/predict/nano", headers=headers))
    await asyncio.sleep(0.05)
    second = await client.post("/predict/nano", headers=headers)
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")
    answers["wait"].set()
    assert (await first).status_code == 200
    assert (await client.post("/predict/nano", headers=headers)).status_code == 200


async def test_what_keys_did_is_counted_under_their_names(client, recorded):
    await client.post("/v1/chat/completions", headers=key_headers("sa-chat"))
    await client.post("/v1/chat/completions", headers=key_headers("sa-vision"))
    await client.post("/v1/chat/completions", headers=key_headers("sa-nobody"))
    counted = [labels for name, labels, _ in recorded if "key_requests" in name]
    assert counted == [{"key": "chat", "status": "200"}, {"key": "vision", "status": "403"}]


def test_a_caller_may_use_models_of_the_patterns_alone():
    caller = Caller(Key(name="a", sha256="0" * 64, models=["yolo_*", "demo-llm"]), None)
    for model in ("yolo_nano", "demo-llm"):
        caller.require_model(model)
    for model in ("yolo", "Yolo_nano", "demo-llm2", "x" * 1000):
        with pytest.raises(ForbiddenError, match="may not use model") as caught:
            caller.require_model(model)
        assert len(caught.value.message) < 200


async def test_control_asks_for_the_scope_or_without_a_keys_file_for_the_admin_key(settings):
    gate = build_gate(settings)
    gate.require_control(key_headers("sa-all"))
    gate.require_control(key_headers("the-admin-key"))
    with pytest.raises(ForbiddenError, match="the scope 'admin', which key"):
        gate.require_control(key_headers("sa-vision"))
    with pytest.raises(UnauthorizedError):
        gate.require_control({})
    alone = build_gate(settings.model_copy(update={"keys_file": None}))
    assert alone.caller({}) is None
    alone.require_control(key_headers("the-admin-key"))
    with pytest.raises(ForbiddenError, match="not the admin key"):
        alone.require_control(key_headers("sa-all"))
    build_gate(RouterSettings()).require_control({})


async def test_a_revoked_key_ends_with_the_next_request_of_a_stream(settings):
    gate = build_gate(settings)
    caller = gate.caller(key_headers("sa-vision"))
    async with gate.work(caller, "detection"):
        pass
    settings.keys_file.write_text("keys: []")
    gate._file.refresh()
    with pytest.raises(UnauthorizedError, match="revoked"):
        async with gate.work(caller, "detection"):
            pass
