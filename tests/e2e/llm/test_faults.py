"""An engine that dies takes nothing else with it."""

import json
import re
import threading

import httpx
import psutil
import pytest

from serve_app.settings import PROJECT_ROOT

pytestmark = pytest.mark.e2e
BACK_WITHIN_S = 900  # a minute and a half on an idle machine
LONG = {"max_tokens": 900, "ignore_eos": True}


def chat(question="What is a replica?", **options):
    messages = [{"role": "user", "content": question}]
    return {"model": "demo-llm", "messages": messages} | options


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("nowhere", r"model 'nowhere' can't be loaded: .*huggingface"),
        ("cramped", r"model 'cramped' can't be loaded: .*memory for the cache blocks"),
    ],
)
def test_what_keeps_a_model_from_waking_stands_in_rays_status_and_keeps_no_other(
    languages, pairs, wait_for, model, reason
):
    def ask():
        answer = httpx.post(f"{languages.url}/v1/chat/completions", json=chat() | {"model": model}, timeout=60)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        return answer.json()["error"]["message"]

    said = [ask()]
    wait_for(lambda: said.append(ask()) or said[-1] != said[0], BACK_WITHIN_S, "Serve gives up")
    assert said[0] == f"'{model}' was not up within 5 s; try again later"
    assert said[-1] == "the deployment could not be started; see its status in the Ray dashboard"
    assert re.search(reason, languages.message_of(model))
    good = httpx.post(f"{languages.url}/v1/chat/completions", json=chat(pairs[0].question, temperature=0), timeout=60)
    assert good.json()["choices"][0]["message"]["content"] == pairs[0].answer


def engine_of(languages):
    (replica,) = languages.replicas("demo-llm")
    (engine,) = [child for child in psutil.Process(replica).children() if "EngineCore" in " ".join(child.cmdline())]
    return engine


class Detecting(threading.Thread):
    """Sends a picture again and again until it is stopped, and keeps what came back."""

    def __init__(self, languages):
        super().__init__()
        self.statuses, self.stopped = [], threading.Event()
        self._url = f"{languages.url}/predict/nano"

    def run(self):
        picture = (PROJECT_ROOT / "docs" / "shapes.jpg").read_bytes()
        with httpx.Client(timeout=60) as client:
            while not self.stopped.wait(0.5):
                self.statuses.append(client.post(self._url, content=picture).status_code)


def test_an_engine_that_is_killed_ends_its_stream_with_an_error_and_is_replaced(languages, pairs, wait_for):
    (before,) = languages.replicas("demo-llm")
    detecting = Detecting(languages)
    detecting.start()
    try:
        with httpx.Client(base_url=languages.url, timeout=BACK_WITHIN_S) as client:
            lines = []
            with client.stream("POST", "/v1/chat/completions", json=chat(stream=True, **LONG)) as answer:
                for line in answer.iter_lines():
                    lines.append(line)
                    if len(lines) == 20:
                        engine_of(languages).kill()
            *_, error, last = [line.removeprefix("data: ") for line in lines if line]
            assert "error" in json.loads(error)
            assert last == "[DONE]"
            again = client.post("/v1/chat/completions", json=chat(**LONG))
            assert again.status_code in (200, 503), again.text

            def answers_again():
                answer = client.post("/v1/chat/completions", json=chat(pairs[0].question, temperature=0))
                if answer.status_code == 200:
                    return answer.json()["choices"][0]["message"]["content"] == pairs[0].answer
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"]
                return False

            wait_for(answers_again, BACK_WITHIN_S, "the model answers again")
    finally:
        detecting.stopped.set()
        detecting.join()
    assert languages.replicas("demo-llm") != [before]
    assert len(detecting.statuses) > 20
    assert set(detecting.statuses) == {200}
