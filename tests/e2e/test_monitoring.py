"""Prometheus beside the service: every panel and alert asks for what is there."""

import json
import re
import threading
import time

import httpx
import pytest
import yaml

from serve_app.tools.launch.monitor import MONITORING
from tests.e2e.service import SHAPES

pytestmark = pytest.mark.usefixtures("languages")
PICTURE = SHAPES.read_bytes()
BROKEN = PICTURE[:2000]  # its header is whole, so that only the model notices
COUNTERS = '{__name__=~"nv_inference_(request_success|count|exec_count|.*_duration_us)|ray_serve_app_.*_(total|count)"}'
TRACKS = ("nano", "nano_end2end", "nano_gpu_e2e", "nano_gpu_e2e_batch", "nano_gpu_e2e_streaming")
QUESTION = {"messages": [{"role": "user", "content": "What is serve_app?"}], "temperature": 0}
ANSWERED_WITHIN_S = 120


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


def leave(client):
    long = QUESTION | {"model": "demo-llm", "stream": True, "max_tokens": 900, "ignore_eos": True}
    with client.stream("POST", "/v1/chat/completions", json=long) as answer:
        next(answer.iter_lines())


@pytest.fixture(scope="module")
def watched(prometheus, service):
    """Prometheus once traffic has given every panel its data; panels of retries have theirs from test_faults.py."""
    stop = threading.Event()
    under_way = threading.Thread(target=traffic, args=(service, stop))
    under_way.start()
    # with traffic going on, until the last series has come by way of Ray's agent
    deadline = time.monotonic() + ANSWERED_WITHIN_S
    try:
        while time.monotonic() < deadline and any(not prometheus.has_data(query) for _, query in PANELS):
            time.sleep(2)
    finally:
        stop.set()
        under_way.join()
    return prometheus


def panels(*stems):
    for stem in stems:
        path = MONITORING / "grafana" / "dashboards" / f"{stem}.json"
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{stem}: {panel['title']}: {target['legendFormat']}", target["expr"]


PANELS = list(panels("overview", "detection", "languages", "autoscaling"))
WITHOUT_GPU = list(panels("gpu"))


def test_every_panel_has_data_but_those_of_a_gpu_which_are_valid(watched):
    assert [title for title, query in PANELS if not watched.has_data(query)] == [], "these panels are empty"
    assert [title for title, query in WITHOUT_GPU if watched.ask(query) != []] == [], "this machine has no GPU"
    stems = {path.stem for path in (MONITORING / "grafana" / "dashboards").glob("*.json")}
    assert stems == {"overview", "detection", "languages", "autoscaling", "gpu"}


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
    assert len(replicas) >= 2, "replicas that were killed, and those in their place"
    now = time.time()
    query = "sum by (model) (rate(nv_inference_request_success[30s]))"
    rates = watched.ask(query, "query_range", start=now - 300, end=now, step=5)
    values = [float(value) for series in rates for _, value in series["values"]]
    assert max(values) > 0
    assert min(values) >= 0


def test_the_metrics_of_every_node_are_at_one_path_with_tritons_own_names(watched, service):
    answer = httpx.get(f"{service.url}/metrics", timeout=30)
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
