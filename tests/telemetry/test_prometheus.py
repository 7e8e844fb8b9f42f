"""An engine's Prometheus metrics, republished by Ray: counters never shrink, whatever the engine resets."""

from collections import defaultdict

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve_app.telemetry.prometheus import MetricsForwarder

TEXT = """
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="a",version="1"}} {a}
nv_inference_request_success{{model="b",version="2"}} 4
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="a",version="1"}} {pending}
# TYPE nv_inference_first_response_histogram_ms histogram
nv_inference_first_response_histogram_ms_count{{model="a",version="1"}} {a}
nv_inference_first_response_histogram_ms_sum{{model="a",version="1"}} {sum}
nv_inference_first_response_histogram_ms_bucket{{model="a",version="1",le="+Inf"}} {a}
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
"""
PENDING = ("nv_inference_pending_request_count", "a", "1")
SUCCESS = ("nv_inference_request_success", "a", "1")


@pytest.fixture
def totals(recorded):
    """Each series as Prometheus would have it after these readings: (a, pending), or another text."""

    def read(*readings, forwarder=None):
        forwarder = forwarder or MetricsForwarder()
        for reading in readings:
            text = reading if isinstance(reading, str) else TEXT.format(a=reading[0], pending=reading[1], sum=7.5)
            forwarder.update(text_string_to_metric_families(text))
        found = defaultdict(float)
        for name, labels, value in recorded:
            key = (name, *labels.values())
            cumulative = name.endswith(("success", "_count", "_sum", "_bucket")) and key != PENDING
            found[key] = found[key] + value if cumulative else value
        return dict(found)

    return read


def test_every_family_is_published_with_its_labels(totals):
    assert totals((3, 2)) == {
        SUCCESS: 3,
        ("nv_inference_request_success", "b", "2"): 4,
        PENDING: 2,
        ("nv_inference_first_response_histogram_ms_count", "a", "1"): 3,
        ("nv_inference_first_response_histogram_ms_sum", "a", "1"): 7.5,
        ("nv_inference_first_response_histogram_ms_bucket", "a", "1", "+Inf"): 3,
        ("nv_cpu_utilization",): 0.25,
    }


def test_counters_add_up_and_gauges_take_the_last_value(totals):
    found = totals((3, 9), (3, 1), (10, 0))
    assert (found[SUCCESS], found[PENDING]) == (10, 0)
    assert found["nv_inference_request_success", "b", "2"] == 4
    assert found["nv_inference_first_response_histogram_ms_sum", "a", "1"] == 7.5


def test_a_reloaded_model_continues_its_counters(totals):
    assert totals((100, 0), (5, 0), (8, 0))[SUCCESS] == 108


def test_an_unloaded_model_has_nothing_pending_and_may_come_back(totals):
    forwarder = MetricsForwarder()
    without = "# TYPE nv_cpu_utilization gauge\nnv_cpu_utilization 0.5\n"
    assert totals((5, 4), without, forwarder=forwarder)[PENDING] == 0
    found = totals((2, 1), forwarder=forwarder)
    assert (found[SUCCESS], found[PENDING]) == (7, 1)


def test_a_label_that_a_series_lacks_is_empty(totals, recorded):
    text = '# TYPE nv_inference_count counter\nnv_inference_count{model="a",gpu_uuid="G"} 1\n'
    totals(text, text + 'nv_inference_count{model="b"} 1\n')
    assert recorded[-1] == ("nv_inference_count", {"model": "b", "gpu_uuid": ""}, 1)
