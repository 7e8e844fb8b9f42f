"""`scripts/sweep`: the settings that are tried, the best point, the frontier, and the verdict."""

import io

import cv2
import numpy as np
import pytest
from google.protobuf import text_format
from rich.console import Console
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serve_app.errors import InvalidRequestError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.sweep.cli import batches_to_try, build_trial, parse
from serve_app.tools.bench.sweep.report import apply, draw, show, write
from serve_app.tools.bench.sweep.search import Objective, Point, Search, Setting, Space, frontier
from serve_app.tools.bench.sweep.trial import Trial, inputs_of
from serve_app.tools.bench.sweep.verdict import judge
from serve_app.triton.overlay import Preparation
from serve_app.triton.repository import ModelRepository

SHAPES = (PROJECT_ROOT / "docs" / "shapes.jpg").read_bytes()
ENGINE = """
name: "engine" backend: "python" max_batch_size: 64
input [ { name: "images" data_type: TYPE_FP32 dims: [ 3, 640, 640 ] } ]
output [ { name: "output0" data_type: TYPE_FP32 dims: [ -1, -1 ] } ]
instance_group [ { kind: KIND_CPU count: 2 } ]
dynamic_batching { preferred_batch_size: [ 4, 8, 32 ] max_queue_delay_microseconds: 5000
                   default_queue_policy { max_queue_size: 128 } }
parameters { key: "threads" value { string_value: "0" } }
parameters { key: "streams" value { string_value: "1" } }
"""
PLAIN = """
name: "plain" backend: "python" max_batch_size: 0
input [ { name: "IN0" data_type: TYPE_INT64 dims: [ -1, 2 ] }, { name: "NAME" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUT0" data_type: TYPE_INT64 dims: [ -1, 2 ] } ]
"""
START = Setting(1, 8, 0, 0, 0)


def config_of(text):
    return text_format.Parse(text, ModelConfig())


def point(setting=START, clients=1, rate=10.0, p99=50.0, errors=0):
    return Point(setting, clients, rate, p99 / 2, p99, errors)


def test_a_setting_is_read_from_a_config_and_written_into_it():
    for text in (ENGINE, PLAIN):
        config = config_of(text)
        same = Setting.of(config).applied_to(config)
        assert Setting.of(same) == Setting.of(config)
        assert same.dynamic_batching.preferred_batch_size == config.dynamic_batching.preferred_batch_size
    assert Setting.of(config_of(ENGINE)) == Setting(2, 64, 5000, 0, 1)
    assert Setting.of(config_of(PLAIN)) == Setting(1)
    changed = Setting(3, 8, 100, 4, 2).applied_to(config_of(ENGINE))
    assert Setting.of(changed) == Setting(3, 8, 100, 4, 2)
    assert list(changed.dynamic_batching.preferred_batch_size) == [4, 8], "not above the largest batch"
    assert changed.dynamic_batching.default_queue_policy.max_queue_size == 128
    assert str(Setting(3, 8, 100, 4, 2)) == "3 instances, 8 max batch, 100 µs delay, 4 threads, 2 streams"


def test_only_parameters_that_the_model_has_are_tried():
    values = {"instances": [1, 2], "max_batch": [8], "delay_us": [0], "threads": [1], "streams": [1]}
    assert list(Space(Setting(1), values).all()) == [Setting(1), Setting(2)]
    assert Space(START, values | {"streams": [0, 1]}).size(whole=True) == 5
    assert Space(START, values | {"streams": [0, 1]}).size(whole=False) == 4


VALUES = {"instances": [1, 2], "max_batch": [8, 64], "delay_us": [0, 500], "threads": [0, 1], "streams": [0]}
SPACE = Space(START, VALUES)


def search_where(**best):
    """Each parameter with its best value doubles the rate; returns the search and the settings that it measured."""
    tried = []

    def measure(setting):
        tried.append(setting)
        return [point(setting, rate=10.0 * 2 ** sum(getattr(setting, name) == value for name, value in best.items()))]

    return Search(SPACE, Objective(), measure), tried


def test_a_quick_search_finds_the_best_and_a_full_search_tries_every_combination_once():
    search, tried = search_where(instances=2, delay_us=500)
    search.try_one_at_a_time()
    assert tried[0] == START
    assert Objective().best(search.measured()).setting == Setting(2, 8, 500, 0, 0)
    assert len(tried) == len(set(tried)) < SPACE.size(whole=True)
    search, tried = search_where(threads=1)
    search.try_all()
    assert len(tried) == len(set(tried)) == SPACE.size(whole=True) == 16


def test_the_best_point_is_that_of_the_objective_within_its_bounds():
    points = [
        point(clients=1, rate=10, p99=100), point(clients=2, rate=20, p99=150), point(clients=4, rate=30, p99=300),
        point(clients=8, rate=99, p99=1, errors=3), point(clients=9, rate=0, p99=0),
    ]  # fmt: skip
    for objective, clients in (
        (Objective(), 4),
        (Objective(max_p99_ms=200), 2),
        (Objective("latency"), 1),
        (Objective("latency", min_rate=15), 2),
        (Objective(max_p99_ms=1), None),
    ):
        best = objective.best(points)
        assert (best and best.clients) == clients, objective


def test_the_frontier_has_the_points_that_no_other_beats_in_rate_and_p99():
    points = [point(rate=rate, p99=p99) for rate, p99 in ((10, 50), (9, 60), (20, 100), (20, 90), (15, 95), (30, 400))]
    assert [(one.rate, one.p99_ms) for one in frontier(points)] == [(10, 50), (20, 90), (30, 400)]


def test_the_table_marks_the_committed_setting_and_the_chart_is_drawn(tmp_path):
    points = [point(), point(Setting(2, 8, 0, 0, 0), 16, 30.0, 400.0)]
    written = io.StringIO()
    show(points, START, Console(file=written, width=160))
    assert [line.split()[:4] for line in written.getvalue().splitlines()[2:]] == [
        ["50.0", "25.0", "10.0", "1"],
        ["400.0", "200.0", "30.0", "16"],
    ]
    assert written.getvalue().count("(committed)") == 1
    draw(points, START, Setting(2, 8, 0, 0, 0), "model", tmp_path / "sweep.png")
    assert len({tuple(color) for color in cv2.imread(str(tmp_path / "sweep.png")).reshape(-1, 3)[::50]}) > 5


def test_detectors_get_a_picture_and_other_models_numbers():
    given = inputs_of(config_of(ENGINE), SHAPES, {})["images"]
    assert (given.shape, given.dtype) == ((1, 3, 640, 640), np.float32)
    assert 0 < given.std() < 1
    letterboxed = ENGINE.replace("TYPE_FP32 dims: [ 3, 640, 640 ]", "TYPE_UINT8 dims: [ 640, 640, 3 ]")
    assert inputs_of(config_of(letterboxed), SHAPES, {})["images"].shape == (1, 640, 640, 3)
    pipeline = ENGINE.replace("TYPE_FP32 dims: [ 3, 640, 640 ]", "TYPE_UINT8 dims: [ -1 ]").replace("images", "encoded")
    assert inputs_of(config_of(pipeline), SHAPES, {})["encoded"].tobytes() == SHAPES
    numbers = inputs_of(config_of(PLAIN), SHAPES, {"IN0": [5, 2]})
    assert (numbers["IN0"].shape, numbers["IN0"].dtype) == ((5, 2), np.int64)
    assert numbers["NAME"].tolist() == [b"text"]


def test_an_input_without_a_fixed_shape_needs_one():
    with pytest.raises(
        InvalidRequestError, match=r"^--shape: IN0 has the shape \[-1, 2\]; pass a fixed one, as in IN0:16$"
    ):
        inputs_of(config_of(PLAIN), SHAPES, {})
    with pytest.raises(InvalidRequestError, match=r"^--shape: IN0 has the shape \[-1, 2\], which \[5\] does not fit$"):
        inputs_of(config_of(PLAIN), SHAPES, {"IN0": [5]})
    with pytest.raises(InvalidRequestError, match=r"^--shape: plain has no input x$"):
        inputs_of(config_of(PLAIN), SHAPES, {"x": [1]})


class Rates(Trial):
    """Returns fixed rates."""

    def run(self, setting, clients):
        return [point(setting, clients[0], 20.0 if setting.instances == 2 else self.duration_s)]


def trial_with(tmp_path, committed_rate):
    folder = tmp_path / "models" / "engine"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text("# by hand\n" + ENGINE.replace("count: 2", "count: 1"))
    models = ModelRepository(tmp_path / "models", ["*"], None)
    return Rates(models, "engine", "engine", {}, committed_rate, 0.0, Preparation())


@pytest.mark.parametrize(("committed_rate", "stays", "ratio"), [(10.0, False, 2.0), (19.9, True, 20 / 19.9)])
def test_only_what_wins_again_replaces_the_committed_config(tmp_path, committed_rate, stays, ratio):
    trial = trial_with(tmp_path, committed_rate)
    committed = Setting.of(trial.config)
    better = Setting(2, 64, 5000, 0, 1)
    verdict = judge(trial, committed, point(better, 16), Objective(), 3, lambda _: None)
    assert (verdict.is_committed, verdict.ratio) == (stays, pytest.approx(ratio))
    write(tmp_path / "out", trial, [point(better, 16)], committed, verdict)
    text = (tmp_path / "out" / "config.pbtxt").read_text()
    if stays:
        assert text == (tmp_path / "models" / "engine" / "config.pbtxt").read_text()
        assert str(verdict).startswith("the committed config stays: 2 instances, ")
    else:
        assert "times the committed config's requests/s at 16 clients" in text.splitlines()[0]
        apply(tmp_path / "out", trial)
        assert Setting.of(ModelRepository(tmp_path / "models", ["*"], None).all["engine"].config) == better


def test_the_verdict_keeps_the_bounds(tmp_path):
    made = trial_with(tmp_path, 10.0)
    committed, better = Setting.of(made.config), Setting(2, 64, 5000, 0, 1)
    for p99_of_best, stays, reason in ((50.0, False, "is out of bounds"), (500.0, True, "was out of bounds in most")):

        class Slow(Rates):
            def run(self, setting, clients, p99_of_best=p99_of_best):
                best = setting.instances == 2
                return [point(setting, clients[0], 10.0 if best else 30.0, p99_of_best if best else 900.0)]

        trial = Slow(**{name: getattr(made, name) for name in Trial.__slots__})
        verdict = judge(trial, committed, point(better, 16), Objective(max_p99_ms=100.0), 3, lambda _: None)
        assert (verdict.is_committed, reason in verdict.reason) == (stays, True), verdict


def test_if_the_committed_config_is_the_best_nothing_is_measured_again(tmp_path):
    verdict = judge(trial_with(tmp_path, 10.0), START, point(START), Objective(), 3, pytest.fail)
    assert str(verdict) == "the committed config stays: no other setting was better"


def test_wrong_models_and_batches_are_refused():
    for arguments, message in (
        (["yolo_nano_gpu_e2e"], "yolo_nano_gpu_e2e is an ensemble; sweep one of its models, "),
        (["yolo_nano", "--through", "yolo_nano_gpu_e2e"], "--through: yolo_nano is not a step of "),
        (["yolo_nanu"], "no model 'yolo_nanu' in .*model_repository/cpu; available: yolo, "),
        (["yolo_*"], "no model 'yolo_[*]' in "),
    ):
        with pytest.raises(InvalidRequestError, match=f"^{message}"):
            build_trial(parse("", arguments))
    trial = build_trial(parse("", ["yolo_nano_engine_balanced"]))
    assert batches_to_try(trial, None) == [64, 128]
    message = r"^--batches: must be at least 64, the batch size of yolo_nano_gpu_e2e; got 8$"
    with pytest.raises(InvalidRequestError, match=message):
        batches_to_try(trial, [8])
    assert batches_to_try(build_trial(parse("", ["yolo_nano"])), None) == [1, 8, 32, 64, 128]
