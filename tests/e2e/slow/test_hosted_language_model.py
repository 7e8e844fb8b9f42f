"""A language model in the routers' own process: answers as everywhere, and what becomes of it when its engine dies."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
import tritonclient.http as triton

from tests.e2e.service import command_line, language_model, wait_until, write_config

MODEL = "demo-llm"
STREAMS, TOKENS = 24, 48


@pytest.fixture(scope="module")
def hosted(tmp_path_factory, module_start):
    def change(config):
        (application,) = config["applications"]
        model = language_model(MODEL, 1)
        application["args"] |= {"triton": [], "baseline": None, "llms": [model], "router": {"hosts": MODEL}}
        application["deployments"] = [{"name": "router", "max_ongoing_requests": 512}]

    folder = tmp_path_factory.mktemp("hosted")
    with module_start(write_config(folder, change), folder / "serve.log").up() as run:
        yield run


def complete(service, stream=False, tokens=TOKENS):
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=120)
    question = {"model": MODEL, "prompt": "What is Ray?", "max_tokens": tokens, "temperature": 0}
    if not stream:
        return client.completions.create(**question).choices[0].text
    chunks = client.completions.create(**question, stream=True, stream_options={"include_usage": True})
    return "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def test_one_process_answers_what_two_answer_elsewhere(hosted):
    whole = complete(hosted)
    assert whole
    assert complete(hosted, stream=True) == whole
    assert httpx.get(f"{hosted.url}/health").json()["deployments"] == {MODEL: True}
    (listed,) = httpx.get(f"{hosted.url}/v1/models").json()["data"]
    assert listed["id"] == MODEL
    prompt = triton.InferInput("text_input", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([b"What is Ray?"], np.object_))
    with triton.InferenceServerClient(hosted.host) as client:
        parameters = {"max_tokens": TOKENS, "temperature": 0.0}
        answer = client.infer(MODEL, [prompt], parameters=parameters).as_numpy("text_output")
    assert answer[0].decode().endswith(whole)
    refused = httpx.post(f"{hosted.url}/v1/completions", json={"model": MODEL, "prompt": "x", "nonsense": 1})
    assert (refused.status_code, "nonsense" in refused.json()["error"]["message"]) == (400, True)
    assert hosted.replicas(MODEL) == [], "it has no process of its own"


def test_many_streams_at_once_are_all_whole(hosted):
    expected = complete(hosted)
    with ThreadPoolExecutor(STREAMS) as pool:
        answers = list(pool.map(lambda _: complete(hosted, stream=True), range(STREAMS)))
    assert answers == [expected] * STREAMS


def test_a_router_whose_engine_is_killed_is_replaced(hosted):
    engines = [pid for pid in hosted.processes() if command_line(pid).startswith(b"VLLM::EngineCore")]
    assert engines
    for pid in engines:
        os.kill(pid, signal.SIGKILL)

    def answers():
        try:
            return httpx.get(f"{hosted.url}/health", timeout=5).is_success and complete(hosted, tokens=4)
        except (httpx.HTTPError, openai.APIError, json.JSONDecodeError):
            return False

    wait_until(answers, 180, "a router with another engine answers")
