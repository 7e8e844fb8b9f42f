"""Killed processes: nothing of them is left, their replicas come back, and requests that may be retried succeed."""

import asyncio
import json
import os
import re
import signal

import httpx
import psutil
import pytest

from serve_app.triton.embedded import guardian
from tests.e2e.service import SHAPES

pytestmark = pytest.mark.usefixtures("languages")
PICTURE = SHAPES.read_bytes()
BACK_WITHIN_S = 300
LONG = {"max_tokens": 900, "ignore_eos": True}


def regions_of(pid):
    return [name for name in os.listdir("/dev/shm") if f"_{pid}_" in name]


def stubs_of(pid):
    """Process ids of a replica's Python-backend stubs, and their command lines."""
    children = psutil.Process(pid).children()
    return {child.pid: line for child in children if "stub" in (line := " ".join(child.cmdline()))}


def gone(pid):
    return guardian.start_ticks(pid) is None


def inferences(client, model):
    (row,) = client.get(f"/v2/models/{model}/stats").json()["model_stats"]
    return row["inference_count"]


def chat(question="What is a replica?", **options):
    messages = [{"role": "user", "content": question}]
    return {"model": "demo-llm", "messages": messages} | options


def engine_of(replica):
    """Forked by a process that has imported vLLM, which is a child of the replica."""
    children = psutil.Process(replica).children(recursive=True)
    (engine,) = [child for child in children if "EngineCore" in " ".join(child.cmdline())]
    return engine


@pytest.fixture(scope="module")
def killed_engine(service):
    """The replica whose engine was killed in the middle of a stream, and the lines of the stream."""
    (replica,) = service.replicas("demo-llm")
    engine, lines = engine_of(replica), []
    with (
        httpx.Client(base_url=service.url, timeout=BACK_WITHIN_S) as client,
        client.stream("POST", "/v1/chat/completions", json=chat(stream=True, **LONG)) as answer,
    ):
        for line in answer.iter_lines():
            lines.append(line)
            if len(lines) == 20:
                engine.kill()
    return replica, [line.removeprefix("data: ") for line in lines if line]


def test_an_engine_that_is_killed_ends_its_stream_with_an_error_and_no_picture_fails(killed_engine, client):
    """Its replacement takes half a minute, in which the next tests kill what serves pictures."""
    *_, error, last = killed_engine[1]
    assert "error" in json.loads(error)
    assert last == "[DONE]"
    assert [client.post("/predict/nano", content=PICTURE).status_code for _ in range(50)] == [200] * 50


@pytest.mark.usefixtures("prometheus")  # whose counters must not fall
def test_a_killed_replica_leaves_nothing_and_what_it_worked_at_is_answered_by_another(
    service, client, wait_for, background
):
    (replica,) = service.replicas("vision")
    stubs = stubs_of(replica)
    assert len(stubs) >= 7
    assert len(regions_of(replica)) >= 7
    before = inferences(client, "yolo_nano")
    files = [("images", PICTURE)] * 100
    many = background.submit(httpx.post, f"{service.url}/predict/nano", files=files, timeout=BACK_WITHIN_S)
    wait_for(lambda: inferences(client, "yolo_nano") >= before + 10, 60, "the replica works at them")
    os.kill(replica, signal.SIGKILL)
    wait_for(lambda: all(gone(stub) for stub in stubs), 10, "every stub has ended")
    wait_for(lambda: regions_of(replica) == [], 10, "no shared memory is left")
    assert many.result().status_code == 200
    assert service.replicas("vision") != [replica]


def test_requests_for_a_model_whose_process_is_killed_are_answered_by_the_next_replica(service, client, wait_for):
    wait_for(lambda: service.is_healthy("vision"), 90, "the replica is up")
    (replica,) = service.replicas("vision")
    (stub,) = [pid for pid, line in stubs_of(replica).items() if "yolo_nano_end2end/" in line]
    os.kill(stub, signal.SIGKILL)
    answers = [client.post("/predict/nano_end2end", content=PICTURE, timeout=BACK_WITHIN_S) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert service.replicas("vision") != [replica]


def test_killing_a_replica_fails_no_request_and_its_successor_has_the_loaded_models(client, service, wait_for):
    def unloaded():
        return [client.get("/v2/models/parameters/ready").status_code for _ in range(12)] == [400] * 12

    assert client.post("/v2/repository/models/parameters/unload").status_code == 200
    victim, _ = service.replicas("laboratory")
    short = {"inputs": [{"name": "SECONDS", "shape": [1, 1], "datatype": "FP32", "data": [0.05]}]}

    async def one_hundred():
        limits = httpx.Limits(max_connections=6)  # the model has a queue of 8
        async with httpx.AsyncClient(base_url=service.url, timeout=120, limits=limits) as many:
            pending = [asyncio.create_task(many.post("/v2/models/slow/infer", json=short)) for _ in range(100)]
            await asyncio.sleep(1)
            os.kill(victim, signal.SIGKILL)
            return await asyncio.gather(*pending)

    answers = asyncio.run(one_hundred())
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    wait_for(lambda: len(set(service.replicas("laboratory")) - {victim}) == 2, 60, "another replica has started")
    wait_for(lambda: service.is_healthy("laboratory"), 90, "it is ready")
    assert unloaded()
    assert client.post("/v2/repository/models/parameters/load").status_code == 200
    wait_for(
        lambda: all(client.get("/v2/models/parameters/ready").status_code == 200 for _ in range(12)), 20, "it is loaded"
    )


def test_the_killed_engine_is_replaced_and_answers_again(killed_engine, client, service, pairs, wait_for):
    def answers_again():
        answer = client.post("/v1/chat/completions", json=chat(pairs[0].question, temperature=0))
        if answer.status_code == 200:
            return answer.json()["choices"][0]["message"]["content"] == pairs[0].answer
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"]
        return False

    wait_for(answers_again, BACK_WITHIN_S, "the model answers again")
    assert service.replicas("demo-llm") != [killed_engine[0]]


def test_why_a_model_can_not_start_stands_in_rays_status_and_other_models_answer(service, pairs, wait_for):
    def ask(model, **options):
        return httpx.post(f"{service.url}/v1/chat/completions", json=chat(**options) | {"model": model}, timeout=60)

    def message():
        answer = ask("nowhere")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        return answer.json()["error"]["message"]

    failed = "the deployment could not be started; see its status in the Ray dashboard"
    wait_for(lambda: message() == failed, BACK_WITHIN_S, "Serve gives up")
    assert re.search(r"model 'nowhere' can't be loaded: .*huggingface", service.status_of("nowhere")["message"])
    good = ask("demo-llm", question=pairs[0].question, temperature=0)
    assert good.json()["choices"][0]["message"]["content"] == pairs[0].answer
