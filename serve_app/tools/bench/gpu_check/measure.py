"""Measures one part: the difference of a track's detections from the reference, or its speed under load."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice

from serve_app.detection.tracks import Track
from serve_app.errors import QueueFullError, ServeAppError
from serve_app.tools.bench.gpu_check.fidelity import Difference, Expected, limits_of
from serve_app.tools.bench.gpu_check.jobs import Fidelity, Job, Part, Speed
from serve_app.tools.bench.gpu_check.runners import Runner
from serve_app.tools.bench.load import LoadGenerator, Reply
from serve_app.tools.bench.report import count_errors
from serve_app.tools.bench.tracks import TrackResult
from serve_app.types import PictureResult

Answer = tuple[int, PictureResult]  # with the number of its picture

SPARE = 16  # pictures beyond a batch: the first batch leaves before it is full
ROUNDS, ROUNDS_S = 5, 2.0  # limits for the attempts to fill a batch
CONCURRENT_ON_CPU = 12  # a batch of 64 takes a processor ten seconds
REFUSALS, RETRY_S = 50, 0.2  # of a full queue
SETTLE_S = 0.2  # Triton updates its statistics after the answer
NOT_READ = "not all pictures were read by DALI; Triton's log may say why"


async def check_fidelity(runner: Runner, job: Job, part: Part, expected: Sequence[Expected]) -> Fidelity:
    track = job.track_of(part)
    precision, max_batch = runner.precision(track), runner.max_batch(track)
    counters = Counters(runner, track)
    if part.kind == "single":
        answers = [await _detect(runner, track, job, number) for number in range(len(job.pictures))]
    else:
        answers = await _detect_concurrently(runner, track, job, counters)
    await asyncio.sleep(SETTLE_S)
    difference = Difference(limits_of(precision), job.thresholds)
    for number, result in answers:
        difference.add(expected[number], result.detections)
    errors = Counter(result.error for _, result in answers if result.error)
    problems = (*count_errors(errors), *difference.problems(), *counters.problems(len(answers)))
    largest = max(counters.batches(), default=None)
    return Fidelity(part, runner.device, precision, difference, largest, max_batch, problems)


async def measure_speed(runner: Runner, job: Job, part: Part) -> Speed:
    track = job.track_of(part)
    counters = Counters(runner, track)
    answered = 0

    async def send(number: int) -> Reply:
        nonlocal answered
        try:
            result = await runner.detect(track, job.pictures[number % len(job.pictures)], job.thresholds)
        except ServeAppError as problem:
            return Reply(problem.message)
        answered += not result.error
        return Reply(result.error or "")

    result = await LoadGenerator(job.load, send).run()
    await asyncio.sleep(SETTLE_S)
    row = TrackResult(track.design.name, track.path, track.model, job.load, result, counters.batches())
    problems = (*result.problems, *counters.problems(answered))
    return Speed(part, runner.device, runner.precision(track), row, problems)


class Counters:
    """What Triton's statistics have counted since this object was made."""

    def __init__(self, runner: Runner, track: Track) -> None:
        self._runner, self._track = runner, track
        self._batches, self._read = runner.batches(track), runner.read_by_dali(track)

    def batches(self) -> Counter[int]:
        return self._runner.batches(self._track) - self._batches

    def problems(self, answered: int) -> tuple[str, ...]:
        read = self._runner.read_by_dali(self._track)
        if read is None or self._read is None or read - self._read >= answered:
            return ()
        return (NOT_READ,)


async def _detect(runner: Runner, track: Track, job: Job, number: int) -> Answer:
    for _ in range(REFUSALS):
        try:
            return number, await runner.detect(track, job.pictures[number], job.thresholds)
        except QueueFullError:
            await asyncio.sleep(RETRY_S)
        except ServeAppError as problem:
            return number, PictureResult(error=problem.message, error_status=problem.status)
    error = f"refused by a full queue {REFUSALS} times"
    return number, PictureResult(error=error, error_status=QueueFullError.status)


async def _detect_concurrently(runner: Runner, track: Track, job: Job, counters: Counters) -> list[Answer]:
    """Rounds of more pictures than a batch, until Triton has executed a full batch."""
    largest = runner.max_batch(track)
    size, rounds = (CONCURRENT_ON_CPU, 1) if runner.device == "cpu" else (largest + SPARE, ROUNDS)
    numbers = list(islice(cycle(range(len(job.pictures))), size))
    answers: list[Answer] = []
    started = time.perf_counter()
    for _ in range(rounds):
        answers += await asyncio.gather(*(_detect(runner, track, job, number) for number in numbers))
        await asyncio.sleep(SETTLE_S)
        if max(counters.batches(), default=0) >= largest or time.perf_counter() - started > ROUNDS_S:
            break
    return answers
