"""One part measured on a fake runner that can refuse, fail and find wrong boxes."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from serve_app.detection.tracks import DESIGNS, Track
from serve_app.errors import EngineError, QueueFullError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.tools.bench.gpu_check import tasks
from serve_app.tools.bench.gpu_check.fidelity import Expected
from serve_app.tools.bench.gpu_check.jobs import Job, Part
from serve_app.tools.bench.gpu_check.tasks import NOT_READ, SPARE, check_fidelity, measure_speed
from serve_app.tools.bench.load import Load
from serve_app.types import Detection, PictureResult

MAX_BATCH = 4
TRACK = Track(next(design for design in DESIGNS if design.name == "D2"), "nano")
PICTURES = tuple(bytes([number]) for number in range(3))


def boxes_of(picture):
    return Detection(0.1, 0.1, 0.5, 0.5 + picture[0] / 10, 0.9, picture[0], "thing")


EXPECTED = tuple(Expected((boxes_of(picture),), ()) for picture in PICTURES)


class FakeRunner:
    """Finds the expected boxes, in batches of the pictures in flight, unless its arguments say otherwise."""

    device = "cuda"

    def __init__(self, find=boxes_of, room=1000, fails=(), misses=0, batch=MAX_BATCH, takes_s=0.001):
        self.find, self.room, self.fails, self.misses = find, room, fails, misses
        self.batch, self.takes_s = batch, takes_s
        self.inside = self.read = 0
        self.executed = Counter()

    def precision(self, track):
        return "f32"

    def max_batch(self, track):
        return MAX_BATCH

    def batches(self, track):
        return Counter(self.executed)

    def read_by_dali(self, track):
        return self.read

    async def detect(self, track, picture, thresholds):
        if self.inside >= self.room:
            raise QueueFullError("the queue is full")
        self.inside += 1
        try:
            await asyncio.sleep(self.takes_s)
            if picture in self.fails:
                raise EngineError("CUDA is out of memory")
            self.executed[min(self.inside, self.batch)] += 1
            self.read += 1 if self.misses < 1 else 0
            self.misses -= 1
            return PictureResult(640, 480, (self.find(picture),))
        finally:
            self.inside -= 1


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    monkeypatch.setattr(tasks, "SETTLE_S", 0.0)
    monkeypatch.setattr(tasks, "RETRY_S", 0.002)


def job_of(clients=8, duration_s=0.1):
    return Job(
        "python-torch", (TRACK,), DetectionSettings(), TritonSettings(name="check"), 1, PICTURES,
        Load(clients, duration_s, 0.0), Path("triton.log"),
    )  # fmt: skip


def part_of(kind):
    return Part("python-torch", "nano", "D2", kind)


def checked(runner, kind="concurrent"):
    return asyncio.run(check_fidelity(runner, job_of(), part_of(kind), EXPECTED))


def test_right_boxes_pass_and_the_largest_batch_is_the_one_that_was_executed():
    single, concurrent, small = checked(FakeRunner(), "single"), checked(FakeRunner()), checked(FakeRunner(batch=3))
    assert [one.problems for one in (single, concurrent, small)] == [(), (), ()]
    assert (single.difference.pictures, single.largest_batch, single.max_batch) == (3, 1, MAX_BATCH)
    assert (concurrent.difference.pictures, concurrent.largest_batch) == (MAX_BATCH + SPARE, MAX_BATCH)
    assert (small.largest_batch, small.max_batch) == (3, MAX_BATCH)
    assert small.difference.pictures == 5 * (MAX_BATCH + SPARE), "a full batch was tried again"


def test_wrong_boxes_mixed_up_pictures_failures_and_unread_pictures_fail():
    shifted = lambda picture: Detection(0.1, 0.1, 0.47, 0.5, 0.9, picture[0], "thing")  # noqa: E731
    for runner, kind, problem in (
        (FakeRunner(find=shifted), "concurrent", "is below 0.99"),
        (FakeRunner(find=lambda _: boxes_of(PICTURES[0])), "concurrent", "26 boxes are unmatched"),
        (FakeRunner(fails=PICTURES[:1]), "single", "1 × CUDA is out of memory"),
        (FakeRunner(room=0), "single", "3 × refused by a full queue 50 times"),
        (FakeRunner(misses=1), "single", NOT_READ),
        (FakeRunner(misses=1), "concurrent", NOT_READ),
    ):
        problems = checked(runner, kind).problems
        assert problem in problems[0], problems


def test_pictures_that_a_full_queue_refuses_are_sent_again():
    row = checked(FakeRunner(room=6))
    assert (row.problems, row.difference.pictures) == ((), MAX_BATCH + SPARE)


def test_speed_counts_answers_batches_and_errors():
    speed = asyncio.run(measure_speed(FakeRunner(), job_of(), part_of("ladder")))
    result = speed.row.result
    assert speed.problems == ()
    assert 50 < len(result.latencies_ms) <= 8 * 100
    assert speed.row.batches.total() >= len(result.latencies_ms)
    speed = asyncio.run(measure_speed(FakeRunner(room=4, fails=PICTURES[:1]), job_of(), part_of("ladder")))
    assert set(speed.row.result.errors) == {"the queue is full", "CUDA is out of memory"}
    assert len(speed.problems) == 2
