"""Two routers that host pictures and ask for API keys, as stock clients meet them: their own start, as others don't."""

import asyncio
import os
import signal
import time

import httpx
import numpy as np
import openai
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.http.auth import BasicAuth
from tritonclient.utils import InferenceServerException

from serve_app.clients import KserveDetector, RestDetector
from serve_app.errors import ForbiddenError, TooManyRequestsError, UnauthorizedError
from serve_app.keys.headers import key_headers
from tests.e2e.guarded import KEYS, write_guarded_config, write_keys
from tests.e2e.service import SHAPES, wait_until
from tests.e2e.test_tracks import TRACKS, pictures, reference  # noqa: F401
from tests.e2e.test_tracks import test_a_track_is_as_good_as_ultralytics as require_fidelity
from tests.e2e.test_tracks import test_many_pictures_are_answered_each_and_a_bad_one_fails_alone as require_answers

MODEL = "yolo_nano_gpu_e2e"
RATE_OF_FEW = KEYS["few"]["requests_per_minute"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, module_start):
    folder = tmp_path_factory.mktemp("keys")
    with module_start(write_guarded_config(folder), folder / "serve.log").up() as run:
        run.keys = folder / "keys.yaml"
        yield run


@pytest.fixture
def client(guarded):
    with httpx.Client(base_url=guarded.url, headers=key_headers("sa-all"), timeout=60) as one:
        yield one


@pytest.mark.parametrize("track", [track for track in TRACKS if track != "A"])
def test_pictures_that_take_one_hop_are_answered_as_all_others(track, client, pictures, reference, compare, capsys):  # noqa: F811
    require_fidelity(track, client, pictures, reference, compare, capsys)
    require_answers(track, client, pictures, compare)


def tensor(module):
    picture = np.frombuffer(SHAPES.read_bytes(), np.uint8)[None]
    made = module.InferInput("encoded", picture.shape, "UINT8")
    made.set_data_from_numpy(picture)
    return [made]


def infer(service, protocol, headers):
    """With the client of a protocol; its name is that of the client's module."""
    if protocol == "http":
        with triton_http.InferenceServerClient(service.host) as client:
            return client.infer(MODEL, tensor(triton_http), headers=headers)
    if protocol == "grpc":
        with triton_grpc.InferenceServerClient(service.grpc_host) as client:
            return client.infer(MODEL, tensor(triton_grpc), headers=headers)
    module, host = (triton_http_aio, service.host) if protocol == "http.aio" else (triton_grpc_aio, service.grpc_host)

    async def ask():
        async with module.InferenceServerClient(host) as client:
            return await client.infer(
                MODEL, tensor(triton_http if "http" in protocol else triton_grpc), headers=headers
            )

    return asyncio.run(ask())


def status_of(problem):
    return str(problem.status()).removeprefix("StatusCode.")


@pytest.mark.parametrize("protocol", ["http", "grpc", "http.aio", "grpc.aio"])
def test_triton_clients_bring_their_key_as_a_header(guarded, protocol):
    for headers in (key_headers("sa-vision"), {"x-api-key": "sa-vision"}, key_headers("sa-all")):
        assert infer(guarded, protocol, headers).as_numpy("num_dets")[0, 0] == 6
    for headers, http, grpc in (
        (None, "401", "UNAUTHENTICATED"),
        (key_headers("sa-wrong"), "401", "UNAUTHENTICATED"),
        (key_headers("sa-chat"), "403", "PERMISSION_DENIED"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            infer(guarded, protocol, headers)
        assert status_of(refused.value) == (grpc if "grpc" in protocol else http)


def test_tritons_own_way_to_log_in_works(guarded):
    with triton_http.InferenceServerClient(guarded.host) as client:
        client.register_plugin(BasicAuth("anyone", "sa-vision"))
        assert client.is_model_ready(MODEL)
        assert client.infer(MODEL, tensor(triton_http)).as_numpy("num_dets")[0, 0] == 6


def test_openais_client_is_refused_as_it_expects(guarded):
    question = {"model": "x", "messages": [{"role": "user", "content": "What is vLLM?"}]}
    for key, error in {"sa-wrong": openai.AuthenticationError, "sa-vision": openai.PermissionDeniedError}.items():
        client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0)
        for stream in (False, True):
            with pytest.raises(error):
                client.chat.completions.create(**question, stream=stream)


def test_our_own_clients_bring_their_key(guarded):
    for key, error in {"sa-vision": None, "": UnauthorizedError, "sa-chat": ForbiddenError}.items():
        for build in (
            lambda key: RestDetector(guarded.url, key=key),
            lambda key: KserveDetector(guarded.host, MODEL, key=key),
            lambda key: KserveDetector(guarded.grpc_host, MODEL, "grpc", key=key),
        ):
            if error is None:
                with build(key) as detector:
                    assert len(detector.detect(SHAPES.read_bytes()).detections) == 6
            else:
                with pytest.raises(error):
                    build(key).detect(SHAPES.read_bytes())


def test_probes_need_no_key_and_everything_else_does(guarded):
    with httpx.Client(base_url=guarded.url) as client:
        for path in ("/health", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        document = client.get("/openapi.json", headers=key_headers("sa-vision")).json()
        for path, methods in document["paths"].items():
            for method in methods:
                if path not in ("/health", "/v2/health/live", "/v2/health/ready") and method != "parameters":
                    answer = client.request(method, path.replace("{", "").replace("}", ""))
                    assert answer.status_code == 401, (method, path)


def test_only_http_and_grpc_listen_beyond_this_machine(guarded):
    assert guarded.open_ports() == {guarded.port, int(guarded.grpc_host.partition(":")[2])}


def test_admin_paths_are_closed_to_a_key_of_inference(guarded):
    with httpx.Client(base_url=guarded.url) as client:
        for path in ("/v2/repository/models/yolo_nano/load", "/v2/repository/models/yolo_nano/unload", "/warmup"):
            assert client.post(path, headers=key_headers("sa-vision")).status_code == 403
        assert client.get("/metrics", headers=key_headers("sa-vision")).status_code == 403
        load = client.post("/v2/repository/models/yolo_nano/load", headers=key_headers("sa-all"), timeout=60)
        assert load.status_code == 200
    refused = pytest.raises(InferenceServerException, match="the scope 'admin', which key")
    with triton_grpc.InferenceServerClient(guarded.grpc_host) as client, refused:
        client.load_model("yolo_nano", headers=key_headers("sa-vision"))


def test_a_revoked_key_is_refused_within_five_seconds_and_others_never(guarded):
    with httpx.Client(base_url=guarded.url) as client:
        assert client.get("/tracks", headers=key_headers("sa-leaving")).status_code == 200
        write_keys(guarded.keys, [name for name in KEYS if name != "leaving"])
        ends, statuses = time.monotonic() + 5, []
        while time.monotonic() < ends:
            statuses.append(client.get("/tracks", headers=key_headers("sa-leaving")).status_code)
            assert client.get("/tracks", headers=key_headers("sa-vision")).status_code == 200
        assert statuses[-20:] == [401] * 20


def test_a_limit_holds_over_routers_and_transports_and_survives_the_counter(guarded):
    headers, codes, waits = key_headers("sa-few"), [], []
    for _ in range(RATE_OF_FEW // 3):
        for url in guarded.router_urls():
            answer = httpx.post(f"{url}/predict/nano", headers=headers, content=SHAPES.read_bytes(), timeout=60)
            codes.append(answer.status_code)
            assert answer.headers["x-ratelimit-limit-requests"] == str(RATE_OF_FEW)
    (counter,) = guarded.replicas("keys")
    os.kill(counter, signal.SIGKILL)
    for _ in range(RATE_OF_FEW):
        answer = httpx.post(f"{guarded.url}/predict/nano", headers=headers, content=SHAPES.read_bytes(), timeout=60)
        codes.append(answer.status_code)
        if answer.status_code == 429:
            waits.append(int(answer.headers["retry-after"]))
    assert set(codes) == {200, 429}
    assert all(1 <= wait <= 61 for wait in waits)
    wait_until(lambda: [one for one in guarded.replicas("keys") if one != counter], 60, "a new counter")
    wait_until(lambda: guarded.is_healthy("keys"), 60, "a healthy counter")
    time.sleep(2)  # routers tell it what they granted
    with RestDetector(guarded.url, key="sa-few") as detector, pytest.raises(TooManyRequestsError):
        detector.detect(SHAPES.read_bytes())
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="sa-few", max_retries=0)
    with pytest.raises(openai.RateLimitError, match="over its limit of 12 requests a minute"):
        client.completions.create(model="x", prompt="a")
    with pytest.raises(InferenceServerException, match="over its limit"):
        infer(guarded, "grpc", headers)
    # without the counter each router goes on by what it heard last, and passes what is left by that
    assert RATE_OF_FEW - 1 <= codes.count(200) <= RATE_OF_FEW + RATE_OF_FEW // 2


def ready_on_each_router(service, model):
    answers = [
        httpx.get(f"{url}/v2/models/{model}/ready", headers=key_headers("sa-all")) for url in service.router_urls()
    ]
    return [answer.status_code == 200 for answer in answers]


def test_a_load_or_unload_reaches_every_router(guarded, client):
    for action, ready in (("unload", False), ("load", True)):
        assert client.post(f"/v2/repository/models/yolo_nano/{action}").status_code == 200
        assert ready_on_each_router(guarded, "yolo_nano") == [ready, ready]


def test_statistics_are_those_of_all_routers(guarded, client):
    def count():
        (row,) = client.get("/v2/models/yolo_nano/stats").json()["model_stats"]
        return row["inference_stats"]["success"]["count"]

    before = count()
    for url in guarded.router_urls():
        answer = httpx.post(
            f"{url}/predict/nano", content=SHAPES.read_bytes(), headers=key_headers("sa-all"), timeout=60
        )
        assert answer.status_code == 200
    assert count() == before + 2


def test_what_a_router_has_lost_another_answers_and_it_is_replaced(guarded, client):
    routers = guarded.replicas("router")
    (stub,) = [
        one for one in psutil.Process(routers[0]).children(True) if "yolo_nano_end2end/" in " ".join(one.cmdline())
    ]
    stub.kill()
    answers = [client.post("/predict/nano_end2end", content=SHAPES.read_bytes()) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 8
    wait_until(lambda: routers[0] not in guarded.replicas("router"), 60, "the router without its process has ended")
    wait_until(
        lambda: len(guarded.replicas("router")) == 2 and guarded.is_healthy("router"), 90, "another is in its place"
    )
    assert client.post("/predict/nano_end2end", content=SHAPES.read_bytes()).status_code == 200


def test_a_killed_router_leaves_nothing_and_is_replaced(guarded, client):
    victim, _ = guarded.replicas("router")
    stubs = psutil.Process(victim).children(True)
    assert len(stubs) >= 7
    os.kill(victim, signal.SIGKILL)
    _, alive = psutil.wait_procs(stubs, timeout=10)
    assert alive == []
    assert client.post("/predict/nano", content=SHAPES.read_bytes()).status_code == 200
    wait_until(lambda: len(set(guarded.replicas("router")) - {victim}) == 2, 60, "another is in its place")
