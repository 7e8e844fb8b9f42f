"""A load that steps from nothing to three times what a replica can do, and back: replicas follow the queue time."""

import asyncio

import pytest
import yaml

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.ratio.autoscaling import (
    BUSY_S,
    LOAD_PER_S,
    MOST_REPLICAS,
    QUIET_S,
    TARGET_QUEUE_MS,
    draw,
    run_course,
)
from serve_app.tools.bench.ratio.comparisons import paced as with_paced

pytestmark = pytest.mark.e2e
CHART = PROJECT_ROOT / "runs" / "autoscaling.png"


@pytest.fixture
def paced(tmp_path, configure, start_service):
    path = configure(tmp_path)
    config = yaml.safe_load(path.read_text())
    with_paced(config)
    path.write_text(yaml.safe_dump(config))
    with start_service(path, tmp_path / "serve.log").up() as run:
        yield run


def test_replicas_follow_the_queue_time_from_one_to_many_and_back_and_no_request_fails(paced):
    course = asyncio.run(run_course(paced.url))
    wanted = [sample.wanted for sample in course.samples]
    running = [sample.running for sample in course.samples]
    assert course.sent > BUSY_S * LOAD_PER_S * 0.9
    assert [status for status in course.statuses if status != 200] == []
    assert len(course.statuses) == course.sent
    quiet = [sample.wanted for sample in course.samples if sample.at < QUIET_S]
    assert set(quiet) == {1}
    assert 3 <= max(running) <= MOST_REPLICAS
    assert max(wanted) <= MOST_REPLICAS
    assert running[0] == running[-1] == wanted[-1] == 1
    assert max(sample.queue_ms for sample in course.samples) > 50 * TARGET_QUEUE_MS, "one replica was not enough"
    draw(course, CHART)
