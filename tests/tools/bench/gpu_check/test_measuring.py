"""One part measured, on fake contestants, which can be made to refuse, to fail and to see wrongly."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from serve_app.detection.tracks import DESIGNS, Track
from serve_app.errors import EngineError, QueueFullError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.tools.bench.gpu_check.fidelity import Expected
from serve_app.tools.bench.gpu_check.measuring import NOT_READ, SPARE, check_fidelity, measure_rung
from serve_app.tools.bench.gpu_check.parts import Job, Load, Part
from serve_app.types import Detection, PictureResult

MAX_BATCH = 4
TRACK = Track(next(design for design in DESIGNS if design.name == "D2"), "nano")
PICTURES = tuple(bytes([number]) for number in range(3))


def seen_on(picture):
    return Detection(0.1, 0.1, 0.5, 0.5 + picture[0] / 10, 0.9, picture[0], "thing")


EXPECTED = tuple(Expected((seen_on(picture),), ()) for picture in PICTURES)


class FakeContestant:
    """Answers as it should, in batches as large as they come, unless it is told otherwise."""

    device = "cuda"

    def __init__(self, see=seen_on, room=1000, fails=(), misses=0, batch=MAX_BATCH, takes_s=0.001):
        self.see, self.room, self.fails, self.misses = see, room, fails, misses
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
            return PictureResult(640, 480, (self.see(picture),))
        finally:
            self.inside -= 1


def job_of(clients=8, duration_s=0.2):
    return Job(
        "python-torch", (TRACK,), DetectionSettings(), TritonSettings(name="check"), 1, PICTURES,
        Load(clients, duration_s, 0.05), Path("triton.log"),
    )  # fmt: skip


def part_of(kind):
    return Part("python-torch", "nano", "D2", kind)


def checked(contestant, kind="together"):
    return asyncio.run(check_fidelity(contestant, job_of(), part_of(kind), EXPECTED))


def test_a_fake_that_sees_right_passes_alone_and_together():
    alone = checked(FakeContestant(), "alone")
    assert alone.passed
    assert (alone.difference.pictures, alone.largest_batch, alone.max_batch) == (3, 1, MAX_BATCH)
    together = checked(FakeContestant())
    assert together.passed
    assert (together.difference.pictures, together.largest_batch) == (MAX_BATCH + SPARE, MAX_BATCH)


def test_the_largest_batch_is_what_the_fake_executed_and_not_what_it_could():
    row = checked(FakeContestant(batch=3))
    assert (row.largest_batch, row.max_batch) == (3, MAX_BATCH)
    assert row.difference.pictures == 5 * (MAX_BATCH + SPARE), "it was tried again"


def test_a_fake_that_sees_a_wrong_box_fails():
    row = checked(FakeContestant(see=lambda picture: Detection(0.1, 0.1, 0.47, 0.5, 0.9, picture[0], "thing")))
    assert not row.passed
    assert "is under 0.99" in row.problems[0]


def test_a_fake_that_mixes_up_the_pictures_of_a_batch_fails():
    row = checked(FakeContestant(see=lambda picture: seen_on(PICTURES[0])))
    assert row.problems == ("26 boxes without a counterpart",)


def test_what_a_fake_queue_refuses_is_asked_again():
    row = checked(FakeContestant(room=6))
    assert row.passed
    assert row.difference.pictures == MAX_BATCH + SPARE


def test_what_a_fake_queue_refuses_for_ever_fails():
    row = checked(FakeContestant(room=0), "alone")
    assert row.problems[0] == "3 × refused by a full queue 5 times"


def test_a_fake_that_fails_on_a_picture_fails_for_its_reason():
    row = checked(FakeContestant(fails=PICTURES[:1]), "alone")
    assert row.problems[0] == "1 × CUDA is out of memory"


@pytest.mark.parametrize("kind", ["alone", "together"])
def test_pictures_that_a_fake_reader_did_not_read_are_noticed(kind):
    assert checked(FakeContestant(misses=1), kind).problems == (NOT_READ,)


def test_a_fake_ladder_counts_what_was_answered_in_time():
    rung = asyncio.run(measure_rung(FakeContestant(), job_of(), part_of("ladder")))
    outcome = rung.row.outcome
    assert outcome.wall_s == 0.2
    assert 100 < len(outcome.took_ms) <= 8 * 200
    assert not outcome.errors
    assert rung.row.batches.total() >= len(outcome.took_ms)
    assert rung.problems == ()


def test_a_fake_that_needs_more_than_the_time_is_waited_for_and_its_rate_is_of_that_time():
    rung = asyncio.run(measure_rung(FakeContestant(takes_s=0.5), job_of(clients=2), part_of("ladder")))
    assert len(rung.row.outcome.took_ms) == 2
    assert 0.4 < rung.row.outcome.wall_s < 1.5


def test_a_fake_ladder_names_what_went_wrong():
    rung = asyncio.run(measure_rung(FakeContestant(room=4, fails=PICTURES[:1]), job_of(), part_of("ladder")))
    assert set(rung.row.outcome.errors) == {"the queue is full", "CUDA is out of memory"}
