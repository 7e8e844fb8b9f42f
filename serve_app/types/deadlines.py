"""When work is too late: a deadline is a Unix time, the same for every process that a request passes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_app.errors import DeadlineExceededError

LATE = "the deadline of the request has passed"


def left_s(deadline: float | None, late: str = LATE) -> float | None:
    """Seconds until the deadline; once it has passed, an error with the message `late`."""
    if deadline is None:
        return None
    left = deadline - time.time()
    if left <= 0:
        raise DeadlineExceededError(late)
    return left


@asynccontextmanager
async def until(deadline: float | None, passed: str, late: str = LATE) -> AsyncIterator[None]:
    """What takes longer is cancelled, with `passed`. Not to be held over a yield: it would cancel the consumer."""
    try:
        async with asyncio.timeout(left_s(deadline, late)) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceededError(passed) from None
