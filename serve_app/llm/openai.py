"""OpenAI's requests at the replica: read, handed to ray.serve.llm's server, and answered in OpenAI's shapes."""

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

from serve_app.errors import InvalidRequestError, near_miss

EVENT = "data: "
ERROR_EVENT = EVENT + '{"error"'
VALIDATOR = re.compile(r"Request$|^function-")  # pydantic's names of a union's members, among those of fields
# Which of the server's methods answers, what it takes, and what OpenAI's own client may send beside that.
ENDPOINTS: Mapping[str, tuple[str, TypeAdapter[Any], Any]] = {
    "chat/completions": (
        "chat", TypeAdapter(ChatCompletionRequest), chat_create_params.CompletionCreateParamsStreaming,
    ),
    "completions": (
        "completions", TypeAdapter(CompletionRequest), completion_create_params.CompletionCreateParamsStreaming,
    ),
    "embeddings": ("embeddings", TypeAdapter(EmbeddingRequest), embedding_create_params.EmbeddingCreateParams),
}  # fmt: skip


def read_request(endpoint: str, document: Mapping[str, Any]) -> BaseModel:
    """vLLM's request; what it can't mean is said with the field that is wrong."""
    _, adapter, client = ENDPOINTS[endpoint]
    _require_readable(document)
    try:
        request: BaseModel = adapter.validate_python(document)
    except ValidationError as problem:
        raise InvalidRequestError(_reason(problem)) from None
    except (ValueError, TypeError, VLLMClientError) as problem:  # vLLM's own checks
        raise InvalidRequestError(str(problem)) from None
    _require_known(document, request, client)
    return request


def _require_readable(document: Mapping[str, Any]) -> None:
    """What vLLM's checks take on trust, or ray.serve.llm couldn't answer."""
    if not isinstance(document.get("structured_outputs"), dict | None):
        raise InvalidRequestError("structured_outputs: must be an object")
    if document.get("encoding_format") in ("bytes", "bytes_only"):
        raise InvalidRequestError("encoding_format: must be float or base64")


def _require_known(document: Mapping[str, Any], request: BaseModel, client: Any) -> None:
    """vLLM would ignore a misspelt field, and answer something else than was asked for."""
    known = _fields_of(type(request), client)
    for name in document:
        if name not in known:
            raise InvalidRequestError(f"unknown field {name!r}{near_miss(name, known)}")


@cache
def _fields_of(request: type[BaseModel], client: Any) -> frozenset[str]:
    """Once for each kind of request: resolving a client's type hints takes longer than reading the request."""
    aliases = {field.alias or name for name, field in request.model_fields.items()}
    return frozenset({*request.model_fields, *aliases, *get_type_hints(client)})


def _reason(problem: ValidationError) -> str:
    """Each mistake once, by its field; a union tells the same of each of its members."""
    lines = []
    for error in problem.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in error["loc"] if not VALIDATOR.search(str(part)))
        line = f"{where}: {error['msg']}" if where else error["msg"]
        if line not in lines:
            lines.append(line.removeprefix("Value error, "))
    return "; ".join(lines[:5])


async def answers(replies: AsyncGenerator[Any]) -> AsyncGenerator[tuple[int, str]]:
    """Status and text of each piece: one JSON document, or server-sent events as they come."""
    begun = False
    async with aclosing(replies):
        async for reply in replies:
            for piece in reply if isinstance(reply, list) else [reply]:
                if error := getattr(piece, "error", None):  # ray.serve.llm has two classes of the name ErrorResponse
                    yield error.code, piece.model_dump_json()
                elif not isinstance(piece, str):
                    yield 200, piece.model_dump_json()
                elif begun or not piece.startswith(ERROR_EVENT):
                    yield 200, piece
                else:  # nothing was sent yet, so that the status can still tell
                    document = json.loads(piece.removeprefix(EVENT))
                    yield document["error"]["code"], json.dumps(document)
                    return
                begun = True
