"""How long a request would wait, by how many were begun lately and how fast they were answered at best."""

from collections import Counter

from serve_app.errors import QueueFullError

ALWAYS = 32  # requests that may wait whatever the rate: with few requests it says how many came, not how many could
REMEMBERED_S = 60


class Pace:
    """Counts by the second. What was begun longer ago than a request may wait is stuck rather than in the queue."""

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._begun: Counter[int] = Counter()  # of those that have not ended
        self._ended: Counter[int] = Counter()

    def begin(self, now: float) -> None:
        waiting = sum(count for second, count in self._begun.items() if second > now - self._max_wait_s)
        if waiting >= ALWAYS and waiting >= self._best_rate(now) * self._max_wait_s:
            raise QueueFullError(
                f"{waiting} requests wait, and one more would for over {self._max_wait_s:g} s; try again"
            )
        self._begun[int(now)] += 1

    def end(self, began: float, now: float) -> None:
        second = int(began)
        self._begun[second] -= 1
        if not self._begun[second]:
            del self._begun[second]
        self._ended[int(now)] += 1

    def _best_rate(self, now: float) -> float:
        """Of any two seconds of the last minute that follow each other."""
        for second in [second for second in self._ended if second < now - REMEMBERED_S]:
            del self._ended[second]
        return max(((self._ended[second] + self._ended.get(second - 1, 0)) / 2 for second in [*self._ended]), default=0)
