"""What is known of each request: its text so far, when that came, and how it ended."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Answer:
    """One request as it grows; moments (`…_at_s`) are `time.perf_counter`'s."""

    number: int
    prompt: str
    text: str = ""
    # Responses that brought new text. A server sends one for each step of generation, which is mostly one token,
    # but the contract counts no tokens: so neither does this.
    chunks: int = 0
    sent_at_s: float | None = None
    first_at_s: float | None = None
    last_at_s: float | None = None
    error: str | None = None
    ended: bool = False

    def take(self, text: str, now_s: float) -> str:
        """Keep the whole text so far; gives what is new in it."""
        known = self.text or self.prompt
        if not text or text == known:
            self.text = self.text or text
            return ""
        self.text = text
        self.chunks += 1
        self.last_at_s = now_s
        if self.first_at_s is None:
            self.first_at_s = now_s
        return text.removeprefix(known)

    def end(self, now_s: float, error: str | None = None) -> None:
        self.ended = True
        self.error = error
        if self.last_at_s is None:  # an answer that adds nothing to its prompt
            self.last_at_s = now_s

    @property
    def to_first_s(self) -> float | None:
        return self._since_sent(self.first_at_s)

    @property
    def to_last_s(self) -> float | None:
        return self._since_sent(self.last_at_s)

    @property
    def characters(self) -> int:
        """Of what was generated: the text without its prompt."""
        return len(self.text.removeprefix(self.prompt))

    def _since_sent(self, moment_s: float | None) -> float | None:
        return None if moment_s is None or self.sent_at_s is None else moment_s - self.sent_at_s


@dataclass(frozen=True, slots=True)
class Spread:
    """How measured times are spread."""

    p50_s: float
    p95_s: float
    max_s: float


def spread_of(times_s: Iterable[float | None]) -> Spread | None:
    """None where nothing was measured."""
    known = [time_s for time_s in times_s if time_s is not None]
    if not known:
        return None
    p50_s, p95_s = np.percentile(known, [50, 95])
    return Spread(float(p50_s), float(p95_s), max(known))
