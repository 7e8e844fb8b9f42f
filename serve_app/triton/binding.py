"""Triton's Python API: the package that offers it here, and its errors as this project's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.errors import (
    DeadlineExceededError,
    EngineError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
    ServeAppError,
    UnavailableError,
    UnsupportedError,
)  # fmt: skip

# Triton's messages when a queue is full, or a request waited in it too long
QUEUE_FULL = ("Exceeds maximum queue size", "Request timeout expired")


@cache  # a failing import searches the whole path, and every request calls this
def find_tritonserver() -> ModuleType:
    """NVIDIA's package if it is installed, as in its images; else the embedded one with the same API."""
    try:
        import tritonserver
    except ImportError:
        from serve_app.triton import embedded as tritonserver
    return tritonserver  # type: ignore[no-any-return]


def as_array(tensor: Any) -> npt.NDArray[Any]:
    """A view of a tensor's memory; by DLPack, which takes longer, where NVIDIA's package made it."""
    array: npt.NDArray[Any] = np.asarray(tensor) if hasattr(tensor, "__array__") else np.from_dlpack(tensor)
    return array


def one_line(reason: str) -> str:
    """A backend's message without the stack trace that the Python backend adds."""
    return " ".join(reason.split("\nAt:\n")[0].split())


@cache
def translations() -> tuple[tuple[type[Exception], type[ServeAppError]], ...]:
    """Triton's error classes with this project's, the general one last; NVIDIA's package lacks some."""
    triton = find_tritonserver()
    pairs: dict[str, type[ServeAppError]] = {
        "InvalidArgumentError": InvalidRequestError,
        "NotFoundError": NotFoundError,
        "UnavailableError": UnavailableError,
        "CancelledError": DeadlineExceededError,
        "UnsupportedError": UnsupportedError,
        "TritonError": EngineError,
    }
    return tuple((getattr(triton, name), ours) for name, ours in pairs.items() if hasattr(triton, name))


@contextmanager
def translated(what: str = "", request_id: str = "") -> Iterator[None]:
    """The one place where Triton's errors become this project's. `what` precedes Triton's own message.

    Triton's message names the request by its id; `request_id` is one that the caller didn't choose, which is left out.
    """
    try:
        yield
    except find_tritonserver().TritonError as problem:
        for theirs, ours in translations():
            if isinstance(problem, theirs):
                said = one_line(str(problem)).removeprefix(f"[request id: {request_id}] ")
                if any(words in said for words in QUEUE_FULL):
                    ours = QueueFullError
                raise ours(f"{what}: {said}" if what else said) from None
        raise
