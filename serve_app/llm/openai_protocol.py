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


async def stream_answer(
    replies: AsyncGenerator[Any], shows_usage: bool = True
) -> AsyncGenerator[tuple[int, str] | int]:
    """Yield status and text: of one JSON document, or of each server-sent event. A number is the answer's tokens."""
    started = False
    async with aclosing(replies):
        async for reply in replies:
            for piece in reply if isinstance(reply, list) else [reply]:
                if error := getattr(piece, "error", None):  # ray.serve.llm has two classes named ErrorResponse
                    yield error.code, piece.model_dump_json()
                elif not isinstance(piece, str):
                    yield 200, piece.model_dump_json()
                    yield _tokens_of(getattr(piece, "usage", None))
                elif ONLY_USAGE in piece:
                    usage = USAGE.search(piece)
                    if usage:
                        yield json.loads(usage[1])["usage"]["total_tokens"]
                        piece = piece if shows_usage else piece.replace(usage[0], "")
                    if piece:
                        yield 200, piece
                elif started or not piece.startswith(ERROR_EVENT):
                    yield 200, piece
                else:  # nothing is sent yet, so the status can still be the error's
                    document = json.loads(piece.removeprefix(EVENT))
                    yield document["error"]["code"], json.dumps(document)
                    return
                started = True


def _tokens_of(usage: Any) -> int:
    return int(getattr(usage, "total_tokens", 0) or 0)
