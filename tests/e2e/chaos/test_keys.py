"""Limits of keys under load over two routers: a minute of requests and of tokens, and the loss of their counter."""

import asyncio
import os
import signal
import time

import httpx
import openai
import pytest

from serve_app.keys.headers import key_headers
from tests.e2e.guarded import KEYS, write_guarded_config
from tests.e2e.service import SHAPES, language_model, wait_until

WITHIN = 0.05


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, module_start):
    folder = tmp_path_factory.mktemp("keys")
    config = write_guarded_config(folder, [language_model("demo-llm", 1)])
    with module_start(config, folder / "serve.log").up() as run:
        run.wait_until_ready(r"ready in .*: .*demo-llm")
        yield run


def client_of(service, name):
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=f"sa-{name}", max_retries=0)


def counted_tokens(service, name):
    text = httpx.get(f"{service.url}/metrics", headers=key_headers("sa-all")).text
    lines = [line for line in text.splitlines() if "serve_app_tokens" in line and f'key="{name}"' in line]
    return sum(float(line.split()[-1]) for line in lines)


def most_in_a_minute(events):
    """Of amounts with their times, in any minute that begins with one of them."""
    return max(sum(amount for at, amount in events if 0 <= at - start < 60) for start, _ in events)


def test_openais_client_brings_its_usual_key_and_its_tokens_are_counted(guarded):
    question = {"model": "demo-llm", "messages": [{"role": "user", "content": "What is vLLM?"}], "max_tokens": 8}
    client = client_of(guarded, "chat")
    whole = client.chat.completions.create(**question)
    chunks = list(client.chat.completions.create(**question, stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == whole.choices[0].message.content
    assert not any(one.usage for one in chunks)
    chunks = list(client.chat.completions.create(**question, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage == whole.usage
    expected = 3 * whole.usage.total_tokens
    wait_until(lambda: counted_tokens(guarded, "chat") == expected, 30, f"the metric says {expected} tokens")


async def ask_for(seconds, url, headers, rate, admitted, refused):
    """Open loop over both routers."""
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:

        async def ask():
            at = time.monotonic()
            answer = await client.post("/predict/nano", content=SHAPES.read_bytes())
            if answer.status_code == 200:
                admitted.append((at, 1))
            else:
                assert answer.status_code == 429
                refused.append(time.monotonic() - at)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(int(seconds * rate)):
                tasks.create_task(ask())
                await asyncio.sleep(1 / rate)


@pytest.mark.parametrize("kill", [False, True], ids=["steady", "counter-killed"])
def test_a_limit_of_requests_holds_over_routers_to_five_percent(guarded, kill):
    name = "many-too" if kill else "many"
    limit, admitted, refused = KEYS[name]["requests_per_minute"], [], []
    loop = asyncio.new_event_loop()

    async def run():
        load = asyncio.create_task(ask_for(80, guarded.url, key_headers(f"sa-{name}"), 9, admitted, refused))
        if kill:
            await asyncio.sleep(20)
            os.kill(guarded.replicas("keys")[0], signal.SIGKILL)
        await load

    loop.run_until_complete(run())
    loop.close()
    most = most_in_a_minute(admitted)
    print(f"limit {limit}: at most {most} in a minute, {len(refused)} refused, slowest {max(refused) * 1e3:.0f} ms")
    assert limit * (1 - WITHIN) <= most <= limit * (1 + WITHIN)


def test_a_limit_of_tokens_holds_to_five_percent(guarded):
    limit, used, refused, ends = KEYS["tokens"]["tokens_per_minute"], [], [], time.monotonic() + 80
    client = client_of(guarded, "tokens")
    while time.monotonic() < ends:
        try:
            answer = client.completions.create(
                model="demo-llm", prompt="a b c d", max_tokens=32, extra_body={"ignore_eos": True}
            )
            used.append((time.monotonic(), answer.usage.total_tokens))
        except openai.RateLimitError as problem:
            refused.append((problem.message, problem.response.headers.get("x-ratelimit-limit-tokens")))
            time.sleep(0.2)
    assert all("tokens a minute" in message and header == str(limit) for message, header in refused)
    most = most_in_a_minute(used)
    print(f"limit {limit}: at most {most} tokens in a minute, {len(refused)} refused")
    assert limit * (1 - WITHIN) <= most <= limit * (1 + WITHIN)
