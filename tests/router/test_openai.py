"""OpenAI's API over the whole router: the model that a name stands for, and what a request must be."""

import gzip
import time
from contextlib import suppress
from urllib.parse import quote

import httpx
import pytest

from serve_app.router.router import Router
from serve_app.settings import Settings

CHAT = "/v1/chat/completions"
ENDPOINTS = ("chat/completions", "completions", "embeddings")
DEMO = {"name": "demo-llm"}
FIXED = {"name": "big", "engine": {"max_model_len": 64, "lora_modules": [{"name": "legal", "path": "/x"}]}}
ADAPTED = {"name": "adapted", "adapters": {"folder": "s3://bucket/adapters"}}
ANSWER = '{"object": "x"}'


@pytest.fixture
def build(handle):
    """The application over models that answer one piece, and the handle of each."""

    def over(*models, **router):
        models = models or (DEMO,)
        settings = Settings(triton=(), baseline=None, llms=models, router=router)
        handles = {model["name"]: handle({"openai": lambda *_: [(200, ANSWER, 0)]}) for model in models}
        return Router(settings, {}, handles).__serve_build_asgi_app__(), handles

    return over


@pytest.fixture
def serve(build):
    def over(*models, **router):
        app, handles = build(*models, **router)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://router"), handles

    return over


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert error == {"message": error["message"], "type": kind, "param": None, "code": status}
    return error["message"]


async def test_the_list_has_every_model_and_its_configured_adapters(serve):
    client, _ = serve(DEMO, FIXED, ADAPTED)
    answer = (await client.get("/v1/models")).json()
    assert answer["object"] == "list"
    rows = {row["id"]: (row["object"], row["root"], row["parent"], row["max_model_len"]) for row in answer["data"]}
    assert rows == {
        "demo-llm": ("model", "demo-llm", None, None), "big": ("model", "big", None, 64),
        "adapted": ("model", "adapted", None, None), "legal": ("model", "big", "big", 64),
    }  # fmt: skip


async def test_a_model_or_adapter_is_described_under_its_name(serve):
    slash = {"name": "org", "engine": {"lora_modules": [{"name": "org/legal", "path": "/x"}]}}
    client, _ = serve(FIXED, ADAPTED, slash)
    for name, parent in {"big": None, "legal": "big", "adapted:mine": "adapted", "adapted:a:b": "adapted",
                         "org/legal": "org"}.items():  # fmt: skip
        for path in (name, quote(name, safe="")):
            card = (await client.get(f"/v1/models/{path}")).json()
            assert (card["id"], card["parent"]) == (name, parent)


async def test_an_unknown_model_is_not_found_and_the_available_ones_are_named(serve):
    client, handles = serve(DEMO, FIXED, ADAPTED)
    available = "does not exist; available: demo-llm, big, adapted, legal"
    for name in ("none", "demo-llm:mine", "DEMO-LLM", "demo-llm ", ":", "\0", "ü", "legal:mine", "adapted:"):
        assert error_of(await client.post(CHAT, json={"model": name}), 404) == f"The model `{name}` {available}"
        path = f"/v1/models/{quote(name)}"
        assert error_of(await client.get(path), 404) == f"The model `{name}` {available}"
    half_a_pair = await client.post(CHAT, content=b'{"model": "x\\ud800"}')
    assert error_of(half_a_pair, 404) == f"The model `x?` {available}"
    assert not any(handle.calls for handle in handles.values())


async def test_the_model_is_named_by_text_and_may_be_omitted_if_only_one_is_served(serve):
    client, handles = serve()
    for document in ({}, {"model": None}):
        assert (await client.post(CHAT, json=document)).status_code == 200
        assert handles["demo-llm"].calls.pop()[1][1] == document
    for model in ("", 5, 0, False, True, 1.5, [], ["demo-llm"], {"name": "demo-llm"}):
        answer = await client.post(CHAT, json={"model": model})
        assert error_of(answer, 400) == "`model` must be the name of a model; available: demo-llm"
    assert not handles["demo-llm"].calls
    client, _ = serve(DEMO, ADAPTED)
    message = "`model` must be the name of a model; available: demo-llm, adapted"
    assert error_of(await client.post(CHAT, json={}), 400) == message


async def test_a_request_reaches_the_model_that_it_names_with_its_fields_and_its_deadline(serve):
    client, handles = serve(DEMO, FIXED, ADAPTED, request_timeout_s=60)
    headers = {"x-request-id": "7", "traceparent": "t", "authorization": "Bearer secret", "cookie": "secret"}
    cases = (("demo-llm", "demo-llm", None), ("legal", "big", None), ("adapted:mine", "adapted", "adapted:mine"))
    for endpoint in ENDPOINTS:
        for name, served, adapter in cases:
            document = {"model": name, "messages": [{"role": "user", "content": "ü"}], "anything": [1, None]}
            before = time.time()
            sent = headers | {"x-request-timeout-s": "5"}
            answer = await client.post(f"/v1/{endpoint}", json=document, headers=sent)
            found = (answer.status_code, answer.text, answer.headers["content-type"])
            assert found == (200, ANSWER, "application/json")
            method, (path, asked, passed_on, deadline), options = handles[served].calls.pop()
            assert (method, path, asked) == ("openai", endpoint, document)
            assert passed_on == {"x-request-id": "7", "traceparent": "t"}
            assert before + 5 <= deadline <= time.time() + 5
            assert (options["stream"], options.get("multiplexed_model_id")) == (True, adapter)
            assert not any(handle.calls for handle in handles.values())


async def test_a_wrong_body_path_or_deadline_is_refused_in_openais_shape(serve):
    client, handles = serve(max_body_mib=1)
    gzipped = {"content-encoding": "gzip"}
    large = b'{"a": "' + b"x" * (1 << 20) + b'"}'
    limit = "is larger than the limit of 1048576 bytes"
    for endpoint in ENDPOINTS:
        for body, headers, status, message in (
            (b"[]", {}, 400, "failed to parse the request JSON buffer: it is not an object"),
            (b"{}", gzipped, 400, "the body is not valid gzip data"),
            (large, {}, 413, f"the body {limit}"),
            (gzip.compress(large), gzipped, 413, f"the inflated body {limit}"),
            (b"{}", {"x-request-timeout-s": "soon"}, 400,
             "x-request-timeout-s must be a number of seconds greater than 0, got 'soon'"),
        ):  # fmt: skip
            answer = await client.post(f"/v1/{endpoint}", content=body, headers=headers)
            assert error_of(answer, status) == message
    for method, path, status in (
        ("GET", CHAT, 405), ("DELETE", "/v1/models", 405), ("POST", "/v1/models/demo-llm", 405),
        ("POST", f"{CHAT}/", 404), ("POST", "/v1/responses", 404), ("GET", "/v1/", 404),
        ("POST", "/v1/load_lora_adapter", 404),
    ):  # fmt: skip
        error_of(await client.request(method, path), status)
    assert not handles["demo-llm"].calls
    assert (await client.post(CHAT, content=gzip.compress(b'{"seed": 1}'), headers=gzipped)).status_code == 200
    assert handles["demo-llm"].calls[0][1][1] == {"seed": 1}


async def test_an_error_is_answered_whatever_bytes_the_query_has(build):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/models/none", "headers": [], "query_string": b"a=\xff"}
    with suppress(UnicodeDecodeError):
        await build()[0](scope, None, send)
    assert [message["status"] for message in sent[:1]] == [404]
