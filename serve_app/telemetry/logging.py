"""A log filter that keeps the contents of requests out of the logs."""

import logging

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
