"""What logs say of a request that was refused: its kind, and nothing of what the caller sent."""

import logging

from serve_app.errors import ServeAppError


class Refusals(logging.Filter):
    """Serve logs what a replica raises as the replica's own error, with the message, which quotes the caller."""

    def filter(self, record: logging.LogRecord) -> bool:
        problem = record.exc_info[1] if record.exc_info else None
        if isinstance(problem, ServeAppError) and problem.status != ServeAppError.status:
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            record.msg, record.args = f"Request refused: {type(problem).__name__}", ()
            record.exc_info = record.exc_text = None
        return True


def keep_contents_out() -> None:
    """In every replica, at its start."""
    logging.getLogger("ray.serve").addFilter(Refusals())
