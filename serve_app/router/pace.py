"""How long a request would wait, by how many are being worked on and how fast they were answered at best."""

from collections import Counter, deque

from serve_app.errors import QueueFullError

LEAST_RATE = 6  # a second: with few requests the rate says how many came, not how many could be answered
REMEMBERED_S, WINDOW_S = 60, 8
TOO_MANY = 2  # times the best rate
LAST = 3  # answers that say whether there is a queue
QUEUE = 16  # the part of the longest wait that the quickest of them took, if there is one


class Pace:
    """Refuses only while more come than can be answered, or answers are slow.

    What is stuck in a replica that hangs, or waits for one to start, is no queue.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._running = 0
        self._asked: Counter[int] = Counter()  # by the second
        self._ended: Counter[int] = Counter()
        self._rate, self._rated_at = 0.0, 0
        self._last: deque[tuple[float, float]] = deque(maxlen=LAST)  # when answers ended, and what they took

    def begin(self, now: float) -> None:
        self._asked[int(now)] += 1
        if self._running >= self._best_rate(now) * self._max_wait_s and self._is_queue(now):
            raise QueueFullError(
                f"{self._running} requests are before this one, which would wait longer than {self._max_wait_s:g} s; "
                "try again later"
            )
        self._running += 1

    def end(self, began: float, now: float, answered: bool = True) -> None:
        """A request that was refused further on says nothing of how fast others are answered."""
        self._running -= 1
        if not answered:
            return
        self._ended[int(now)] += 1
        self._last.append((now, now - began))

    def _is_queue(self, now: float) -> bool:
        if max(self._asked[int(now)], self._asked[int(now) - 1]) > TOO_MANY * self._best_rate(now):
            return True
        if not self._last or now - self._last[-1][0] > self._max_wait_s:
            return False
        return min(took for _, took in self._last) > self._max_wait_s / QUEUE

    def _best_rate(self, now: float) -> float:
        """Of any WINDOW_S of the last minute; shorter ones would have bursts in them."""
        if int(now) != self._rated_at:
            self._rated_at = int(now)
            for counts in (self._asked, self._ended):
                for second in [second for second in counts if second < now - REMEMBERED_S]:
                    del counts[second]
            windows = (sum(self._ended.get(second - i, 0) for i in range(WINDOW_S)) for second in self._ended)
            self._rate = max([LEAST_RATE, *(count / WINDOW_S for count in windows)])
        return self._rate
