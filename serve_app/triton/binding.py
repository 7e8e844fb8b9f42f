"""Which package offers Triton's Python API here, and its errors in our own terms."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

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

# How Triton's queue policy refuses: at the door, or a request that waited too long.
QUEUE_FULL = ("Exceeds maximum queue size", "Request timeout expired")


@cache  # every request asks, and an import that fails searches the path anew each time
def find_tritonserver() -> ModuleType:
    """NVIDIA's package where it is installed, as in its images; else ours with the same API."""
    try:
        import tritonserver
    except ImportError:
        from serve_app.triton import embedded as tritonserver
    return tritonserver  # type: ignore[no-any-return]


def one_line(reason: str) -> str:
    """What a backend says, without the stack that the Python backend adds."""
    return " ".join(reason.split("\nAt:\n")[0].split())


@cache
def translations() -> tuple[tuple[type[Exception], type[ServeAppError]], ...]:
    """Triton's error classes with ours, the general one last; NVIDIA's package has none for a cancelled request."""
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
    """Triton's typed errors as ours: the one place where that happens. `what` goes before Triton's own words.

    Triton names a request by its id; one that the caller didn't choose is left out.
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
