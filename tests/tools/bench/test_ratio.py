"""Ratios: turns taken in turn, pairs divided, spreads and goals told; and peers that start, end and fail in words."""

import io
import json
import signal
import sys
from pathlib import Path

import cv2
import psutil
import pytest
from rich.console import Console

from serve_app.errors import ServeAppError, UnavailableError
from serve_app.settings import PROJECT_ROOT, read_config, settings_of
from serve_app.tools.bench.baselines.openvino_loop import Loop
from serve_app.tools.bench.baselines.processes import answers, free_port, running
from serve_app.tools.bench.baselines.service import is_up
from serve_app.tools.bench.ratio.autoscaling import Course, Sample
from serve_app.tools.bench.ratio.cli import parse
from serve_app.tools.bench.ratio.comparisons import COMPARISONS
from serve_app.tools.bench.ratio.report import as_json, draw, show
from serve_app.tools.bench.ratio.rounds import Contender, Goal, Measured, Result, contest
from serve_app.tools.bench.ratio.sides import require_equal
from serve_app.tools.bench.ratio.soak import Footprint
from serve_app.types import Thresholds


def result(ours, theirs, remarks=()):
    def turns(values):
        return [Measured({"images/s": value}, remarks) for value in values]

    return Result(turns(ours), turns(theirs))


def test_who_begins_changes_from_round_to_round_and_each_round_is_a_pair():
    said, asked, fast, slow = [], [], iter([10.0, 30.0, 12.0]), iter([5.0, 10.0, 4.0])

    def contender(name, values):
        def turn():
            asked.append(name)
            return Measured({"images/s": next(values)})

        return Contender(name, turn)

    found = contest([contender("ours", fast), contender("theirs", slow)], 3, said.append)
    assert asked == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert found.values("images/s") == [2.0, 3.0, 3.0]
    assert found.median("images/s") == 3.0
    assert said[0] == "round 1 of 3: ours"


def test_without_a_peer_the_number_itself_counts():
    assert contest([Contender("alone", lambda: Measured({"s": 4.0}))], 2, print).values("s") == [4.0, 4.0]


@pytest.mark.parametrize(
    ("goal", "reached", "missed", "text"),
    [(Goal("x", 0.9), 0.9, 0.89, "≥ 0.9"), (Goal("x", 1.05, is_most=True), 1.05, 1.06, "≤ 1.05")],
)
def test_a_goal_is_reached_at_its_bound(goal, reached, missed, text):
    assert goal.is_reached(reached)
    assert not goal.is_reached(missed)
    assert str(goal) == text


def test_the_table_gives_the_median_ratio_its_spread_and_whether_that_is_the_goal():
    written = io.StringIO()
    results = {"P1": result([9, 20, 8], [10, 10, 10]), "P2": result([3], [1], ("2 × 503",))}
    show(results, Console(file=written, width=160))
    first, second = (line.split() for line in written.getvalue().splitlines()[1:3])
    assert first == ["P1", "images/s", "9.0", "10.0", "0.90", "0.80", "to", "2.00", "≥", "0.9", "reached"]
    assert second[-1] == "missed"
    assert "P1: D3 over HTTP, pictures in, JSON out ÷ the bare loop" in written.getvalue()
    assert "P2: 2 × 503" in written.getvalue()


def test_the_json_has_every_turn_and_the_chart_every_ratio(tmp_path):
    results = {"P1": result([9, 20], [10, 10])}
    (one,) = json.loads(as_json(results, ["scripts/bench", "ratio"]))["compared"]
    assert (one["ours"], one["theirs"], one["ratios"], one["median"]) == ([9, 20], [10, 10], [0.9, 2.0], 1.45)
    assert (one["goal"], one["reached"]) == ("≥ 0.9", True)
    draw(results, tmp_path / "deep" / "ratios.png")
    picture = cv2.imread(str(tmp_path / "deep" / "ratios.png"))
    assert len({tuple(color) for color in picture.reshape(-1, 3)[::50]}) > 5


def test_every_comparison_is_listed_and_an_unknown_one_refused(capsys):
    assert parse([]).names == list(COMPARISONS) == [f"P{number}" for number in range(1, 9)]
    with pytest.raises(SystemExit) as ended:
        parse(["P9"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no comparison 'P9'; there is: P1, P2, P3, P4, P5, P6, P7, P8\n"


# sorted: two processes that share the tests must collect them in one order
SERVED = sorted({one.serves for one in COMPARISONS.values()} - {None}, key=lambda one: one.__name__)


@pytest.mark.parametrize("serves", SERVED, ids=lambda one: one.__name__)
def test_what_the_service_is_started_with_is_a_valid_configuration(serves):
    config = read_config(PROJECT_ROOT / "configs" / "serve.yaml")
    serves(config)
    settings = settings_of(config)
    (application,) = config["applications"]
    named = {one["name"] for one in application["deployments"]} - {"router", "baseline"}
    assert named == {triton.name for triton in settings.triton}
    assert bool(settings.llms) == (serves.__name__ == "languages_only")


def test_different_answers_are_not_compared():
    box = {"x1": 0.1, "y1": 0.1, "x2": 0.5, "y2": 0.5, "confidence": 0.9, "class": 1, "class_name": "star"}
    require_equal([box], [dict(box)], "the peer")
    with pytest.raises(ServeAppError, match=r"^the peer sees otherwise than the service: 0 detections instead of 1$"):
        require_equal([box], [], "the peer")


SERVER = """
import http.server, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_free_port_is_none_that_the_kernel_gives_to_an_outgoing_connection_before_the_server_binds_it():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(50)}
    assert len(ports) > 40
    assert max(ports) < min(lowest, 30000)  # from 30000 on are Serve's replicas
    assert min(ports) > 19999  # below are Ray's workers


def test_a_peer_is_up_when_it_answers_and_leaves_nothing_behind():
    port = free_port()
    with running(
        "test-server", [sys.executable, "-c", SERVER, str(port)], lambda: answers(f"http://127.0.0.1:{port}")
    ) as pid:
        family = [psutil.Process(pid), *psutil.Process(pid).children()]
        assert len(family) == 2
        assert Footprint.of(pid).threads >= 2
    _, left = psutil.wait_procs(family, timeout=5)
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


def test_a_peer_ends_when_it_is_asked_to_where_a_shell_has_interrupts_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        test_a_peer_is_up_when_it_answers_and_leaves_nothing_behind()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_peer_that_ends_before_it_answers_is_told_with_its_last_lines():
    with (
        pytest.raises(
            UnavailableError, match=r"(?s)^test-broken did not start; .*test-broken\.log ends with:\n.*no such"
        ),
        running("test-broken", [sys.executable, "-c", "raise SystemExit('no such thing')"], lambda: False),
    ):
        pass


def test_the_bare_loop_finds_what_is_drawn():
    loop = Loop(
        PROJECT_ROOT / "model_repository" / "cpu" / "yolo_nano_engine_batch" / "1", ("a",) * 80, 640, Thresholds()
    )
    assert loop.run([(PROJECT_ROOT / "docs" / "shapes.jpg").read_bytes()], 0.2) > 0
    assert len(loop.detections[0]) == 6


def test_a_course_says_what_failed_and_when_replicas_were_asked_for():
    samples = [Sample(9.0, 0, 0, 0.0, 1, 1), Sample(14.5, 9, 3, 400.0, 3, 1)]
    course = Course(sent=4, statuses=[200, 200, 503], samples=samples)
    assert course.failed == 2
    assert course.asked_after_s == 4.5


def test_a_port_that_is_already_in_use_is_no_service_that_is_up(tmp_path):
    log = tmp_path / "log"
    log.write_text("error: port 8265 (Ray's dashboard): address already in use; is another run of this service up?\n")
    assert not is_up(log)
    log.write_text("waiting for vision\nready in 44.0 s: http://localhost:8000\n")
    assert is_up(log)
