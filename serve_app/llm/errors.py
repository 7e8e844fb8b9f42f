"""Errors of vLLM and ray.serve.llm, translated into serve_app's: at a request, and when an engine can't start."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from fastapi import HTTPException
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.v1.engine.exceptions import EngineDeadError

from serve_app.errors import InvalidRequestError, ModelError, NotFoundError, ServeAppError, UnavailableError

logger = logging.getLogger("ray.serve")
STDERR = Path("/proc/self/fd/2")
TAIL_BYTES = 256 << 10
# `(EngineCore pid=12) ERROR 11-21 12:00:00 [core.py:1] ValueError: the reason`
ENGINE_LINE = re.compile(r"^\((?:EngineCore|Worker)[^)\n]*\)[ \t]*(?:ERROR [^\]\n]*\])?(.*)$", re.MULTILINE)
ERROR = re.compile(r"(?:[\w.]*\.)?\w*(?:Error|Exception):(.*)")
IGNORED = "Exception ignored"
# Messages that only say that another process failed.
CONSEQUENCE = re.compile(
    r"root cause|Engine core initialization failed|Failed core proc|WorkerProc initialization failed"
)


@contextmanager
def translate_errors(model: str) -> Iterator[None]:
    """Raise serve_app's errors only: to unpickle one of vLLM's, a router would import vLLM for seconds."""
    try:
        yield
    except ServeAppError:
        raise
    except EngineDeadError:
        raise UnavailableError(f"the engine of model '{model}' died; try again") from None
    except (VLLMClientError, ValueError, OverflowError) as problem:  # the last for numbers that no message can hold
        raise InvalidRequestError(str(problem)) from None
    except GracefulHTTPError as problem:
        raise UnavailableError(f"model '{model}' is busy: {problem}") from None
    except HTTPException as problem:  # from ray.serve.llm; its message has the bucket's address
        if problem.status_code != NotFoundError.status:
            raise ModelError(f"model '{model}' failed with status {problem.status_code}") from None
        raise NotFoundError(f"model '{model}' has no such adapter") from None
    except Exception as problem:
        logger.error(f"model '{model}' failed on a request", exc_info=problem)
        raise ModelError(f"model '{model}' failed: {type(problem).__name__}; see the replica's log") from None


def stderr_size() -> int:
    """The current size of this process's stderr log; 0 where stderr is no file."""
    try:
        return os.stat(STDERR).st_size
    except OSError:
        return 0


def startup_reason(problem: BaseException, log_start: int) -> str:
    """Why the engine didn't start, on one line.

    vLLM's engine process writes the cause only to its log, so the last error logged after `log_start` is taken where
    the exception itself just says that a process failed.
    """
    logged = [text for text in _logged_errors(_read_stderr(log_start)) if not CONSEQUENCE.search(text)]
    message = " ".join(str(problem).split()) or type(problem).__name__
    return " ".join(logged[-1].split()) if logged and CONSEQUENCE.search(message) else message


def _logged_errors(log: str) -> Iterator[str]:
    """The message of each error of the engine; it may begin on the line after the error's name."""
    ignored = False
    lines = [found[1].strip() for found in ENGINE_LINE.finditer(log)]
    for line, following in pairwise([*lines, ""]):
        if line.startswith(IGNORED):
            ignored = True
        elif found := ERROR.match(line):
            if not ignored:
                yield found[1].strip() or following
            ignored = False


def _read_stderr(start: int) -> str:
    try:
        with STDERR.open("rb") as log:
            log.seek(max(start, os.fstat(log.fileno()).st_size - TAIL_BYTES))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
