"""What is known about the current request, filled in by every part of the router that handles it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from serve_app.types import StageTimes

CANCELLED = 499  # nginx's status for a client that closed the connection; no answer carries it


@dataclass(slots=True)
class Observation:
    """One request; `track` and `model` are set only after they were found to exist."""

    protocol: str = ""
    track: str = ""
    model: str = ""
    caller: Any = None  # whose key came with the request, where keys are asked for
    tokens: int = 0  # of a language model, prompt and answer
    status: int = 200
    refused: str = ""  # the reason, if the request was refused
    retried: str = ""  # the deployment whose replica died, if the request was retried
    received_bytes: int = 0
    sent_bytes: int = 0
    times: Sequence[StageTimes] = ()  # of each image


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def observed() -> Observation:
    """The current request's observation, or a new one outside of a request."""
    return _current.get() or Observation()


@contextmanager
def observing(observation: Observation) -> Iterator[None]:
    """Make it the current one in this task and in the tasks that it starts."""
    token = _current.set(observation)
    try:
        yield
    finally:
        _current.reset(token)
