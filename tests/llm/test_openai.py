"""OpenAI's requests as vLLM understands them, the words that refuse the rest, and answers in pieces."""

import asyncio
import json
import time

import pytest
from fastapi import HTTPException
from ray.llm._internal.serve.core.configs.openai_api_models import EmbeddingChatRequest, EmbeddingCompletionRequest
from ray.llm._internal.serve.utils.batcher import Batcher
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest, ErrorResponse
from vllm.entrypoints.openai.completion.protocol import CompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorInfo
from vllm.entrypoints.serve.engine.protocol import ErrorResponse as VllmErrorResponse
from vllm.exceptions import QueueOverflowError, VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError

from serve_app.errors import DeadlineExceededError, InvalidRequestError, ModelError, NotFoundError, UnavailableError
from serve_app.llm.openai import ENDPOINTS, answers, read_request
from serve_app.llm.replica import LanguageModel

GOOD = {
    "chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "completions": {"model": "m", "prompt": "hi"},
    "embeddings": {"model": "m", "input": "hi"},
}
CHAT, PLAIN, EMBED = GOOD
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def refusal(endpoint, **more):
    """What is said to a good request with something more; a field that is None is taken away."""
    document = {name: value for name, value in (GOOD[endpoint] | more).items() if value is not None}
    with pytest.raises(InvalidRequestError) as caught:
        read_request(endpoint, document)
    return caught.value.message


async def replying(*replies, closed=None):
    try:
        for one in replies:
            if isinstance(one, BaseException):
                raise one
            yield one
    finally:
        if closed is not None:
            closed.append(True)


async def collect(found):
    return [piece async for piece in found]


async def pieces(*replies):
    return await collect(answers(replying(*replies)))


def replica(*replies, begin=None, closed=None):
    """One whose server is faked: it keeps what it was asked, and gives or raises what it was told to."""
    model = object.__new__(LanguageModel)
    model._name, model.asked = "m", []

    async def server(request, info):
        model.asked.append((request, info.headers))
        if begin:
            raise begin
        return Batcher(replying(*replies, closed=closed), interval_ms=0).stream()

    model.chat = model.completions = model.embeddings = server
    return model


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [(CHAT, ChatCompletionRequest), (PLAIN, CompletionRequest), (EMBED, EmbeddingCompletionRequest)],
)
def test_a_good_request_is_the_servers(endpoint, kind):
    request = read_request(endpoint, GOOD[endpoint])
    assert type(request) is kind
    read = request.model_dump(exclude_unset=True)
    assert read | GOOD[endpoint] == read


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        (
            CHAT,
            {"max_completion_tokens": 5, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}},
        ),
        (CHAT, {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True}),
        (
            CHAT,
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
        ),
        (CHAT, {"top_k": 5, "min_p": 0.1, "chat_template_kwargs": {"thinking": False}, "structured_outputs": None}),
        (CHAT, {"store": False, "metadata": {"a": "b"}, "service_tier": "auto", "prediction": None, "user": "me"}),
        (PLAIN, {"prompt": [1, 2, 3], "echo": True, "logprobs": 2, "suffix": None, "best_of": 1, "n": 2}),
        (PLAIN, {"prompt": ["a", "b"], "structured_outputs": {"choice": ["a", "b"]}}),
        (EMBED, {"input": ["a", "b"], "dimensions": 8, "encoding_format": "base64", "user": "me"}),
        (EMBED, {"input": [[1, 2], [3]]}),
    ],
)
def test_fields_of_openais_client_and_of_vllm_are_known(endpoint, more):
    read_request(endpoint, GOOD[endpoint] | more)


def test_a_conversation_can_be_embedded():
    assert type(read_request(EMBED, GOOD[CHAT])) is EmbeddingChatRequest


@pytest.mark.parametrize(
    ("endpoint", "more", "message"),
    [
        (CHAT, {"messages": None}, "messages: Field required"),
        (CHAT, {"messages": "hi"}, "messages: Input should be a valid list"),
        (CHAT, {"temperature": "hot"}, "temperature: Input should be a valid number"),
        (CHAT, {"tools": 5}, "tools: Input should be a valid list"),
        (CHAT, {"tools": [{"type": "x"}]}, "tools.0.function: Field required"),
        (CHAT, {"model": 5}, "model: Input should be a valid string"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "content"),
        (CHAT, {"stream": "maybe"}, "stream: Input should be a valid boolean"),
        (PLAIN, {"prompt": {"a": 1}}, "prompt.str: Input should be a valid string"),
        (PLAIN, {"prompt": [["a"]]}, "prompt.list[str].0: Input should be a valid string"),
        (PLAIN, {"seed": 1 << 64}, "seed: Input should be less than or equal to"),
        (PLAIN, {"max_tokens": 1.5}, "max_tokens: Input should be a valid integer"),
        (EMBED, {"input": None}, "input: Field required"),
        (EMBED, {"dimensions": "x"}, "dimensions: Input should be a valid integer"),
        (EMBED, {"encoding_format": "x"}, "encoding_format: Input should be 'float', 'base64'"),
    ],
)
def test_what_can_not_be_meant_is_said_with_its_field(endpoint, more, message):
    assert message in refusal(endpoint, **more)


@pytest.mark.parametrize(
    ("endpoint", "name", "message"),
    [
        (CHAT, "temprature", "unknown field 'temprature'; did you mean 'temperature'?"),
        (CHAT, "max_token", "unknown field 'max_token'; did you mean 'max_tokens'?"),
        (CHAT, "qqq", "unknown field 'qqq'"),
        (CHAT, "", "unknown field ''"),
        (CHAT, "prompt", "unknown field 'prompt'"),
        (PLAIN, "messages", "unknown field 'messages'"),
        (PLAIN, "tools", "unknown field 'tools'"),
        (EMBED, "inputs", "unknown field 'inputs'; did you mean 'input'?"),
        (EMBED, "stream", "unknown field 'stream'"),
    ],
)
def test_a_field_that_nobody_knows_is_refused_with_its_neighbour(endpoint, name, message):
    assert refusal(endpoint, **{name: 1}).startswith(message)


def test_every_mistake_is_told_once_and_no_more_than_five():
    wrong = dict.fromkeys(("n", "seed", "temperature", "top_p", "max_tokens", "echo", "stream"), "x")
    told = refusal(PLAIN, **wrong).split("; ")
    assert len(told) == len(set(told)) == 5
    assert {line.partition(":")[0] for line in told} <= set(wrong)
    told = refusal(CHAT, messages=[{"role": "user", "content": 5}] * 9).split("; ")
    assert len(told) == len(set(told)) == 5


def test_what_was_sent_is_not_told_back():
    assert "secret" not in refusal(CHAT, temperature="secret", top_p=["secret"])


@pytest.mark.parametrize(
    ("endpoint", "more", "message"),
    [
        (PLAIN, {"prompt": None}, "Either prompt or prompt_embeds must be provided"),
        (PLAIN, {"logprobs": -5}, "`logprobs` must be a positive value or -1"),
        (PLAIN, {"logprobs": "x"}, "`logprobs` must be an integer"),
        (PLAIN, {"stream_options": {"include_usage": True}}, "Stream options can only be defined when `stream=True`"),
        (PLAIN, {"prompt_logprobs": 1, "stream": True}, "`prompt_logprobs` are not available when `stream=True`"),
        (PLAIN, {"structured_outputs": {}}, "You must use one kind of structured outputs constraint"),
        (CHAT, {"top_logprobs": 2}, "when using `top_logprobs`, `logprobs` must be set to true"),
        (CHAT, {"stream_options": {"include_usage": True}}, "Stream options can only be defined when `stream=True`"),
        (CHAT, {"tools": []}, "`tools` must not be an empty array"),
        (CHAT, {"tool_choice": "auto"}, "When using `tool_choice`, `tools` must be set"),
        (CHAT, {"tools": TOOLS, "tool_choice": "maybe"}, "Invalid value for `tool_choice`: maybe!"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "the 'json_schema' field must be provided"),
        (CHAT, {"add_generation_prompt": True, "continue_final_message": True}, "Cannot set both"),
        (CHAT, {"thinking_token_budget": "x"}, "`thinking_token_budget` must be a non-negative integer"),
    ],
)
async def test_what_vllm_itself_refuses_is_said_in_its_words(endpoint, more, message):
    document = {name: value for name, value in (GOOD[endpoint] | more).items() if value is not None}
    with pytest.raises(InvalidRequestError) as caught:
        await collect(replica().openai(endpoint, document, {}))
    assert message in caught.value.message


@pytest.mark.parametrize("value", [True, 0, 1.5, "json", []])
@pytest.mark.parametrize("endpoint", [CHAT, PLAIN])
def test_structured_outputs_that_are_no_object_are_refused(endpoint, value):
    assert "structured_outputs" in refusal(endpoint, structured_outputs=value)


@pytest.mark.parametrize("encoding", ["bytes", "bytes_only"])
def test_embeddings_that_could_not_be_answered_are_refused(encoding):
    assert "encoding_format" in refusal(EMBED, encoding_format=encoding)


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [(EMBED, {"input": None}), (EMBED, {"dimensions": "x"}), (CHAT, {"response_format": {"type": "yaml"}})],
)
def test_a_mistake_is_told_without_the_names_of_validators(endpoint, more):
    assert "__log_extra_fields__" not in refusal(endpoint, **more)


async def test_events_pass_as_they_are_in_lists_or_alone():
    found = await pieces(["data: a\n\n", "data: b\n\n"], [], "data: [DONE]\n\n")
    assert found == [(200, "data: a\n\n"), (200, "data: b\n\n"), (200, "data: [DONE]\n\n")]


async def test_an_answer_in_one_piece_is_json():
    usage = {"prompt_tokens": 1, "total_tokens": 2, "completion_tokens": 1}
    choice = {"index": 0, "text": "naïve 🦜", "finish_reason": "stop"}
    found = await pieces(CompletionResponse(id="c", model="m", choices=[choice], usage=usage))
    assert [status for status, _ in found] == [200]
    document = json.loads(found[0][1])
    assert (document["id"], document["choices"][0]["text"], document["object"]) == ("c", "naïve 🦜", "text_completion")


@pytest.mark.parametrize("kind", [ErrorResponse, VllmErrorResponse])
@pytest.mark.parametrize("listed", [True, False])
async def test_an_error_has_its_own_status_whichever_class_it_is_of(kind, listed):
    problem = kind(error=ErrorInfo(message="too long", type="BadRequestError", code=400).model_dump())
    found = await pieces([problem] if listed else problem)
    assert [status for status, _ in found] == [400]
    assert json.loads(found[0][1])["error"]["message"] == "too long"


async def test_an_error_after_the_first_event_comes_after_it():
    problem = ErrorResponse(error={"message": "no", "type": "x", "code": 503})
    assert [status for status, _ in await pieces(["data: a\n\n"], [problem])] == [200, 503]


async def test_nothing_is_nothing_and_what_is_raised_is_raised():
    assert await pieces() == []
    with pytest.raises(KeyError, match="a mistake"):
        await pieces("data: a\n\n", KeyError("a mistake"))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_replica_asks_its_server_and_passes_the_pieces_on(endpoint):
    model, headers = replica("data: a\n\n", "data: [DONE]\n\n"), {"x-request-id": "7"}
    found = await collect(model.openai(endpoint, GOOD[endpoint], headers, time.time() + 60))
    assert found == [(200, "data: a\n\n"), (200, "data: [DONE]\n\n")]
    assert [(request.model, passed_on) for request, passed_on in model.asked] == [("m", headers)]


async def test_a_replica_does_not_begin_what_is_wrong_or_late():
    model = replica()
    with pytest.raises(DeadlineExceededError):
        await collect(model.openai(CHAT, GOOD[CHAT], {}, time.time() - 1))
    with pytest.raises(InvalidRequestError, match="messages: Field required"):
        await collect(model.openai(CHAT, {"model": "m"}, {}))
    assert model.asked == []


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (EngineDeadError(), UnavailableError, "the engine of 'm' died; try again"),
        (VLLMValidationError("too long"), InvalidRequestError, "too long"),
        (RuntimeError("internals"), ModelError, "model 'm' failed: RuntimeError; the log says more"),
        (QueueOverflowError(), UnavailableError, "busy"),
        (HTTPException(404, "no adapter_config.json in s3://bucket/x"), NotFoundError, "adapter"),
    ],
)  # fmt: skip
async def test_what_the_server_raises_is_said_in_our_terms(problem, kind, message, begun):
    model = replica(problem) if begun else replica(begin=problem)
    with pytest.raises(kind) as caught:
        await collect(model.openai(CHAT, GOOD[CHAT], {}))
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert "s3://" not in caught.value.message


async def test_a_reader_that_leaves_ends_the_servers_work():
    closed = []
    found = replica("data: a\n\n", "data: b\n\n", closed=closed).openai(CHAT, GOOD[CHAT], {})
    assert await anext(found) == (200, "data: a\n\n")
    await found.aclose()
    for _ in range(20):
        await asyncio.sleep(0)
    assert closed == [True]
