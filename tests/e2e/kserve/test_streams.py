"""Many requests at once: asynchronous calls, bidirectional streams, generate, and bodies without JSON."""

import json
import threading

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as httpclient

pytestmark = pytest.mark.e2e


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


class Stream:
    """A stream of the threaded client: what came under each id, in order."""

    def __init__(self, service):
        self.client = grpcclient.InferenceServerClient(service.grpc_host)
        self.came, self.errors, self.finals = {}, [], set()
        self._changed = threading.Condition()
        self.client.start_stream(self._receive)

    def _receive(self, result, error):
        with self._changed:
            if error is not None:
                self.errors.append(error)
            else:
                response = result.get_response()
                self.came.setdefault(response.id, []).append(result)
                if response.parameters["triton_final_response"].bool_param:
                    self.finals.add(response.id)
            self._changed.notify()

    def wait_for(self, condition):
        with self._changed:
            assert self._changed.wait_for(condition, timeout=60)

    def close(self):
        self.client.stop_stream()
        self.client.close()


@pytest.fixture
def stream(service):
    one = Stream(service)
    yield one
    one.close()


def test_requests_of_one_stream_are_answered_each_under_its_id(stream):
    counts = {"a": 5, "b": 3, "c": 0}
    for name, count in counts.items():
        stream.client.async_stream_infer(
            "decoupled", numbers(count, 0.02), request_id=name, enable_empty_final_response=True
        )
    stream.wait_for(lambda: stream.finals == set(counts))
    for name, count in counts.items():
        *answers, last = stream.came[name]
        assert [answer.as_numpy("NUMBER").item() for answer in answers] == list(range(count))
        assert last.as_numpy("NUMBER") is None


def test_an_error_in_a_stream_is_that_requests_error(stream):
    stream.client.async_stream_infer("nope", numbers(1), request_id="bad")
    stream.client.async_stream_infer("decoupled", numbers(2), request_id="good")
    stream.wait_for(lambda: stream.errors and len(stream.came.get("good", [])) == 2)
    assert "unknown model: 'nope'" in str(stream.errors[0])


def test_a_sequence_in_a_stream_keeps_its_order(stream):
    for position in range(20):
        given = grpcclient.InferInput("VALUE", [1, 1], "FP32")
        given.set_data_from_numpy(np.array([[position]], np.float32))
        stream.client.async_stream_infer(
            "accumulate", [given], request_id=str(position), sequence_id=4242,
            sequence_start=position == 0, sequence_end=position == 19,
        )  # fmt: skip
    stream.wait_for(lambda: len(stream.came) == 20)
    sums = [stream.came[str(position)][0].as_numpy("SUM").item() for position in range(20)]
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


def test_generate_and_generate_stream(service):
    import httpx

    with httpx.Client(base_url=service.url, timeout=60) as client:
        answer = client.post("/v2/models/identity/generate", json={"IN0": [1, 2.5], "id": "g"})
        assert answer.json() == {"OUT0": [1.0, 2.5], "id": "g", "model_name": "identity", "model_version": "1"}
        streamed = client.post("/v2/models/decoupled/generate_stream", json={"COUNT": [3, 0]})
        assert streamed.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line]
        assert [event["NUMBER"] for event in events] == [0, 1, 2]
        refused = client.post("/v2/models/decoupled/generate", json={"COUNT": [3, 0]})
        assert refused.status_code == 400
        assert "exactly 1 response" in refused.json()["error"]


def test_a_raw_binary_request_is_the_input_itself(service):
    import httpx

    body = np.arange(6, dtype=np.float32).tobytes()
    answer = httpx.post(
        f"{service.url}/v2/models/identity/infer", content=body, headers={"Inference-Header-Content-Length": "0"}
    )
    assert answer.status_code == 200
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [6]
    assert answer.content[length:] == body


def test_a_file_in_a_load_over_http_comes_in_base64(service):
    import httpx

    bad = {"parameters": {"config": "{}", "file:1/model.py": "%%%"}}
    answer = httpx.post(f"{service.url}/v2/repository/models/x/load", json=bad)
    assert answer.status_code == 400
    assert "no base64" in answer.json()["error"]
