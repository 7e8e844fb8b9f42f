"""OpenAI's API over the whole router: which model a name means, and what a request has to be.

Replicas are faked: a handle keeps what it is asked, and answers one piece.
"""

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


class Stream:
    def __init__(self):
        self._pieces = [(200, ANSWER)]

    async def __anext__(self):
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()

    def cancel(self):
        pass


class Handle:
    def __init__(self):
        self.calls, self._options = [], {}

    def options(self, **options):
        self._options = options
        return self

    @property
    def openai(self):
        return self

    def remote(self, *arguments):
        self.calls.append((*arguments, self._options))
        return Stream()


def build(models=(DEMO,), **router):
    settings = Settings(triton=(), baseline=None, llms=models, router=router)
    handles = {model["name"]: Handle() for model in models}
    return Router(settings, {}, handles).__serve_build_asgi_app__(), handles


def serve(*models, **router):
    """A client of the router, and the handle of each model."""
    app, handles = build(models or (DEMO,), **router)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://router"), handles


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert error == {"message": error["message"], "type": kind, "param": None, "code": status}
    return error["message"]


async def test_the_list_has_every_model_and_the_adapters_that_it_starts_with():
    client, _ = serve(DEMO, FIXED, ADAPTED)
    answer = (await client.get("/v1/models")).json()
    assert answer["object"] == "list"
    rows = {row["id"]: (row["object"], row["root"], row["parent"], row["max_model_len"]) for row in answer["data"]}
    assert rows == {
        "demo-llm": ("model", "demo-llm", None, None), "big": ("model", "big", None, 64),
        "adapted": ("model", "adapted", None, None), "legal": ("model", "big", "big", 64),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parent"), [("big", None), ("legal", "big"), ("adapted:mine", "adapted"), ("adapted:a:b", "adapted")]
)
async def test_a_model_is_told_by_its_name(name, parent):
    client, _ = serve(FIXED, ADAPTED)
    card = (await client.get(f"/v1/models/{name}")).json()
    assert (card["id"], card["parent"]) == (name, parent)


@pytest.mark.parametrize("path", ["org/legal", "org%2Flegal"])
async def test_a_name_that_the_list_has_may_hold_a_slash(path):
    client, _ = serve({"name": "big", "engine": {"lora_modules": [{"name": "org/legal", "path": "/x"}]}})
    assert (await client.get("/v1/models")).json()["data"][1]["id"] == "org/legal"
    assert (await client.get(f"/v1/models/{path}")).status_code == 200


@pytest.mark.parametrize("name", ["none", "demo-llm:mine", "DEMO-LLM", "demo-llm ", ":", "\0", "ü", "legal:mine"])
async def test_a_model_that_is_not_there_is_not_found_with_what_there_is(name):
    client, handles = serve(DEMO, FIXED)
    message = f"The model `{name}` does not exist; available: demo-llm, big, legal"
    assert error_of(await client.post(CHAT, json={"model": name}), 404) == message
    assert error_of(await client.get(f"/v1/models/{quote(name)}"), 404) == message
    assert not handles["demo-llm"].calls


async def test_half_a_surrogate_pair_in_a_name_can_be_said():
    client, _ = serve()
    answer = await client.post(CHAT, content=b'{"model": "x\\ud800"}')
    assert error_of(answer, 404) == "The model `x?` does not exist; available: demo-llm"


@pytest.mark.parametrize("model", ["", 5, 0, False, True, 1.5, [], ["demo-llm"], {"name": "demo-llm"}])
async def test_a_model_is_named_by_text(model):
    client, handles = serve()
    answer = await client.post(CHAT, json={"model": model})
    assert error_of(answer, 400) == "`model` must be the name of a model; available: demo-llm"
    assert not handles["demo-llm"].calls


@pytest.mark.parametrize("document", [{}, {"model": None}])
async def test_only_where_there_is_one_model_its_name_may_be_left_out(document):
    client, handles = serve()
    assert (await client.post(CHAT, json=document)).status_code == 200
    assert handles["demo-llm"].calls[0][1] == document
    client, _ = serve(DEMO, ADAPTED)
    message = "`model` must be the name of a model; available: demo-llm, adapted"
    assert error_of(await client.post(CHAT, json=document), 400) == message


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("name", "to", "adapter"),
    [("demo-llm", "demo-llm", None), ("legal", "big", None), ("adapted:mine", "adapted", "adapted:mine")],
)
async def test_a_request_reaches_the_model_that_it_names_with_its_fields_and_its_deadline(endpoint, name, to, adapter):
    client, handles = serve(DEMO, FIXED, ADAPTED, request_timeout_s=60)
    document = {"model": name, "messages": [{"role": "user", "content": "ü"}], "anything": [1, None]}
    headers = {"x-request-id": "7", "traceparent": "t", "authorization": "Bearer secret", "cookie": "secret"}
    before = time.time()
    answer = await client.post(f"/v1/{endpoint}", json=document, headers=headers | {"x-request-timeout-s": "5"})
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, ANSWER, "application/json")
    ((what, asked, passed_on, deadline, options),) = handles[to].calls
    assert (what, asked, passed_on) == (endpoint, document, {"x-request-id": "7", "traceparent": "t"})
    assert before + 5 <= deadline <= time.time() + 5
    assert (options["stream"], options.get("multiplexed_model_id")) == (True, adapter)
    assert sum(len(handle.calls) for handle in handles.values()) == 1


async def test_an_adapter_has_a_name():
    client, handles = serve(ADAPTED)
    error_of(await client.post(CHAT, json={"model": "adapted:"}), 404)
    assert not handles["adapted"].calls


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value"), (b"{", "Expecting property name"), (b"[]", "it is not an object"),
        (b"null", "it is not an object"), (b'"demo-llm"', "it is not an object"), (b"\xff", "can't decode byte"),
        (b"[" * 100_000, "it is nested too deeply"), (b'{"seed": ' + b"9" * 5000 + b"}", "too many digits"),
    ],
    ids=range(8),
)  # fmt: skip
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_body_that_is_no_json_object_is_refused(endpoint, body, message):
    client, handles = serve()
    refusal = error_of(await client.post(f"/v1/{endpoint}", content=body), 400)
    assert refusal.startswith("failed to parse the request JSON buffer: ")
    assert message in refusal
    assert not handles["demo-llm"].calls


async def test_a_body_over_the_limit_is_refused_before_and_after_inflation():
    client, handles = serve(max_body_mib=1)
    body = b'{"a": "' + b"x" * (1 << 20) + b'"}'
    assert error_of(await client.post(CHAT, content=body), 413) == "the body is larger than the limit of 1048576 bytes"
    zipped = await client.post(CHAT, content=gzip.compress(body), headers={"content-encoding": "gzip"})
    assert error_of(zipped, 413) == "the inflated body is larger than the limit of 1048576 bytes"
    assert not handles["demo-llm"].calls


async def test_a_compressed_body_is_read_and_one_that_says_so_falsely_is_refused():
    client, handles = serve()
    gzipped = {"content-encoding": "gzip"}
    assert (await client.post(CHAT, content=gzip.compress(b'{"seed": 1}'), headers=gzipped)).status_code == 200
    assert handles["demo-llm"].calls[0][1] == {"seed": 1}
    assert error_of(await client.post(CHAT, content=b"{}", headers=gzipped), 400) == "the body is not valid gzip data"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", CHAT, 405), ("DELETE", "/v1/models", 405), ("POST", "/v1/models/demo-llm", 405), ("POST", f"{CHAT}/", 404),
     ("POST", "/v1/responses", 404), ("GET", "/v1/", 404), ("POST", "/v1/load_lora_adapter", 404)],
)  # fmt: skip
async def test_only_named_paths_and_methods_pass(method, path, status):
    client, handles = serve()
    error_of(await client.request(method, path), status)
    assert not handles["demo-llm"].calls


async def test_a_deadline_that_is_none_is_refused_in_the_same_shape():
    client, _ = serve()
    answer = await client.post(CHAT, json={}, headers={"x-request-timeout-s": "soon"})
    assert "must be a number of seconds greater than 0" in error_of(answer, 400)


async def test_an_error_is_told_whatever_bytes_the_query_has():
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/models/none", "headers": [], "query_string": b"a=\xff"}
    with suppress(UnicodeDecodeError):
        await build()[0](scope, None, send)
    assert [message["status"] for message in sent[:1]] == [404]
