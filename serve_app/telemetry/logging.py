"""What this project changes of Python's logging: no contents of requests, and no handler that is lost."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.errors import ServeAppError


class RefusalFilter(logging.Filter):
    """Logs a refused request as one INFO line without its message, which may quote what the client sent.

    Serve logs every exception of a replica as an error with its traceback.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        problem = record.exc_info[1] if record.exc_info else None
        if isinstance(problem, ServeAppError) and problem.status != ServeAppError.status:
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            record.msg, record.args = f"Request refused: {type(problem).__name__}", ()
            record.exc_info = record.exc_text = None
        return True


def hide_request_contents() -> None:
    """Call this at the start of every replica."""
    logging.getLogger("ray.serve").addFilter(RefusalFilter())


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Around an import that configures logging anew: vLLM's closes every handler there is, Serve's file among them."""
    kept = logging._handlerList[:]  # type: ignore[attr-defined]
    logging._handlerList.clear()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        logging._handlerList[:0] = kept  # type: ignore[attr-defined]
