"""An engine's own Prometheus text on Ray's pipeline: counters stay counters, whatever is reset."""

from collections import defaultdict

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve_app.telemetry.mirror import Mirror

TEXT = """
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="a",version="1"}} {a}
nv_inference_request_success{{model="b",version="2"}} {b}
# HELP nv_inference_pending_request_count Instantaneous number of pending requests awaiting execution per-model.
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="a",version="1"}} {pending}
# TYPE nv_inference_first_response_histogram_ms histogram
nv_inference_first_response_histogram_ms_count{{model="a",version="1"}} {a}
nv_inference_first_response_histogram_ms_sum{{model="a",version="1"}} {sum}
nv_inference_first_response_histogram_ms_bucket{{model="a",version="1",le="100"}} {a}
nv_inference_first_response_histogram_ms_bucket{{model="a",version="1",le="+Inf"}} {a}
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
"""


def families(text):
    return list(text_string_to_metric_families(text))


@pytest.fixture
def totals(recorded):
    """Each series as Prometheus would have it: the sum of a counter, the last value of a gauge."""

    def read():
        found = defaultdict(float)
        for name, tags, value in recorded:
            key = (name, *tags.values())
            growing = name.endswith(("success", "_count", "_sum", "_bucket")) and "pending" not in name
            found[key] = found[key] + value if growing else value
        return dict(found)

    return read


def test_every_family_comes_over_with_its_labels(totals):
    Mirror().update(families(TEXT.format(a=3, b=4, pending=2, sum=7.5)))
    assert totals() == {
        ("nv_inference_request_success", "a", "1"): 3,
        ("nv_inference_request_success", "b", "2"): 4,
        ("nv_inference_pending_request_count", "a", "1"): 2,
        ("nv_inference_first_response_histogram_ms_count", "a", "1"): 3,
        ("nv_inference_first_response_histogram_ms_sum", "a", "1"): 7.5,
        ("nv_inference_first_response_histogram_ms_bucket", "a", "1", "100"): 3,
        ("nv_inference_first_response_histogram_ms_bucket", "a", "1", "+Inf"): 3,
        ("nv_cpu_utilization",): 0.25,
    }


def test_counters_grow_by_what_they_grew_and_gauges_are_what_they_are(totals):
    mirror = Mirror()
    for a, pending in ((3, 9), (3, 1), (10, 0)):
        mirror.update(families(TEXT.format(a=a, b=4, pending=pending, sum=a / 2)))
    found = totals()
    assert found["nv_inference_request_success", "a", "1"] == 10
    assert found["nv_inference_request_success", "b", "2"] == 4
    assert found["nv_inference_first_response_histogram_ms_sum", "a", "1"] == 5
    assert found["nv_inference_pending_request_count", "a", "1"] == 0


def test_a_model_that_is_loaded_again_goes_on_from_where_it_was(totals):
    mirror = Mirror()
    for a in (100, 5, 8):
        mirror.update(families(TEXT.format(a=a, b=0, pending=0, sum=0)))
    assert totals()["nv_inference_request_success", "a", "1"] == 108


def test_a_model_that_is_gone_has_nothing_pending_and_may_come_back(totals):
    mirror = Mirror()
    mirror.update(families(TEXT.format(a=5, b=0, pending=4, sum=0)))
    mirror.update(families("# TYPE nv_cpu_utilization gauge\nnv_cpu_utilization 0.5\n"))
    assert totals()["nv_inference_pending_request_count", "a", "1"] == 0
    mirror.update(families(TEXT.format(a=2, b=0, pending=1, sum=0)))
    assert totals()["nv_inference_request_success", "a", "1"] == 7
    assert totals()["nv_inference_pending_request_count", "a", "1"] == 1


def test_a_label_that_only_some_series_have_is_empty_in_the_others(recorded):
    text = '# TYPE nv_inference_count counter\nnv_inference_count{model="a",gpu_uuid="G"} 1\n'
    mirror = Mirror()
    mirror.update(families(text))
    mirror.update(families(text + 'nv_inference_count{model="b"} 1\n'))
    assert recorded[-1] == ("nv_inference_count", {"model": "b", "gpu_uuid": ""}, 1)
