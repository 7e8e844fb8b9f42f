"""Many streams at once, callers who leave, deadlines, and more requests than there is room for."""

import asyncio
import json
import threading

import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from serve_app.clients import ask

STREAMS = 24
CHAT = "/v1/chat/completions"
NOTICED_WITHIN_S = 20
DEADLINE_S = 2
LONG = {"temperature": 1, "max_tokens": 900, "ignore_eos": True, "n": 16}  # many times longer than anybody waits


def chat(model="demo-llm", **options):
    return {"model": model, "messages": [{"role": "user", "content": "What is a replica?"}]} | options


async def read_whole(client, model, question, **options):
    messages = [{"role": "user", "content": question}]
    stream = await client.chat.completions.create(model=model, messages=messages, stream=True, **options)
    text = ""
    async for chunk in stream:
        assert chunk.model == model
        text += chunk.choices[0].delta.content or ""
    return text


async def test_24_streams_over_two_models_are_whole_and_in_order_while_a_longer_one_of_each_goes_on(service, pairs):
    models = ("demo-llm", "second-llm")
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", timeout=600) as client:
        longer = {"temperature": 1, "max_tokens": 450, "n": 16, "extra_body": {"ignore_eos": True}}
        longest = [asyncio.create_task(read_whole(client, model, "What is a replica?", **longer)) for model in models]
        asked = [(models[number % 2], pairs[number % len(pairs)]) for number in range(STREAMS)]
        going_on = []

        async def answer(model, question):
            text = await read_whole(client, model, question, temperature=0)
            going_on.append(not any(task.done() for task in longest))
            return text

        texts = await asyncio.gather(*(answer(model, pair.question) for model, pair in asked))
        assert texts == [pair.answer for _, pair in asked]
        assert going_on[0], "none was answered before the longer ones had ended"
        for task in longest:
            task.cancel()


def failures(service):
    row = httpx.get(f"{service.url}/v2/models/demo-llm/stats", timeout=30).json()["model_stats"][0]
    return row["inference_stats"]["fail"]["count"]


def leave_stream(service, path, document):
    with (
        httpx.Client(base_url=service.url, timeout=60) as client,
        client.stream("POST", path, json=document) as answer,
    ):
        for number, line in enumerate(answer.iter_lines()):
            if number > 6 and line:
                return  # closes the connection


def leave_before_the_answer(service, path, document):
    """Past HAProxy, which doesn't always see that its client has gone while it waits for an answer."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{service.router_urls()[0]}{path}", json=document, timeout=1.5)


def leave_grpc_stream(service, _path, _document):
    came, client = threading.Event(), grpcclient.InferenceServerClient(service.grpc_host)
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


LEAVING = [
    (leave_stream, CHAT, chat(stream=True, **LONG)),
    (leave_stream, "/v1/completions", {"model": "demo-llm", "prompt": "What", "stream": True} | LONG),
    (leave_stream, f"{GENERATE}_stream", {"text_input": "What", "stream": True} | LONG),
    (leave_before_the_answer, CHAT, chat(**LONG)),
    (leave_before_the_answer, GENERATE, {"text_input": "What"} | LONG),
    (leave_grpc_stream, "ModelStreamInfer", None),
]


def test_a_client_that_leaves_ends_the_work(service, wait_for):
    for leave, path, document in LEAVING:
        before = failures(service)
        leave(service, path, document)
        wait_for(lambda before=before: failures(service) == before + 1, NOTICED_WITHIN_S, f"{path} is cancelled")


def test_a_deadline_ends_the_work_and_is_said(service, wait_for):
    before = failures(service)
    with httpx.Client(base_url=service.url, timeout=60, headers={"X-Request-Timeout-S": str(DEADLINE_S)}) as client:
        answer = client.post(CHAT, json=chat(**LONG))
        assert answer.status_code == 504
        assert "deadline" in answer.json()["error"]["message"]
        lines = [line for line in client.post(CHAT, json=chat(stream=True, **LONG)).text.split("\n\n") if line]
    *events, error, last = [line.removeprefix("data: ") for line in lines]
    assert events
    assert json.loads(error)["error"]["code"] == 504
    assert last == "[DONE]"
    client = grpcclient.InferenceServerClient(service.grpc_host)
    with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
        client.infer("demo-llm", long_inputs(stream=False), client_timeout=DEADLINE_S)
    client.close()
    wait_for(lambda: failures(service) == before + 3, NOTICED_WITHIN_S, "all three are counted as cancelled")


async def test_more_than_there_is_room_for_is_refused_at_once_and_the_rest_is_answered(service):
    async with httpx.AsyncClient(base_url=service.url, timeout=100) as client:
        document = chat("second-llm", temperature=0, max_tokens=100, ignore_eos=True)
        answers = await asyncio.gather(*(client.post(CHAT, json=document) for _ in range(60)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 and answer.json()["error"]["message"] for answer in refused)
    assert len(answers) - len(refused) >= 12
    texts = {answer.json()["choices"][0]["message"]["content"] for answer in answers if answer.status_code == 200}
    assert len(texts) == 1


def test_a_program_asks_and_reads_the_trained_answers(service, pairs):
    answers = ask([pair.question for pair in pairs[:4]], url=service.grpc_host, temperature=0, max_tokens=200)
    for answer, pair in zip(answers, pairs, strict=False):
        assert answer.error is None
        assert answer.text.endswith(pair.answer)
        assert 0 < answer.to_first_s <= answer.to_last_s
