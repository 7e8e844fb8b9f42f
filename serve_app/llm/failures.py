"""What vLLM and ray.serve.llm raise at a request, as errors that a router can read."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.v1.engine.exceptions import EngineDeadError

from serve_app.errors import InvalidRequestError, ModelError, NotFoundError, ServeAppError, UnavailableError

logger = logging.getLogger("ray.serve")


@contextmanager
def in_our_words(model: str) -> Iterator[None]:
    """A router that got one of vLLM's errors would import vLLM to read it, for seconds."""
    try:
        yield
    except ServeAppError:
        raise
    except EngineDeadError:
        raise UnavailableError(f"the engine of '{model}' died; try again") from None
    except (VLLMClientError, ValueError) as problem:
        raise InvalidRequestError(str(problem)) from None
    except GracefulHTTPError as problem:
        raise UnavailableError(f"'{model}' is busy: {problem}") from None
    except HTTPException as problem:  # ray.serve.llm's, with the bucket's address
        if problem.status_code != NotFoundError.status:
            raise ModelError(f"model '{model}' failed with status {problem.status_code}") from None
        raise NotFoundError(f"model '{model}' has no such adapter") from None
    except Exception as problem:
        logger.error(f"{model} failed at a request", exc_info=problem)
        raise ModelError(f"model '{model}' failed: {type(problem).__name__}; the log says more") from None
