"""The server's metrics and those of the program."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import serve_app.triton.embedded as triton

Get = Callable[[str], triton.Model]


def test_metrics_count_the_requests_of_a_model(server: triton.Server, model: Get) -> None:
    list(model("identity").infer(inputs={"IN0": np.ones(4, np.float32)}))
    text = server.metrics()
    assert "# TYPE nv_inference_request_success counter" in text
    assert 'nv_inference_request_success{model="identity",version="1"}' in text


def test_a_counter_of_the_program_appears_and_disappears(server: triton.Server) -> None:
    family = triton.MetricFamily(triton.MetricKind.COUNTER, "shapes_total", "Shapes seen")
    metric = triton.Metric(family, {"shape": "circle"})
    metric.increment(3)
    metric.increment(0.5)
    assert (metric.value, metric.kind) == (3.5, triton.MetricKind.COUNTER)
    assert 'shapes_total{shape="circle"} 3.5' in server.metrics()
    with pytest.raises(triton.UnsupportedError):
        metric.set_value(1)
    with pytest.raises(triton.InvalidArgumentError):
        metric.increment(-1)
    del family, metric
    gc.collect()
    assert "shapes_total" not in server.metrics()


def test_a_gauge_goes_up_and_down(server: triton.Server) -> None:
    gauge = triton.Metric(triton.MetricFamily(triton.MetricKind.GAUGE, "level", "Level"))
    gauge.set_value(5)
    gauge.increment(-7)
    assert gauge.value == -2
    assert "level -2" in server.metrics()


def test_a_histogram_counts_by_bucket(server: triton.Server) -> None:
    family = triton.MetricFamily(triton.MetricKind.HISTOGRAM, "sizes", "Sizes")
    histogram = triton.Metric(family, {"kind": "a"}, buckets=[1, 10])
    for value in (0.5, 5, 50):
        histogram.observe(value)
    text = server.metrics()
    assert 'sizes_bucket{kind="a",le="10"} 2' in text
    assert 'sizes_count{kind="a"} 3' in text


def test_metrics_of_one_family_differ_in_their_labels(server: triton.Server) -> None:
    family = triton.MetricFamily(triton.MetricKind.GAUGE, "sides", "Sides")
    metrics = [triton.Metric(family, {"shape": name}) for name in ("triangle", "square")]
    for number, metric in enumerate(metrics, 3):
        metric.set_value(number)
    assert 'sides{shape="triangle"} 3' in server.metrics()
    assert 'sides{shape="square"} 4' in server.metrics()


def test_a_metric_needs_names_that_are_strings() -> None:
    with pytest.raises(TypeError, match="metric name must be str"):
        triton.MetricFamily(triton.MetricKind.GAUGE, 5, "no")  # type: ignore[arg-type]


def test_a_message_of_the_program_is_in_the_log(tmp_path: Path) -> None:
    """In a process of its own, because the log is one for all servers of a process."""
    log = tmp_path / "triton.log"
    code = f"""
import serve_app.triton.embedded as triton
server = triton.Server(model_repository={str(tmp_path)!r}, log_file={str(log)!r}, log_info=True,
    log_format=triton.LogFormat.ISO8601, model_control_mode=triton.ModelControlMode.EXPLICIT).start()
triton.LogMessage(triton.LogLevel.WARN, "shapes are round")
server.stop()
"""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert "shapes are round" in log.read_text()
