"""A load that steps from nothing to three times what a replica can do, and back: replicas follow the queue time."""

import asyncio

import pytest

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.ratio.autoscaling import (
    BUSY_S,
    LOAD_PER_S,
    MAX_REPLICAS,
    QUIET_S,
    TARGET_QUEUE_MS,
    draw,
    run_load_step,
    serve_paced_model,
)
from tests.e2e.service import write_config

CHART = PROJECT_ROOT / "runs" / "autoscaling.png"


@pytest.fixture
def paced(tmp_path, start_service):
    with start_service(write_config(tmp_path, serve_paced_model), tmp_path / "serve.log").up() as run:
        yield run


def test_replicas_follow_the_queue_time_from_one_to_many_and_back_and_no_request_fails(paced):
    step = asyncio.run(run_load_step(paced.url))
    wanted = [sample.wanted for sample in step.samples]
    running = [sample.running for sample in step.samples]
    assert step.sent > BUSY_S * LOAD_PER_S * 0.9
    assert [status for status in step.statuses if status != 200] == []
    assert len(step.statuses) == step.sent
    quiet = [sample.wanted for sample in step.samples if sample.at < QUIET_S]
    assert set(quiet) == {1}
    assert 3 <= max(running) <= MAX_REPLICAS
    assert max(wanted) <= MAX_REPLICAS
    assert running[0] == running[-1] == wanted[-1] == 1
    assert max(sample.queue_ms for sample in step.samples) > 5 * TARGET_QUEUE_MS, "one replica was not enough"
    draw(step, CHART)
