"""`scripts/bench ratio`: rounds, ratios, goals and their report; and baselines that start, end and fail."""

import io
import json
import math
import signal
import sys
from itertools import product
from pathlib import Path

import cv2
import psutil
import pytest
import yaml
from rich.console import Console

from serve_app.errors import UnavailableError
from serve_app.settings import PROJECT_ROOT, application_of, read_config, settings_of
from serve_app.tools.bench.baselines.openvino_loop import Loop
from serve_app.tools.bench.baselines.processes import answers, free_port, running
from serve_app.tools.bench.baselines.service import build_in_precision, is_up
from serve_app.tools.bench.ratio.autoscaling import LoadStep, Sample
from serve_app.tools.bench.ratio.cli import parse
from serve_app.tools.bench.ratio.comparisons import COMPARISONS
from serve_app.tools.bench.ratio.report import as_rows, draw, show
from serve_app.tools.bench.ratio.rounds import Goal, Measurement, Result, Side, run_rounds
from serve_app.tools.bench.ratio.service_only import Footprint
from serve_app.types import Thresholds


def result(service, baseline, remarks=()):
    service, baseline = ([Measurement({"images/s": one}, remarks) for one in side] for side in (service, baseline))
    return Result(service, baseline)


def test_the_first_side_alternates_and_each_round_gives_a_ratio():
    lines, measured, fast, slow = [], [], iter([10.0, 30.0, 12.0]), iter([5.0, 10.0, 4.0])

    def side(name, values):
        def measure():
            measured.append(name)
            return Measurement({"images/s": next(values)})

        return Side(name, measure)

    found = run_rounds([side("service", fast), side("baseline", slow)], 3, lines.append)
    assert measured == ["service", "baseline", "baseline", "service", "service", "baseline"]
    assert (found.values("images/s"), found.median("images/s")) == ([2.0, 3.0, 3.0], 3.0)
    assert lines[0] == "round 1 of 3: service"
    assert run_rounds([Side("alone", lambda: Measurement({"s": 4.0}))], 2, print).values("s") == [4.0, 4.0]
    assert math.isnan(result([1, 2], [1, 0]).median("images/s")), "a round without a number reaches no goal"


def test_a_goal_is_reached_at_its_bound():
    for goal, reached, missed, text in (
        (Goal("x", 0.9), 0.9, 0.89, "≥ 0.9"),
        (Goal("x", 1.05, is_maximum=True), 1.05, 1.06, "≤ 1.05"),
    ):
        assert (goal.is_reached(reached), goal.is_reached(missed), str(goal)) == (True, False, text)


def test_the_report_has_median_ratios_spreads_goals_and_remarks(tmp_path):
    written = io.StringIO()
    results = {"P1": result([9, 20, 8], [10, 10, 10]), "P2": result([3], [1], ("2 × 503",))}
    show(results, Console(file=written, width=160))
    first, second = (line.split() for line in written.getvalue().splitlines()[1:3])
    assert first == ["P1", "images/s", "9", "10", "0.90", "0.80", "to", "2.00", "≥", "0.95", "missed"]
    assert second[-1] == "missed"
    assert "P1: D3 over HTTP, pictures in, JSON out ÷ the bare loop" in written.getvalue()
    assert "P2: 2 × 503" in written.getvalue()
    (one,) = as_rows({"P1": result([9, 20], [10, 10])})
    assert (one["ours"], one["theirs"], one["ratios"], one["median"]) == ([9, 20], [10, 10], [0.9, 2.0], 1.45)
    assert (one["goal"], one["reached"]) == ("≥ 0.95", True)
    draw(results, tmp_path / "deep" / "ratios.png")
    picture = cv2.imread(str(tmp_path / "deep" / "ratios.png"))
    assert len({tuple(color) for color in picture.reshape(-1, 3)[::50]}) > 5


def test_an_unknown_comparison_is_refused_with_those_there_are(capsys):
    assert parse([]).names == list(COMPARISONS) == [f"P{number}" for number in range(1, 10)]
    with pytest.raises(SystemExit) as ended:
        parse(["P10"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no comparison 'P10'; available: P1, P2, P3, P4, P5, P6, P7, P8, P9\n"


def test_the_service_is_started_with_valid_configurations():
    for serves, says_router in product({one.serves for one in COMPARISONS.values()} - {None}, (True, False)):
        config = read_config(PROJECT_ROOT / "configs" / "serve.yaml")
        if not says_router:
            del config["applications"][0]["args"]["router"]
            config["applications"][0]["deployments"].append({"name": "vision"})
        serves(config)
        settings = settings_of(config)
        application = application_of(config)
        deployments = {one["name"] for one in application["deployments"]} - {"router", "baseline"}
        assert deployments == {triton.name for triton in settings.separate}, serves
        assert bool(settings.llms) == (serves.__name__ == "serve_language_models")


def test_engines_are_built_in_another_precision_beside_those_of_the_configuration(tmp_path):
    config = read_config(PROJECT_ROOT / "configs" / "serve.yaml")
    detection = config["applications"][0]["args"]["detection"]
    detection |= {"image_size": 64, "models": {"nano": {"weights": "demo"}}}
    source = tmp_path / "small.yaml"
    source.write_text(yaml.safe_dump(config))
    written = build_in_precision(source, "bf16", lambda line: None, tmp_path / "built")
    settings = settings_of(read_config(written)).detection
    assert settings.models["nano"].precision == "bf16"
    card = settings.model_repository / "yolo_nano_engine_batch" / "1" / "model.json"
    assert json.loads(card.read_text())["precision"] == "bf16"
    assert settings.model_repository.is_relative_to(tmp_path)


SERVER = """
import http.server, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_free_port_is_outside_the_ranges_of_the_kernel_ray_and_serve():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(50)}
    assert len(ports) > 40
    assert max(ports) < min(lowest, 30000)  # Serve's replicas begin at 30000
    assert min(ports) > 19999  # Ray's workers end there


def test_a_baseline_ends_with_its_children_also_if_the_parent_ignores_interrupts():
    for handler in (signal.default_int_handler, signal.SIG_IGN):
        before = signal.signal(signal.SIGINT, handler)
        try:
            port = free_port()
            command = [sys.executable, "-c", SERVER, str(port)]
            with running("test-server", command, lambda port=port: answers(f"http://127.0.0.1:{port}")) as pid:
                family = [psutil.Process(pid), *psutil.Process(pid).children()]
                assert len(family) == 2
                assert Footprint.of(pid, settle_s=0).threads >= 2
        finally:
            signal.signal(signal.SIGINT, before)
        _, left = psutil.wait_procs(family, timeout=5)
        assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


def test_a_baseline_that_does_not_start_is_reported_with_its_last_lines():
    message = r"(?s)^test-broken did not start; .*test-broken\.log ends with:\n.*no such"
    with (
        pytest.raises(UnavailableError, match=message),
        running("test-broken", [sys.executable, "-c", "raise SystemExit('no such thing')"], lambda: False),
    ):
        pass


def test_the_bare_loop_finds_the_drawn_shapes():
    engine = PROJECT_ROOT / "model_repository" / "cpu" / "yolo_nano_engine_batch" / "1"
    loop = Loop(engine, ("a",) * 80, 640, Thresholds())
    assert loop.run([(PROJECT_ROOT / "docs" / "shapes.jpg").read_bytes()], 0.2) > 0
    assert len(loop.detections[0]) == 6


def test_a_load_step_counts_failures_and_the_time_until_replicas_were_requested():
    samples = [Sample(9.0, 0, 0, 0.0, 1, 1), Sample(14.5, 9, 3, 400.0, 3, 1)]
    step = LoadStep(sent=4, statuses=[200, 200, 503], samples=samples)
    assert (step.failed, step.asked_after_s) == (2, 4.5)


def test_the_service_is_up_by_its_log_and_not_by_a_port_in_use(tmp_path):
    log = tmp_path / "log"
    log.write_text("error: port 8265 (Ray's dashboard): address already in use; is another run of this service up?\n")
    assert not is_up(log)
    log.write_text("waiting for vision\nready in 44.0 s: http://localhost:8000\n")
    assert is_up(log)
