"""What is known of the request that is being answered; every part adds what it learns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from serve_app.types import StageTimes

CANCELLED = 499  # what others call a caller who left; no answer carries it


@dataclass(slots=True)
class Observation:
    """One request; names of tracks and models stand here only once they are known to exist."""

    protocol: str = ""
    track: str = ""
    model: str = ""
    status: int = 200
    refused: str = ""  # why, where it was not worked on
    retried: str = ""  # the deployment whose replica died under it
    received_bytes: int = 0
    sent_bytes: int = 0
    times: Sequence[StageTimes] = ()  # of each picture


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def observed() -> Observation:
    """That of the request at hand; where nobody observes, one that is forgotten."""
    return _current.get() or Observation()


@contextmanager
def observing(observation: Observation) -> Iterator[None]:
    """In this task, and in those that it starts."""
    token = _current.set(observation)
    try:
        yield
    finally:
        _current.reset(token)
