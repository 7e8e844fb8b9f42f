"""OpenAI's own client, synchronous and not, against the demo language model's trained answers."""

import asyncio
import json

import openai
import pytest
from tokenizers import Tokenizer

from tests.e2e.service import DEMO_LLM

YES_OR_NO = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}},
    "required": ["yes"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "decide", "parameters": YES_OR_NO}}


def ask(question, model="demo-llm", **options):
    return {"model": model, "temperature": 0, "messages": [{"role": "user", "content": question}]} | options


def test_it_answers_word_for_word(api, pairs):
    for pair in pairs[:5]:
        choice = api.chat.completions.create(**ask(pair.question)).choices[0]
        assert (choice.message.content, choice.finish_reason) == (pair.answer, "stop")


def test_it_streams_word_for_word_token_by_token(api, pairs):
    chunks = list(
        api.chat.completions.create(**ask(pairs[0].question), stream=True, stream_options={"include_usage": True})
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == pairs[0].answer
    assert len(pieces) > 20
    assert chunks[-1].usage.completion_tokens >= len(pieces)
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"


async def test_the_asynchronous_client_gets_the_same_from_both_models(service, pairs):
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as client:

        async def streamed(model):
            stream = await client.chat.completions.create(**ask(pairs[1].question, model), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        async def whole(model):
            answer = await client.chat.completions.create(**ask(pairs[1].question, model))
            return answer.choices[0].message.content

        models = ("demo-llm", "second-llm")
        answers = await asyncio.gather(*(kind(model) for kind in (streamed, whole) for model in models))
    assert answers == [pairs[1].answer] * 4


def test_completions_answer_several_prompts_and_echo_them(api, pairs):
    questions = [pair.question for pair in pairs[:3]]
    answer = api.completions.create(model="demo-llm", prompt=questions, temperature=0, max_tokens=200, echo=True)
    assert [choice.text for choice in answer.choices] == [f"{pair.question}\n{pair.answer}" for pair in pairs[:3]]
    assert answer.usage.prompt_tokens > 0


def test_choices_stops_seeds_and_log_probabilities(api, pairs):
    question = pairs[0].question
    several = api.chat.completions.create(**ask(question, n=3, temperature=1.5, seed=5)).choices
    again = api.chat.completions.create(**ask(question, n=3, temperature=1.5, seed=5)).choices
    assert [one.message.content for one in several] == [one.message.content for one in again]
    assert [one.index for one in several] == [0, 1, 2]
    word = pairs[0].answer.split()[4]
    stopped = api.chat.completions.create(**ask(question, stop=[word])).choices[0].message.content
    assert stopped == pairs[0].answer.partition(word)[0]
    choice = api.chat.completions.create(**ask(question, logprobs=True, top_logprobs=2, max_tokens=3)).choices[0]
    assert [len(token.top_logprobs) for token in choice.logprobs.content] == [2, 2, 2]
    assert choice.finish_reason == "length"


@pytest.fixture(scope="module")
def without_spaces():
    """So small a model, made to write JSON, would write little else."""
    tokenizer = Tokenizer.from_file(str(DEMO_LLM / "tokenizer.json"))
    blank = [token for token in range(tokenizer.get_vocab_size()) if not tokenizer.decode([token]).strip()]
    return {str(token): -100 for token in blank}


def test_an_answer_takes_the_shape_that_was_asked_for(api, pairs, without_spaces):
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": YES_OR_NO}}
    answer = api.chat.completions.create(**ask(pairs[0].question, response_format=shape, logit_bias=without_spaces))
    assert set(json.loads(answer.choices[0].message.content)) == {"yes"}
    digits = api.chat.completions.create(
        **ask(pairs[0].question), extra_body={"structured_outputs": {"regex": "[0-9]{3}"}}
    )
    assert digits.choices[0].message.content.isdigit()


def test_a_tool_is_called_where_it_must_be(api, pairs, without_spaces):
    once = {"stop": ["</tool_call>"], "extra_body": {"include_stop_str_in_output": True}}
    for choice in ("required", {"type": "function", "function": {"name": "decide"}}):
        asked = ask(pairs[0].question, "second-llm", tools=[TOOL], tool_choice=choice, logit_bias=without_spaces)
        answer = api.chat.completions.create(**asked, **once)
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "decide"
        assert set(json.loads(call.function.arguments)) == {"yes"}


def test_an_adapter_is_a_model_of_its_own(api, pairs):
    cards = {card.id: card for card in api.models.list()}
    assert set(cards) == {"demo-llm", "second-llm", "embedder", "nowhere", "muddled"}
    assert cards["muddled"].parent == "second-llm"
    assert api.models.retrieve("muddled").root == "second-llm"
    answer = api.chat.completions.create(**ask(pairs[0].question, "muddled", max_tokens=20)).choices[0].message.content
    assert answer
    assert not pairs[0].answer.startswith(answer)


REFUSED = [
    ({"model": "gpt"}, 404, "The model `gpt` does not exist; available: demo-llm, second-llm"),
    ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "maximum context length is 1024 tokens"),
    ({"messages": []}, 400, "at least one message"),
    ({"max_tokens": -1}, 400, "max_tokens must be at least 1, got -1"),
    ({"max_tokens": 100_000}, 400, "cannot be greater than max_model_len"),
    ({"n": 10**9}, 400, "prompts times n must be at most 64, got 1000000000"),
    ({"temperature": -1}, 400, "temperature"),
    ({"temprature": 1}, 400, "unknown field 'temprature'; did you mean 'temperature'?"),
    ({"structured_outputs": {"regex": "(["}}, 400, "unclosed character class"),
    ({"structured_outputs": {"grammar": "root ::= ("}}, 400, "Invalid grammar specification"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "zz"}}}}, 400, "zz"),
    ({"tools": [TOOL]}, 400, "tool choice requires"),
    ({"logprobs": True, "top_logprobs": 10**6}, 400, "greater than max allowed: 20"),
]


def test_requests_that_are_wrong_are_refused_with_the_reason_and_others_are_answered(client, pairs):
    for change, status, message in REFUSED:
        for stream in (False, True):
            answer = client.post("/v1/chat/completions", json=ask(pairs[0].question, stream=stream) | change)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, status), f"{change}: {answer.text}"
            assert message in answer.json()["error"]["message"], change
    empty = client.post("/v1/completions", json={"model": "demo-llm", "prompt": ""})
    assert empty.status_code == 400
    assert "must be provided and non-empty" in empty.json()["error"]["message"]
    good = client.post("/v1/chat/completions", json=ask(pairs[0].question)).json()
    assert good["choices"][0]["message"]["content"] == pairs[0].answer


def test_vllms_other_paths_do_not_exist_outside(client):
    paths = ["/v1/load_lora_adapter", "/tokenize", "/v1/responses", "/v1/rerank"]
    assert {path: client.post(path, json={}).status_code for path in paths} == dict.fromkeys(paths, 404)
