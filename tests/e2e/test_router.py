"""What several routers and replicas must hold together: control that reaches all, second tries, ends in time."""

import asyncio
import gzip
import json
import time

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

IDENTITY = {"inputs": [{"name": "IN0", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}
# A key of a sequence on a model without sequences does nothing but choose the replica.
SAME_REPLICA = {"sequence_id": 31}


def slow(seconds):
    given = {"name": "SECONDS", "shape": [1, 1], "datatype": "FP32", "data": [seconds]}
    return {"inputs": [given], "parameters": SAME_REPLICA}


def place(client):
    """The running number that the model gives to the next request."""
    answer = client.post("/v2/models/slow/infer", json=slow(0))
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"][0]


def states(url):
    return {row["name"]: row.get("state") for row in httpx.post(f"{url}/v2/repository/index").json()}


def test_a_load_through_one_router_is_seen_through_each(service, wait_for):
    first, second = service.router_urls()
    assert httpx.post(f"{first}/v2/repository/models/chain/unload").status_code == 200
    wait_for(lambda: states(second)["chain"] == "UNAVAILABLE", 20, "the other router sees it unloaded")
    assert httpx.get(f"{second}/v2/models/chain/ready").status_code == 400
    assert httpx.post(f"{second}/v2/repository/models/chain/load").status_code == 200
    for url in (first, second):
        assert states(url)["chain"] == "READY"
        assert all(httpx.get(f"{url}/v2/models/chain/ready").status_code == 200 for _ in range(6))


def test_a_load_is_refused_with_tritons_words_where_control_is_off(client):
    answer = client.post("/v2/repository/models/yolo/load")
    assert answer.status_code == 403
    assert "explicit model load / unload is not allowed" in answer.json()["error"]


def test_a_client_that_goes_away_frees_the_model(client, service):
    endless = {"COUNT": [1_000_000, 0.01]}
    for _ in range(2):
        with client.stream("POST", "/v2/models/decoupled/generate_stream", json=endless) as answer:
            assert next(answer.iter_lines()).startswith("data: ")
    for _ in range(6):  # both replicas
        short = client.post("/v2/models/decoupled/generate", json={"COUNT": [1, 0]}, timeout=20)
        assert short.json()["NUMBER"] == 0


def test_work_that_nobody_waits_for_any_more_is_not_done(client, service):
    """Past HAProxy, which doesn't always see that its client has gone while it waits for an answer."""
    number = place(client)

    async def leave_one_in_the_queue():
        async with httpx.AsyncClient(base_url=service.router_urls()[0], timeout=60) as many:
            running = asyncio.create_task(many.post("/v2/models/slow/infer", json=slow(3)))
            await asyncio.sleep(0.4)
            # Triton hands its model the next request before it is done with one: that can't be taken back any more.
            second = asyncio.create_task(many.post("/v2/models/slow/infer", json=slow(0)))
            await asyncio.sleep(0.4)
            with pytest.raises(httpx.ReadTimeout):
                await many.post("/v2/models/slow/infer", json=slow(0), timeout=0.5)
            late = await many.post("/v2/models/slow/infer", json=slow(0), headers={"X-Request-Timeout-S": "0.3"})
            assert late.status_code == 504
            assert "deadline" in late.json()["error"]
            return [answer.status_code for answer in await asyncio.gather(running, second)]

    assert asyncio.run(leave_one_in_the_queue()) == [200, 200]
    assert place(client) == number + 3  # the slow one, its second, and this one


def test_a_grpc_deadline_ends_the_work_too(client, service, wait_for):
    number = place(client)
    given = grpcclient.InferInput("SECONDS", [1, 1], "FP32")
    given.set_data_from_numpy(np.array([[3]], np.float32))
    answered = []
    quick = grpcclient.InferInput("SECONDS", [1, 1], "FP32")
    quick.set_data_from_numpy(np.array([[0]], np.float32))
    with grpcclient.InferenceServerClient(service.grpc_host) as one:
        for waiting in (given, quick):  # one runs, and one can't be taken back any more
            one.async_infer("slow", [waiting], lambda result, error: answered.append(error), sequence_id=31)
            time.sleep(0.4)
        with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
            one.infer("slow", [quick], client_timeout=0.5, sequence_id=31)
        wait_for(lambda: len(answered) == 2, 20, "the others are done")
    assert answered == [None, None]
    assert place(client) == number + 3


def test_a_message_over_the_limit_is_refused_over_grpc(service):
    given = grpcclient.InferInput("IN0", [17 << 20], "FP32")
    given.set_data_from_numpy(np.zeros(17 << 20, np.float32))
    with grpcclient.InferenceServerClient(service.grpc_host) as one:
        with pytest.raises(InferenceServerException, match="larger than max") as raised:
            one.infer("identity", [given])
        assert raised.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert one.is_server_live()


def test_a_body_over_the_limit_is_refused_before_and_after_inflation(client):
    answer = client.post("/v2/models/identity/infer", content=bytes(65 << 20))
    assert answer.status_code == 413
    bomb = gzip.compress(bytes(65 << 20))
    answer = client.post("/v2/models/identity/infer", content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert "inflated" in answer.json()["error"]


def test_forty_megabytes_pass_both_ways(client):
    data = np.arange(10 << 20, dtype=np.float32)
    head = json.dumps(
        {"inputs": [{"name": "IN0", "shape": [data.size], "datatype": "FP32",
                     "parameters": {"binary_data_size": data.nbytes}}], "parameters": {"binary_data_output": True}}
    ).encode()  # fmt: skip
    answer = client.post(
        "/v2/models/identity/infer", content=head + data.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )  # fmt: skip
    assert answer.status_code == 200
    assert answer.content.endswith(data.tobytes())
