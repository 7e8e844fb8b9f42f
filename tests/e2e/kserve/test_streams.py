"""Many requests at once: asynchronous calls, bidirectional streams, generate, and bodies without JSON."""

import threading

import httpx
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as httpclient


def test_asynchronous_inference_of_the_threaded_clients(service):
    http = httpclient.InferenceServerClient(service.host, concurrency=4)
    given = httpclient.InferInput("IN0", [4], "FP32")
    given.set_data_from_numpy(np.ones(4, np.float32))
    pending = [http.async_infer("identity", [given]) for _ in range(8)]
    assert all(request.get_result().as_numpy("OUT0").sum() == 4 for request in pending)
    http.close()
    grpc = grpcclient.InferenceServerClient(service.grpc_host)
    given = grpcclient.InferInput("IN0", [4], "FP32")
    given.set_data_from_numpy(np.ones(4, np.float32))
    done, answered = [], threading.Semaphore(0)

    def keep(result, error):
        done.append(error or result.as_numpy("OUT0").sum())
        answered.release()

    for _ in range(8):
        grpc.async_infer("identity", [given], keep)
    assert all(answered.acquire(timeout=30) for _ in range(8))
    assert done == [4] * 8
    grpc.close()


def numbers(count, pause_s=0.0):
    given = grpcclient.InferInput("COUNT", [2], "FP32")
    given.set_data_from_numpy(np.array([count, pause_s], np.float32))
    return [given]


def test_requests_of_one_stream_are_answered_each_under_its_id(stream):
    counts = {"a": 5, "b": 3, "c": 0}
    for name, count in counts.items():
        stream.send("decoupled", numbers(count, 0.02), request_id=name)
    answers, errors = stream.collect(3)
    assert errors == []
    for name, count in counts.items():
        assert [answer.as_numpy("NUMBER").item() for answer in answers[name]] == list(range(count))


def test_an_error_in_a_stream_is_that_requests_error(stream):
    stream.send("nope", numbers(1), request_id="bad")
    stream.send("decoupled", numbers(2), request_id="good")
    answers, errors = stream.collect(2)
    assert len(answers["good"]) == 2
    assert len(errors) == 1
    assert "unknown model: 'nope'" in errors[0]


def test_a_sequence_in_a_stream_keeps_its_order(stream):
    for position in range(20):
        given = grpcclient.InferInput("VALUE", [1, 1], "FP32")
        given.set_data_from_numpy(np.array([[position]], np.float32))
        stream.send(
            "accumulate", [given], request_id=str(position), sequence_id=4242,
            sequence_start=position == 0, sequence_end=position == 19,
        )  # fmt: skip
    answers, _ = stream.collect(20)
    sums = [answers[str(position)][0].as_numpy("SUM").item() for position in range(20)]
    assert sums == np.cumsum(range(20)).tolist()


async def test_the_asynchronous_client_streams_both_ways(service):
    async with grpc_aio.InferenceServerClient(service.grpc_host) as client:

        async def requests():
            for name in ("x", "y"):
                yield {"model_name": "decoupled", "inputs": numbers(3), "request_id": name}

        came = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            came.append((result.get_response().id, result.as_numpy("NUMBER").item()))
    assert sorted(came) == [(name, number) for name in ("x", "y") for number in range(3)]


def test_a_file_in_a_load_over_http_comes_in_base64(service):
    bad = {"parameters": {"config": "{}", "file:1/model.py": "%%%"}}
    answer = httpx.post(f"{service.url}/v2/repository/models/x/load", json=bad)
    assert answer.status_code == 400
    assert "is not valid base64" in answer.json()["error"]
