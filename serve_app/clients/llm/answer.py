"""The answer to one prompt: its text so far, when its parts arrived, and how it ended."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Answer:
    """Grows while responses arrive; `…_at_s` are values of time.perf_counter()."""

    number: int
    prompt: str
    text: str = ""  # begins with the prompt
    chunks: int = 0  # responses with new text: usually one token each, but the contract does not count tokens
    sent_at_s: float | None = None
    first_at_s: float | None = None
    last_at_s: float | None = None
    error: str | None = None
    ended: bool = False

    def update(self, text: str, now_s: float) -> str:
        """Store the whole text so far and return the part that is new."""
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
        if self.last_at_s is None:  # no text was added to the prompt
            self.last_at_s = now_s

    @property
    def to_first_s(self) -> float | None:
        return self._since_sent(self.first_at_s)

    @property
    def to_last_s(self) -> float | None:
        return self._since_sent(self.last_at_s)

    @property
    def characters(self) -> int:
        """Length of the generated text, without the prompt."""
        return len(self.text.removeprefix(self.prompt))

    def _since_sent(self, at_s: float | None) -> float | None:
        return None if at_s is None or self.sent_at_s is None else at_s - self.sent_at_s


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of measured times."""

    p50_s: float
    p95_s: float
    max_s: float

    @classmethod
    def of(cls, times_s: Iterable[float | None]) -> "Latency | None":
        """None if nothing was measured."""
        known = [time_s for time_s in times_s if time_s is not None]
        if not known:
            return None
        p50_s, p95_s = np.percentile(known, [50, 95])
        return cls(float(p50_s), float(p95_s), max(known))
