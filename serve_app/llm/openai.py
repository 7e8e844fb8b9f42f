"""OpenAI's requests at the replica: read, handed to ray.serve.llm's server, and answered in OpenAI's shapes."""

import difflib
from collections.abc import AsyncIterator, Mapping
from typing import Any, get_type_hints

from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from pydantic import BaseModel, TypeAdapter, ValidationError
from ray.serve.llm.openai_api_models import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
)

from serve_app.errors import InvalidRequestError

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
    try:
        request: BaseModel = adapter.validate_python(document)
    except ValidationError as problem:
        raise InvalidRequestError(_reason(problem)) from None
    except (ValueError, TypeError) as problem:  # vLLM's own checks
        raise InvalidRequestError(str(problem)) from None
    _require_known(document, request, get_type_hints(client))
    return request


def _require_known(document: Mapping[str, Any], request: BaseModel, of_client: Mapping[str, Any]) -> None:
    """vLLM would ignore a misspelt field, and answer something else than was asked for."""
    known = set(of_client)
    for name, field in type(request).model_fields.items():
        known |= {name, field.alias or name}
    for name in document:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidRequestError(f"unknown field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _reason(problem: ValidationError) -> str:
    """Each mistake once, by its field; a union tells the same of each of its members."""
    lines = []
    for error in problem.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in error["loc"] if not str(part).endswith("Request"))
        line = f"{where}: {error['msg']}" if where else error["msg"]
        if line not in lines:
            lines.append(line.removeprefix("Value error, "))
    return "; ".join(lines[:5])


async def answers(replies: AsyncIterator[Any]) -> AsyncIterator[tuple[int, str]]:
    """Status and text of each piece: one JSON document, or server-sent events as they come."""
    async for reply in replies:
        for piece in reply if isinstance(reply, list) else [reply]:
            if error := getattr(piece, "error", None):  # ray.serve.llm has two classes of the name ErrorResponse
                yield error.code, piece.model_dump_json()
            elif isinstance(piece, str):
                yield 200, piece
            else:
                yield 200, piece.model_dump_json()
