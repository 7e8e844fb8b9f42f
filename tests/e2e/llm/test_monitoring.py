"""Prometheus beside a service that has pictures and language models: every panel and alert asks for what is there."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.launch.monitor import MONITORING

pytestmark = pytest.mark.e2e
PICTURE = (PROJECT_ROOT / "docs" / "shapes.jpg").read_bytes()
BROKEN = PICTURE[:2000]  # its header is whole, so that only the model notices
COUNTERS = '{__name__=~"nv_inference_(request_success|count|exec_count|.*_duration_us)|ray_serve_app_.*_(total|count)"}'
TRACKS = ("nano", "nano_end2end", "nano_gpu_e2e", "nano_gpu_e2e_batch", "nano_gpu_e2e_streaming")
QUESTION = {"messages": [{"role": "user", "content": "What is serve_app?"}], "temperature": 0}
ANSWERED_WITHIN_S = 120
REPLACED_WITHIN_S = 300


class Prometheus:
    def __init__(self, url):
        self._client = httpx.Client(base_url=url, timeout=30)

    def ask(self, query, path="query", **more):
        """The result of a query; Grafana's variables are filled in as a dashboard does it."""
        for variable, value in {"$__rate_interval": "1m", "$model": ".*", "$deployment": ".*"}.items():
            query = query.replace(variable, value)
        answer = self._client.get(f"/api/v1/{path}", params={"query": query} | more)
        assert answer.status_code == 200, f"{query}: {answer.text}"
        return answer.json()["data"]["result"]

    def get(self, path):
        return self._client.get(f"/api/v1/{path}").json()["data"]


@pytest.fixture(scope="module")
def prometheus(languages, tmp_path_factory):
    """As `make monitor` starts it."""
    port = languages.free_port()
    folder = tmp_path_factory.mktemp("prometheus")
    command = [sys.executable, PROJECT_ROOT / "scripts" / "monitor", "--port", str(port), "--data", folder / "data"]
    log = folder / "log"
    with log.open("w") as output:
        monitor = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while "press Ctrl-C to stop" not in log.read_text():
            assert monitor.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"Prometheus saw no service: {log.read_text()}"
            time.sleep(0.3)
        yield Prometheus(f"http://localhost:{port}")
    finally:
        monitor.send_signal(signal.SIGINT)
        assert monitor.wait(30) == 0


def traffic(service, stop):
    """Of every kind until it is told to stop: answered, refused, broken, left."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        while not stop.is_set():
            for track in TRACKS:
                client.post(f"/predict/{track}", content=PICTURE)
            client.post("/predict/nano_gpu_e2e_batch", content=BROKEN)
            client.post("/v2/models/nobody/infer", json={"inputs": []})
            client.post("/v1/chat/completions", json=QUESTION | {"model": "demo-llm"})
            prompt = {"text_input": "What is a replica?", "temperature": 0, "max_tokens": 40}
            client.post("/v2/models/demo-llm/generate", json=prompt)
            leave(client)


def pictures_done(service):
    (row,) = httpx.get(f"{service.url}/v2/models/yolo_nano/stats", timeout=30).json()["model_stats"]
    return row["inference_count"]


def leave(client):
    long = QUESTION | {"model": "demo-llm", "stream": True, "max_tokens": 900, "ignore_eos": True}
    with client.stream("POST", "/v1/chat/completions", json=long) as answer:
        next(answer.iter_lines())


@pytest.fixture(scope="module")
def watched(prometheus, languages, wait_for):
    """Prometheus after some time of traffic, in the middle of which the replica that serves pictures was killed."""
    stop = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        under_way = [pool.submit(traffic, languages, stop) for _ in range(2)]
        try:
            time.sleep(20)
            (killed,) = languages.replicas("vision")
            before = pictures_done(languages)
            many = pool.submit(
                httpx.post, f"{languages.url}/predict/nano", files=[("images", PICTURE)] * 100, timeout=300
            )
            wait_for(lambda: pictures_done(languages) >= before + 10, 120, "the replica works at them")
            os.kill(killed, signal.SIGKILL)  # while a request is in its hands, which is then tried again
            wait_for(
                lambda: languages.is_healthy() and languages.replicas("vision") not in ([], [killed]),
                REPLACED_WITHIN_S,
                "another replica serves pictures",
            )
            time.sleep(20)
            # with traffic going on, until the last series has come by way of Ray's agent
            deadline = time.monotonic() + ANSWERED_WITHIN_S
            while time.monotonic() < deadline and any(not has_data(prometheus, query) for _, query in PANELS):
                time.sleep(2)
        finally:
            stop.set()
        for one in under_way:
            one.result()
        assert many.result().status_code == 200
    return prometheus


def panels(*stems):
    for stem in stems:
        path = MONITORING / "grafana" / "dashboards" / f"{stem}.json"
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{stem}: {panel['title']}: {target['legendFormat']}", target["expr"]


PANELS = list(panels("overview", "detection", "languages", "autoscaling"))
WITHOUT_GPU = list(panels("gpu"))


def has_data(prometheus, query):
    return any(math.isfinite(float(series["value"][1])) for series in prometheus.ask(query))


def test_every_dashboard_is_asked():
    stems = {path.stem for path in (MONITORING / "grafana" / "dashboards").glob("*.json")}
    assert stems == {"overview", "detection", "languages", "autoscaling", "gpu"}


@pytest.mark.parametrize(("title", "query"), PANELS, ids=[re.sub(r"\W+", "-", title) for title, _ in PANELS])
def test_every_panel_has_data(watched, title, query):
    assert has_data(watched, query), f"{title} is empty: {query}"


@pytest.mark.parametrize(("title", "query"), WITHOUT_GPU, ids=[re.sub(r"\W+", "-", title) for title, _ in WITHOUT_GPU])
def test_panels_of_a_gpu_are_valid_and_empty_here(watched, title, query):
    assert watched.ask(query) == [], f"{title}: this machine has no GPU"


def test_every_alert_is_evaluated(watched):
    rules = [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]
    wanted = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in wanted]
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    for rule in wanted:
        watched.ask(rule["expr"])


def test_what_alerts_compare_is_there(watched):
    """An alert whose metric has another name would be silent for ever."""
    names = {
        name
        for rule in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
        for name in re.findall(r"\bray_\w+", rule["expr"])
    }
    assert len(names) > 8
    assert [name for name in names if not watched.ask(name)] == []


def test_a_replaced_replica_makes_no_counter_fall_and_no_rate_negative(watched):
    names = [series["metric"]["__name__"] for series in watched.ask(f"group by (__name__) ({COUNTERS})")]
    assert {"nv_inference_count", "ray_serve_app_requests_total", "ray_serve_app_batches_total"} <= set(names)
    assert [name for name in names if watched.ask(f"resets({name}[15m]) > 0")] == []
    replicas = watched.ask('count by (replica) (count_over_time(nv_inference_count{model="yolo_nano"}[15m]))')
    assert len(replicas) == 2, "the replica that was killed, and the one in its place"
    now = time.time()
    query = "sum by (model) (rate(nv_inference_request_success[30s]))"
    rates = watched.ask(query, "query_range", start=now - 300, end=now, step=5)
    values = [float(value) for series in rates for _, value in series["values"]]
    assert max(values) > 0
    assert min(values) >= 0


def test_the_metrics_of_every_node_are_at_one_path_with_tritons_own_names(watched, languages):
    answer = httpx.get(f"{languages.url}/metrics", timeout=30)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    (line, *_) = [
        line
        for line in answer.text.splitlines()
        if line.startswith("nv_inference_request_success{") and 'model="yolo_nano"' in line
    ]
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
    assert (labels["deployment"], labels["model"], labels["version"]) == ("vision", "yolo_nano", "1")
    assert labels["replica"]
    assert labels["NodeAddress"]
    for family in ("ray_serve_app_requests_total", "ray_vllm_generation_tokens_total", "ray_serve_num_http_requests"):
        assert f"\n{family}" in answer.text


def test_requests_are_told_apart_by_protocol_track_model_and_status(watched):
    seen = watched.ask("count by (protocol, track, model, status) (ray_serve_app_requests_total)")
    rows = {tuple(series["metric"].get(key, "") for key in ("protocol", "track", "model", "status")) for series in seen}
    assert {
        ("rest", "B", "yolo_nano", "200"),
        ("rest", "C", "yolo_nano_end2end", "200"),
        ("rest", "D3", "yolo_nano_gpu_e2e_batch", "422"),
        ("kserve-http", "", "demo-llm", "200"),
        ("kserve-http", "", "", "404"),
        ("openai", "", "demo-llm", "200"),
        ("openai", "", "demo-llm", "499"),
    } <= rows
    reasons = {series["metric"]["reason"] for series in watched.ask("ray_serve_app_rejected_total")}
    assert {"not_found", "unreadable_image"} <= reasons
