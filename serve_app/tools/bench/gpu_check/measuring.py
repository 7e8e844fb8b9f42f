"""One part measured: how a track's detections differ from the reference, or how fast it answers many clients."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle, islice

from serve_app.detection.tracks import Track
from serve_app.errors import QueueFullError, ServeAppError
from serve_app.tools.bench.gpu_check.fidelity import Difference, Expected, limits_of
from serve_app.tools.bench.gpu_check.parts import Fidelity, Job, Part, Rung
from serve_app.tools.bench.gpu_check.runners import Contestant
from serve_app.tools.bench.load import Outcome
from serve_app.tools.bench.tracks import Row
from serve_app.types import PictureResult

Answer = tuple[int, PictureResult]  # with the number of its picture

# The first batch leaves with what came first: for a whole one there must be more than a batch at once.
SPARE = 16
ROUNDS, ROUNDS_S = 5, 2.0  # to get a whole batch, as long as there is time
AT_ONCE_ON_CPU = 12  # a processor gains nothing by large batches, and takes ten seconds for one of 64
REFUSALS = 5  # that a picture bears: more come at once than a queue may take
PATIENCE_S = 60.0  # for the answers of a rung that come after its time
SETTLE_S = 0.2  # Triton closes its books on a request after the answer
NOT_READ = "not all pictures were read by DALI; Triton's log may say why"


async def check_fidelity(contestant: Contestant, job: Job, part: Part, expected: Sequence[Expected]) -> Fidelity:
    track, precision = job.track_of(part), contestant.precision(job.track_of(part))
    watch = Watch(contestant, track)
    if part.kind == "alone":
        rounds = [await _ask_round(contestant, track, job, [number]) for number in range(len(job.pictures))]
        answers = [answer for answers in rounds for answer in answers]
    else:
        answers = await _ask_together(contestant, track, job, watch)
    difference, problems = _compare(answers, expected, job, precision)
    await asyncio.sleep(SETTLE_S)
    largest, most = max(watch.batches(), default=None), contestant.max_batch(track)
    problems = (*problems, *watch.problems(len(answers)))
    return Fidelity(part, contestant.device, precision, difference, largest, most, problems)


async def measure_rung(contestant: Contestant, job: Job, part: Part) -> Rung:
    track = job.track_of(part)
    watch = Watch(contestant, track)
    outcome, answered = await _closed_loop(contestant, track, job)
    await asyncio.sleep(SETTLE_S)
    row = Row(track.design.name, track.path, track.model, job.load.clients, None, outcome, watch.batches())
    return Rung(part, contestant.device, contestant.precision(track), row, watch.problems(answered))


class Watch:
    """What Triton's statistics say since it was made."""

    def __init__(self, contestant: Contestant, track: Track) -> None:
        self._contestant, self._track = contestant, track
        self._batches, self._read = contestant.batches(track), contestant.read_by_dali(track)

    def batches(self) -> Counter[int]:
        return self._contestant.batches(self._track) - self._batches

    def problems(self, answered: int) -> tuple[str, ...]:
        read = self._contestant.read_by_dali(self._track)
        if read is None or self._read is None or read - self._read >= answered:
            return ()
        return (NOT_READ,)


async def _ask(contestant: Contestant, track: Track, job: Job, number: int) -> Answer:
    """A refusal by a queue is for the caller; any other failure is the picture's answer."""
    try:
        return number, await contestant.detect(track, job.pictures[number], job.thresholds)
    except QueueFullError:
        raise
    except ServeAppError as problem:
        return number, PictureResult(error=problem.message, error_status=problem.status)


async def _ask_together(contestant: Contestant, track: Track, job: Job, watch: Watch) -> list[Answer]:
    """Rounds of more pictures than a batch, until a whole batch was executed or time is up."""
    largest = contestant.max_batch(track)
    on_cpu = contestant.device == "cpu"
    at_once, rounds = (AT_ONCE_ON_CPU, 1) if on_cpu else (largest + SPARE, ROUNDS)
    numbers = list(islice(cycle(range(len(job.pictures))), at_once))
    answers: list[Answer] = []
    began = time.perf_counter()
    for _ in range(rounds):
        answers += await _ask_round(contestant, track, job, numbers)
        await asyncio.sleep(SETTLE_S)
        if max(watch.batches(), default=0) >= largest or time.perf_counter() - began > ROUNDS_S:
            break
    return answers


async def _ask_round(contestant: Contestant, track: Track, job: Job, numbers: Sequence[int]) -> list[Answer]:
    async def one(number: int) -> Answer | None:
        try:
            return await _ask(contestant, track, job, number)
        except QueueFullError:
            return None

    waiting, answers = list(numbers), []
    for _ in range(REFUSALS):
        given = await asyncio.gather(*(one(number) for number in waiting))
        answers += [answer for answer in given if answer]
        waiting = [number for number, answer in zip(waiting, given, strict=True) if answer is None]
        if not waiting:
            return answers
    refused = PictureResult(error=f"refused by a full queue {REFUSALS} times", error_status=QueueFullError.status)
    return answers + [(number, refused) for number in waiting]


def _compare(
    answers: Sequence[Answer], expected: Sequence[Expected], job: Job, precision: str
) -> tuple[Difference, tuple[str, ...]]:
    difference, errors = Difference(limits_of(precision), job.thresholds), Counter[str]()
    for number, result in answers:
        if result.error:
            errors[result.error] += 1
        difference.add(expected[number], result.detections)
    return difference, (*_told(errors), *difference.problems())


def _told(errors: Mapping[str, int]) -> list[str]:
    return [f"{count} × {error}" for error, count in errors.items()]


async def _closed_loop(contestant: Contestant, track: Track, job: Job) -> tuple[Outcome, int]:
    """What was measured, and how many were answered in all, before and after that too.

    It goes on after its time until there is an answer for each client: else a slow track has no numbers.
    """
    outcome = Outcome(wall_s=job.load.duration_s)
    begin = time.perf_counter() + job.load.warmup_s
    end = begin + job.load.duration_s
    pictures = cycle(range(len(job.pictures)))
    answered = 0

    def is_open(now: float) -> bool:
        few = len(outcome.took_ms) + outcome.errors.total() < job.load.clients
        return now < end or (few and now < end + PATIENCE_S)

    async def client() -> None:
        nonlocal answered
        while is_open(asked := time.perf_counter()):
            problem = await _problem(contestant, track, job, next(pictures))
            answered += not problem
            if begin <= (now := time.perf_counter()) and is_open(now):
                outcome.wall_s = max(outcome.wall_s, now - begin)
                if problem:
                    outcome.errors[problem] += 1
                else:
                    outcome.took_ms.append((now - asked) * 1e3)

    await asyncio.gather(_watch_loop(outcome, begin, end), *(client() for _ in range(job.load.clients)))
    return outcome, answered


async def _problem(contestant: Contestant, track: Track, job: Job, number: int) -> str:
    try:
        _, result = await _ask(contestant, track, job, number)
    except QueueFullError as problem:
        await asyncio.sleep(0)  # nobody else may have had a turn
        return problem.message
    return result.error or ""


async def _watch_loop(outcome: Outcome, begin: float, end: float) -> None:
    """The share of a core that the event loop takes: near 1 it is what limits."""
    await asyncio.sleep(max(0.0, begin - time.perf_counter()))
    before, began = time.thread_time(), time.perf_counter()
    await asyncio.sleep(max(0.0, end - time.perf_counter()))
    outcome.generator_share = (time.thread_time() - before) / (time.perf_counter() - began)
