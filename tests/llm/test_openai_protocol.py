"""OpenAI requests as vLLM understands them, the messages of those that are refused, and answers in pieces."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest
from ray.llm._internal.serve.core.configs.openai_api_models import EmbeddingChatRequest, EmbeddingCompletionRequest
from ray.llm._internal.serve.utils.batcher import Batcher
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest, ErrorResponse
from vllm.entrypoints.openai.completion.protocol import CompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorInfo
from vllm.entrypoints.serve.engine.protocol import ErrorResponse as VllmErrorResponse
from vllm.v1.engine.exceptions import EngineDeadError

from serve_app.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ReplicaKilledError,
    ReplicaLostError,
    UnavailableError,
)
from serve_app.llm.openai_protocol import ENDPOINTS, parse_request, stream_answer, wants_usage, with_usage
from serve_app.llm.replica import LanguageModel

GOOD = {
    "chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "completions": {"model": "m", "prompt": "hi"},
    "embeddings": {"model": "m", "input": "hi"},
}
CHAT, PLAIN, EMBED = GOOD
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
USAGE = {"include_usage": True}


def refusal(endpoint, **more):
    """The message for a good request with other fields; None takes a field away."""
    document = {name: value for name, value in (GOOD[endpoint] | more).items() if value is not None}
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(endpoint, document)
    return caught.value.message


async def replying(*replies, closed=None):
    try:
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
            yield reply
    finally:
        if closed is not None:
            closed.append(True)


async def collect(found):
    return [piece async for piece in found]


async def pieces(*replies):
    return await collect(stream_answer(replying(*replies)))


def replica(*replies, closed=None):
    """A replica over a stand-in for ray.serve.llm's server, which keeps its requests and sends or raises replies."""
    model = object.__new__(LanguageModel)
    model._name, model.requests = "m", []
    model.engine = SimpleNamespace(dead=False, was_killed=lambda: False)

    async def serve(request, info):
        model.requests.append((request, info.headers))
        return Batcher(replying(*replies, closed=closed), interval_ms=0).stream()

    model.chat = model.completions = model.embeddings = serve
    return model


def test_a_good_request_becomes_vllms():
    for endpoint, document, kind in (
        (CHAT, GOOD[CHAT], ChatCompletionRequest),
        (PLAIN, GOOD[PLAIN], CompletionRequest),
        (EMBED, GOOD[EMBED], EmbeddingCompletionRequest),
        (EMBED, GOOD[CHAT], EmbeddingChatRequest),
    ):
        request = parse_request(endpoint, document)
        assert type(request) is kind
        read = request.model_dump(exclude_unset=True)
        assert read | document == read


def test_fields_of_openais_client_and_of_vllm_are_accepted():
    for endpoint, more in (
        (CHAT, {"max_completion_tokens": 5, "temperature": 0, "stream": True, "stream_options": USAGE}),
        (CHAT, {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True}),
        (CHAT, {"response_format": JSON_SCHEMA}),
        (CHAT, {"top_k": 5, "min_p": 0.1, "chat_template_kwargs": {"thinking": False}, "structured_outputs": None}),
        (CHAT, {"store": False, "metadata": {"a": "b"}, "service_tier": "auto", "prediction": None, "user": "me"}),
        (PLAIN, {"prompt": [1, 2, 3], "echo": True, "logprobs": 2, "suffix": None, "best_of": 1, "n": 2}),
        (PLAIN, {"prompt": ["a", "b"], "structured_outputs": {"choice": ["a", "b"]}}),
        (EMBED, {"input": ["a", "b"], "dimensions": 8, "encoding_format": "base64", "user": "me"}),
        (EMBED, {"input": [[1, 2], [3]]}),
    ):
        parse_request(endpoint, GOOD[endpoint] | more)


def test_a_wrong_request_is_refused_with_its_field_or_in_vllms_words():
    for endpoint, more, message in (
        (CHAT, {"messages": None}, "messages: Field required"),
        (CHAT, {"messages": "hi"}, "messages: Input should be a valid list"),
        (CHAT, {"temperature": "hot"}, "temperature: Input should be a valid number"),
        (CHAT, {"tools": [{"type": "x"}]}, "tools.0.function: Field required"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "content"),
        (CHAT, {"stream": "maybe"}, "stream: Input should be a valid boolean"),
        (PLAIN, {"prompt": {"a": 1}}, "prompt.str: Input should be a valid string"),
        (PLAIN, {"seed": 1 << 64}, "seed: Input should be less than or equal to"),
        (EMBED, {"input": None}, "input: Field required"),
        (EMBED, {"encoding_format": "x"}, "encoding_format: Input should be 'float', 'base64'"),
        (EMBED, {"encoding_format": "bytes"}, "encoding_format: must be float or base64"),
        (CHAT, {"structured_outputs": "json"}, "structured_outputs: must be an object"),
        (PLAIN, {"structured_outputs": 0}, "structured_outputs: must be an object"),
        (CHAT, {"temprature": 1}, "unknown field 'temprature'; did you mean 'temperature'?"),
        (CHAT, {"qqq": 1}, "unknown field 'qqq'"),
        (CHAT, {"prompt": 1}, "unknown field 'prompt'"),
        (PLAIN, {"messages": 1}, "unknown field 'messages'"),
        (EMBED, {"inputs": 1}, "unknown field 'inputs'; did you mean 'input'?"),
        (PLAIN, {"prompt": None}, "Either prompt or prompt_embeds must be provided"),
        (PLAIN, {"logprobs": -5}, "`logprobs` must be a positive value or -1"),
        (PLAIN, {"stream_options": USAGE}, "Stream options can only be defined when `stream=True`"),
        (PLAIN, {"structured_outputs": {}}, "You must use one kind of structured outputs constraint"),
        (CHAT, {"top_logprobs": 2}, "when using `top_logprobs`, `logprobs` must be set to true"),
        (CHAT, {"tools": []}, "`tools` must not be an empty array"),
        (CHAT, {"tools": TOOLS, "tool_choice": "maybe"}, "Invalid value for `tool_choice`: maybe!"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "the 'json_schema' field must be provided"),
        (CHAT, {"thinking_token_budget": "x"}, "`thinking_token_budget` must be a non-negative integer"),
    ):
        found = refusal(endpoint, **more)
        assert message in found
        assert "__log_extra_fields__" not in found


def test_a_refusal_names_each_error_once_and_at_most_five_without_the_values_that_were_sent():
    wrong = dict.fromkeys(("n", "seed", "temperature", "top_p", "max_tokens", "echo", "stream"), "secret")
    for found in (refusal(PLAIN, **wrong), refusal(CHAT, messages=[{"role": "user", "content": 5}] * 9)):
        lines = found.split("; ")
        assert len(lines) == len(set(lines)) == 5
        assert "secret" not in found


async def test_events_are_passed_on_and_other_replies_become_json():
    events = [["data: a\n\n", "data: b\n\n"], [], "data: [DONE]\n\n"]
    assert await pieces(*events) == [(200, event, 0) for event in ("data: a\n\n", "data: b\n\n", "data: [DONE]\n\n")]
    usage = {"prompt_tokens": 1, "total_tokens": 2, "completion_tokens": 1}
    choice = {"index": 0, "text": "naïve 🦜", "finish_reason": "stop"}
    ((status, text, tokens),) = await pieces(CompletionResponse(id="c", model="m", choices=[choice], usage=usage))
    assert tokens == 2
    document = json.loads(text)
    assert (status, document["id"], document["choices"][0]["text"]) == (200, "c", "naïve 🦜")
    assert await pieces() == []


async def test_the_usage_of_a_stream_is_counted_and_shown_to_those_who_asked_for_it():
    text = 'data: {"choices":[{"text":"\\"choices\\":[] \\"usage\\":{}"}]}\n\n'
    usage = 'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"total_tokens":9}}\n\n'
    end = "data: [DONE]\n\n"

    async def shown(*replies, shows_usage):
        return await collect(stream_answer(replying(*replies), shows_usage))

    for shows_usage in (True, False):
        left = usage if shows_usage else ""
        apart = [(200, text, 0), (200, left, 9), (200, end, 0)]
        assert await shown(text, usage, end, shows_usage=shows_usage) == apart
        assert await shown([text, usage + end], shows_usage=shows_usage) == [(200, text, 0), (200, left + end, 9)]
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    assert wants_usage(asked)
    assert not wants_usage({"stream": True})
    assert with_usage({"stream": True}) == asked
    assert with_usage({"stream": True, "stream_options": {"include_usage": False}}) == asked
    for unchanged in ({}, {"stream": False}, {"stream": True, "stream_options": "x"}):
        assert with_usage(unchanged) is unchanged


async def test_an_error_has_its_own_status_in_every_form_until_the_first_event_is_sent():
    error = ErrorInfo(message="too long", type="BadRequestError", code=400).model_dump()
    event = f"data: {json.dumps({'error': error})}\n\n"
    responses = ErrorResponse(error=error), VllmErrorResponse(error=error)
    for reply in (*responses, [responses[0]], [responses[1]], event):
        ((status, text, _),) = await pieces(reply)
        assert (status, json.loads(text)["error"]["message"]) == (400, "too long")
    assert [status for status, *_ in await pieces(["data: a\n\n"], event)] == [200, 200]
    assert [status for status, *_ in await pieces(["data: a\n\n"], [responses[0]])] == [200, 400]


async def test_a_replica_passes_requests_to_its_server_and_the_answer_back():
    for endpoint in ENDPOINTS:
        model, headers = replica("data: a\n\n", "data: [DONE]\n\n"), {"x-request-id": "7"}
        found = await collect(model.openai(endpoint, GOOD[endpoint], headers, time.time() + 60))
        assert found == [(200, "data: a\n\n", 0), (200, "data: [DONE]\n\n", 0)]
        assert [(request.model, passed_on) for request, passed_on in model.requests] == [("m", headers)]


async def test_a_replica_refuses_late_and_wrong_requests_and_translates_errors():
    late = time.time() - 1
    for model, document, deadline, kind, message in (
        (replica(), GOOD[CHAT], late, DeadlineExceededError, "the deadline of the request has passed"),
        (replica(), {"model": "m"}, None, InvalidRequestError, "messages: Field required"),
        (replica(EngineDeadError()), GOOD[CHAT], None, UnavailableError, "the engine of model 'm' died; try again"),
    ):
        with pytest.raises(kind) as caught:
            await collect(model.openai(CHAT, document, {}, deadline))
        assert caught.value.message == message
        assert bool(model.requests) == (kind is UnavailableError)


async def test_the_death_of_an_engine_says_whether_the_request_may_be_tried_again():
    failed = ErrorResponse(error=ErrorInfo(message="x", type="InternalServerError", code=500).model_dump())
    for death in (EngineDeadError(), failed):
        for killed, kind in ((True, ReplicaKilledError), (False, UnavailableError)):
            model = replica("data: a\n\n", death)
            model.engine.was_killed = lambda killed=killed: killed
            found = model.openai(CHAT, GOOD[CHAT], {})
            assert await anext(found) == (200, "data: a\n\n", 0)
            model.engine.dead = True
            with pytest.raises(UnavailableError, match="the engine of model 'm' died") as caught:
                await anext(found)
            assert type(caught.value) is kind
    with pytest.raises(ReplicaLostError, match="will be replaced"):
        await collect(model.openai(CHAT, GOOD[CHAT], {}))
    assert len(model.requests) == 1


async def test_a_reader_that_leaves_ends_the_servers_work():
    closed = []
    found = replica("data: a\n\n", "data: b\n\n", closed=closed).openai(CHAT, GOOD[CHAT], {})
    assert await anext(found) == (200, "data: a\n\n", 0)
    await found.aclose()
    for _ in range(20):
        await asyncio.sleep(0)
    assert closed == [True]
