"""Many streams at once, callers who leave, deadlines, and more requests than there is room for."""

import asyncio
import json
import threading
from collections import Counter

import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from serve_app.clients import ask

pytestmark = pytest.mark.e2e
STREAMS = 64
CHAT = "/v1/chat/completions"
NOTICED_WITHIN_S = 20
LONG = {"temperature": 1, "max_tokens": 900, "ignore_eos": True, "n": 16}  # many times longer than anybody waits


def chat(model="demo-llm", **options):
    return {"model": model, "messages": [{"role": "user", "content": "What is a replica?"}]} | options


async def read_side_by_side(languages, pairs):
    """Texts and what they should be, and the most streams of each model that were under way at once."""
    reading, at_once = Counter(), []  # streams of each model that have begun and not ended, at every piece

    async with openai.AsyncOpenAI(base_url=f"{languages.url}/v1", api_key="none", timeout=600) as client:

        async def read(number):
            model, pair = ("demo-llm", "second-llm")[number % 2], pairs[number % len(pairs)]
            messages = [{"role": "user", "content": pair.question}]
            stream = await client.chat.completions.create(model=model, messages=messages, temperature=0, stream=True)
            text = ""
            async for chunk in stream:
                assert chunk.model == model
                if piece := chunk.choices[0].delta.content:
                    reading[model] += not text
                    at_once.append(min(reading["demo-llm"], reading["second-llm"]))
                    text += piece
            reading[model] -= 1
            return text, pair.answer

        return await asyncio.gather(*(read(number) for number in range(STREAMS))), max(at_once)


async def test_64_streams_over_two_models_are_whole_and_in_order_side_by_side(languages, pairs):
    for _ in range(3):  # a reader that gets no processor for a while finds whole answers, as if they came one by one
        results, at_once = await read_side_by_side(languages, pairs)
        assert [text for text, _ in results] == [answer for _, answer in results]
        if at_once > 1:
            return
    pytest.fail("several streams of both models must have been under way at once")


def failures(languages):
    row = httpx.get(f"{languages.url}/v2/models/demo-llm/stats", timeout=30).json()["model_stats"][0]
    return row["inference_stats"]["fail"]["count"]


def leave_stream(languages, path, document):
    with (
        httpx.Client(base_url=languages.url, timeout=60) as client,
        client.stream("POST", path, json=document) as answer,
    ):
        for number, line in enumerate(answer.iter_lines()):
            if number > 6 and line:
                return  # closes the connection


def leave_before_the_answer(languages, path, document):
    """Past HAProxy, which doesn't always see that its client has gone while it waits for an answer."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{languages.router_urls()[0]}{path}", json=document, timeout=1.5)


def leave_grpc_stream(languages, _path, _document):
    came, client = threading.Event(), grpcclient.InferenceServerClient(languages.grpc_host)
    client.start_stream(lambda result, error: came.set())
    client.async_stream_infer("demo-llm", long_inputs(stream=True))
    assert came.wait(30)
    client.stop_stream(cancel_requests=True)
    client.close()


def long_inputs(stream):
    text = grpcclient.InferInput("text_input", [1], "BYTES")
    flag = grpcclient.InferInput("stream", [1], "BOOL")
    parameters = grpcclient.InferInput("sampling_parameters", [1], "BYTES")
    for given, value in ((text, b"What"), (flag, stream), (parameters, json.dumps(LONG).encode())):
        given.set_data_from_numpy(np.array([value], bool if value in (True, False) else object))
    return [text, flag, parameters]


GENERATE = "/v2/models/demo-llm/generate"


@pytest.mark.parametrize(
    ("leave", "path", "document"),
    [
        (leave_stream, CHAT, chat(stream=True, **LONG)),
        (leave_stream, "/v1/completions", {"model": "demo-llm", "prompt": "What", "stream": True} | LONG),
        (leave_stream, f"{GENERATE}_stream", {"text_input": "What", "stream": True} | LONG),
        (leave_before_the_answer, CHAT, chat(**LONG)),
        (leave_before_the_answer, GENERATE, {"text_input": "What"} | LONG),
        (leave_grpc_stream, "ModelStreamInfer", None),
    ],
    ids=["chat stream", "completion stream", "generate_stream", "chat", "generate", "ModelStreamInfer"],
)
def test_who_leaves_ends_the_work(languages, wait_for, leave, path, document):
    before = failures(languages)
    leave(languages, path, document)
    wait_for(lambda: failures(languages) == before + 1, NOTICED_WITHIN_S, "the sequence is counted as cancelled")


def test_a_deadline_ends_the_work_and_is_said(languages, wait_for):
    before = failures(languages)
    with httpx.Client(base_url=languages.url, timeout=60, headers={"X-Request-Timeout-S": "5"}) as client:
        answer = client.post(CHAT, json=chat(**LONG))
        assert answer.status_code == 504
        assert "deadline" in answer.json()["error"]["message"]
        lines = [line for line in client.post(CHAT, json=chat(stream=True, **LONG)).text.split("\n\n") if line]
    *events, error, last = [line.removeprefix("data: ") for line in lines]
    assert len(events) > 10
    assert json.loads(error)["error"]["code"] == 504
    assert last == "[DONE]"
    client = grpcclient.InferenceServerClient(languages.grpc_host)
    with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
        client.infer("demo-llm", long_inputs(stream=False), client_timeout=5)
    client.close()
    wait_for(lambda: failures(languages) == before + 3, NOTICED_WITHIN_S, "all three are counted as cancelled")


async def test_more_than_there_is_room_for_is_refused_at_once_and_the_rest_is_answered(languages, pairs):
    async with httpx.AsyncClient(base_url=languages.url, timeout=100) as client:
        document = chat("second-llm", temperature=0, max_tokens=200, ignore_eos=True)
        answers = await asyncio.gather(*(client.post(CHAT, json=document) for _ in range(160)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 and answer.json()["error"]["message"] for answer in refused)
    assert len(answers) - len(refused) >= 32
    texts = {answer.json()["choices"][0]["message"]["content"] for answer in answers if answer.status_code == 200}
    assert len(texts) == 1


def test_a_program_asks_and_reads_the_trained_answers(languages, pairs):
    answers = ask([pair.question for pair in pairs[:4]], url=languages.grpc_host, temperature=0, max_tokens=200)
    for answer, pair in zip(answers, pairs, strict=False):
        assert answer.error is None
        assert answer.text.endswith(pair.answer)
        assert 0 < answer.to_first_s <= answer.to_last_s
