"""OpenAI requests and answers at the replica, between JSON and the objects of ray.serve.llm's server."""

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import cache
from typing import Any, get_type_hints

from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from pydantic import BaseModel, TypeAdapter, ValidationError
from ray.serve.llm.openai_api_models import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
)
from vllm.exceptions import VLLMClientError

from serve_app.errors import InvalidRequestError
from serve_app.llm.limits import NO_MORE, Limits, require_allowed, require_bounded_grammars, require_few_sequences

Piece = tuple[int, str, int]  # of an answer: status, text, and the tokens that it took with its prompt
EVENT = "data: "
ERROR_EVENT = EVENT + '{"error"'
ONLY_USAGE = '"choices":[]'  # in an answer's text the quotes are escaped
USAGE = re.compile(r'data: (\{[^\n]*"choices":\[\][^\n]*"usage":\{[^\n]*\})\n\n')
VALIDATOR = re.compile(r"Request$|^function-")  # names that pydantic adds to a field's location for a union's members
# For each endpoint the server's method, the type of its request, and the fields that OpenAI's client may send.
ENDPOINTS: Mapping[str, tuple[str, TypeAdapter[Any], Any]] = {
    "chat/completions": (
        "chat", TypeAdapter(ChatCompletionRequest), chat_create_params.CompletionCreateParamsStreaming,
    ),
    "completions": (
        "completions", TypeAdapter(CompletionRequest), completion_create_params.CompletionCreateParamsStreaming,
    ),
    "embeddings": ("embeddings", TypeAdapter(EmbeddingRequest), embedding_create_params.EmbeddingCreateParams),
}  # fmt: skip


def parse_request(endpoint: str, document: Mapping[str, Any], limits: Limits = NO_MORE) -> BaseModel:
    """Raises InvalidRequestError, which names the field, for a request that vLLM can't or may not take."""
    _, adapter, client = ENDPOINTS[endpoint]
    _require_readable(document)
    require_few_sequences(document, limits.max_sequences)
    require_bounded_grammars(document)
    try:
        request: BaseModel = adapter.validate_python(document)
    except ValidationError as problem:
        raise InvalidRequestError(_message(problem)) from None
    except (ValueError, TypeError, VLLMClientError) as problem:  # from vLLM's own validators
        raise InvalidRequestError(str(problem)) from None
    require_allowed(document, _fields_of(client), _fields_of_vllm(type(request)), limits.extra_fields)
    return request


def _require_readable(document: Mapping[str, Any]) -> None:
    """Checks that vLLM lacks, and formats that ray.serve.llm can't answer in."""
    if not isinstance(document.get("structured_outputs"), dict | None):
        raise InvalidRequestError("structured_outputs: must be an object")
    if document.get("encoding_format") in ("bytes", "bytes_only"):
        raise InvalidRequestError("encoding_format: must be float or base64")


@cache
def _fields_of(client: Any) -> frozenset[str]:
    """Cached, because resolving the client's type hints takes longer than reading a request."""
    return frozenset(get_type_hints(client))


@cache
def _fields_of_vllm(request: type[BaseModel]) -> frozenset[str]:
    return frozenset({*request.model_fields, *(field.alias or "" for field in request.model_fields.values())})


def _message(problem: ValidationError) -> str:
    """Up to five errors, each once: pydantic repeats an error for every member of a union."""
    lines = []
    for error in problem.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in error["loc"] if not VALIDATOR.search(str(part)))
        line = f"{where}: {error['msg']}" if where else error["msg"]
        if line not in lines:
            lines.append(line.removeprefix("Value error, "))
    return "; ".join(lines[:5])


def wants_usage(document: Mapping[str, Any]) -> bool:
    options = document.get("stream_options")
    return isinstance(options, Mapping) and bool(options.get("include_usage"))


def with_usage(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stream that ends with its usage, as this service counts tokens; the client sees it only if it asked for it."""
    options = document.get("stream_options")
    if document.get("stream") is not True or not isinstance(options, dict | None):
        return document
    return {**document, "stream_options": {**(options or {}), "include_usage": True}}


async def stream_answer(replies: AsyncGenerator[Any], shows_usage: bool = True) -> AsyncGenerator[Piece]:
    """One JSON document, or an event after the other; the tokens are given once."""
    started = False
    async with aclosing(replies):
        async for reply in replies:
            for piece in reply if isinstance(reply, list) else [reply]:
                if not isinstance(piece, str):
                    yield _document(piece)
                elif ONLY_USAGE in piece:
                    yield _usage(piece, shows_usage)
                elif started or not piece.startswith(ERROR_EVENT):
                    yield 200, piece, 0
                else:  # nothing is sent yet, so the status can still be the error's
                    document = json.loads(piece.removeprefix(EVENT))
                    yield document["error"]["code"], json.dumps(document), 0
                    return
                started = True


def _document(answer: Any) -> Piece:
    error = getattr(answer, "error", None)  # ray.serve.llm has two classes named ErrorResponse
    tokens = getattr(getattr(answer, "usage", None), "total_tokens", 0) or 0
    return error.code if error else 200, answer.model_dump_json(), tokens


def _usage(events: str, shown: bool) -> Piece:
    """The events with the one of the usage, or without it where the client didn't ask for it."""
    found = USAGE.search(events)
    if not found:
        return 200, events, 0
    return 200, events if shown else events.replace(found[0], ""), json.loads(found[1])["usage"]["total_tokens"]
