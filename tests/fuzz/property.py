"""What must hold for every input: it is taken or refused in the service's own words, soon, and in little memory."""

import pickle
import resource
import time
from collections.abc import Callable

from serve_app.errors import ServeAppError, UnsupportedError

MAX_S = 0.5  # of this process's time
MAX_GROWTH_KIB = 192 << 10
Take = Callable[[bytes], object]


def require_holds(take: Take, data: bytes) -> None:
    """Whatever else `take` raises is a finding."""
    before = _most_resident_kib()
    seconds = _seconds(take, data)
    if seconds > MAX_S:  # once more, since a collection of garbage isn't the input's fault
        seconds = min(seconds, _seconds(take, data))
    growth = _most_resident_kib() - before
    assert seconds <= MAX_S, f"it took {seconds:.2f} s"
    assert growth <= MAX_GROWTH_KIB, f"it took {growth >> 10} MiB of memory"


def _seconds(take: Take, data: bytes) -> float:
    started = time.process_time()
    try:
        take(data)
    except ServeAppError as problem:
        _require_answer(problem)
    return time.process_time() - started


def _require_answer(problem: ServeAppError) -> None:
    """A mistake of the caller's, or what isn't supported; replicas send their errors to the router."""
    if problem.status >= ServeAppError.status and not isinstance(problem, UnsupportedError):
        raise AssertionError(f"a caller's mistake with status {problem.status}") from problem
    assert pickle.loads(pickle.dumps(problem)).message == problem.message


def _most_resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
