"""What a request to a language model may ask for: fields that are known, few sequences, grammars of bounded cost."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.errors import InvalidRequestError, near_miss

# Fields of vLLM's that OpenAI's clients have no argument for. What it has besides reaches into the engine or the host:
# templates, loaders' arguments, transfers of caches, priorities.
EXTENSIONS = frozenset({
    "add_generation_prompt", "add_special_tokens", "allowed_token_ids", "bad_words", "cache_salt",
    "chat_template_kwargs", "continue_final_message", "documents", "echo", "embed_dtype", "endianness", "ignore_eos",
    "include_reasoning", "include_stop_str_in_output", "length_penalty", "logprob_token_ids", "messages", "min_p",
    "min_tokens", "padding", "prompt_logprobs", "repetition_detection", "repetition_penalty", "response_format",
    "return_assistant_tokens_mask", "return_prompt_text", "return_token_ids", "return_token_offsets",
    "return_tokens_as_token_ids", "skip_special_tokens", "spaces_between_special_tokens", "stop_token_ids",
    "structured_outputs", "thinking_token_budget", "top_k", "truncate_prompt_tokens", "truncation_side",
    "use_activation", "use_beam_search",
})  # fmt: skip
LIMITS = "serve_app_limits"  # in the configuration that a replica is given
MAX_SEQUENCES = 64
MAX_COUNTED = 10**9  # answers; Python can't write a product of thousands of digits into the error's message
MAX_INPUTS = 2048  # of an embedding request, as in OpenAI's API
MAX_GRAMMAR_CHARACTERS = 64 << 10  # of a schema, a grammar, or all choices together
MAX_DEPTH = 32  # of a schema; a level of nested objects has two
MAX_CHOICES = 1000
MAX_REGEX_CHARACTERS = 4096
MAX_REPEATS = 10_000  # of a regular expression's {n}, multiplied, or of a schema's minItems and the like
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration says of a model; `extra_fields` are vLLM's that requests may have besides."""

    max_sequences: int = MAX_SEQUENCES
    extra_fields: tuple[str, ...] = ()


NO_MORE = Limits()


def require_allowed(
    document: Mapping[str, Any], of_client: Collection[str], of_vllm: Collection[str], extra: Collection[str] = ()
) -> None:
    """Fields of OpenAI's client, and those of vLLM's that are EXTENSIONS or that the configuration adds."""
    for name in document:
        if name not in of_client and not (name in of_vllm and (name in EXTENSIONS or name in extra)):
            allowed = {*of_client, *(set(of_vllm) & {*EXTENSIONS, *extra})}
            raise InvalidRequestError(f"unknown field {name!r}{near_miss(name, allowed)}")


def require_few_sequences(document: Mapping[str, Any], most: int) -> None:
    """Prompts times answers; what is no list of prompts or no number the model refuses."""
    prompt, n, inputs = document.get("prompt"), document.get("n"), document.get("input")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    asked = prompts * (min(n, MAX_COUNTED) if isinstance(n, int) else 1)
    if asked > most:
        raise InvalidRequestError(f"prompts times n must be at most {most}, got {asked}")
    if isinstance(inputs, list) and inputs and not isinstance(inputs[0], int) and len(inputs) > MAX_INPUTS:
        raise InvalidRequestError(f"input: at most {MAX_INPUTS} texts, got {len(inputs)}")


def require_bounded_grammars(document: Mapping[str, Any]) -> None:
    """Before they are compiled, which can take an engine seconds or all of its memory."""
    for place, schema in _schemas_of(document):
        _require_bounded_schema(place, schema)
    outputs = document.get("structured_outputs")
    if not isinstance(outputs, Mapping):
        return
    choices = outputs.get("choice")
    if isinstance(choices, list) and len(choices) > MAX_CHOICES:
        raise InvalidRequestError(f"structured_outputs.choice: at most {MAX_CHOICES}, got {len(choices)}")
    for name in ("grammar", "choice", "structural_tag"):
        _require_short(f"structured_outputs.{name}", outputs.get(name), MAX_GRAMMAR_CHARACTERS)
    for name in ("regex", "whitespace_pattern"):
        _require_bounded_regex(f"structured_outputs.{name}", outputs.get(name))


def _schemas_of(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    outputs = document.get("structured_outputs")
    if isinstance(outputs, Mapping) and outputs.get("json") is not None:
        schema = outputs["json"]
        _require_short("structured_outputs.json", schema, MAX_GRAMMAR_CHARACTERS)
        yield "structured_outputs.json", _parsed(schema) if isinstance(schema, str) else schema
    if document.get("response_format") is not None:
        yield "response_format", document["response_format"]
    tools = document.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        yield f"tools.{number}", tool


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("structured_outputs.json: not valid JSON") from None


def _require_bounded_schema(place: str, schema: Any) -> None:
    waiting = [(schema, 0)]
    characters = 0
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidRequestError(f"{place}: nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, Mapping):
            _require_bounded_object(place, value)
            characters += sum(len(str(name)) for name in value)
            waiting += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, list):
            waiting += [(one, depth + 1) for one in value]
        characters += len(value) if isinstance(value, str) else 1
        if characters > MAX_GRAMMAR_CHARACTERS:
            raise InvalidRequestError(f"{place}: more than {MAX_GRAMMAR_CHARACTERS} characters")


def _require_bounded_object(place: str, schema: Mapping[str, Any]) -> None:
    for name in COUNTS:
        count = schema.get(name)
        if isinstance(count, int | float) and count > MAX_REPEATS:
            raise InvalidRequestError(f"{place}: {name} must be at most {MAX_REPEATS}, got {count}")
    _require_bounded_regex(f"{place}: pattern", schema.get("pattern"))


def _require_bounded_regex(place: str, pattern: Any) -> None:
    if not isinstance(pattern, str):
        return
    _require_short(place, pattern, MAX_REGEX_CHARACTERS)
    repeats = 1
    for low, high in REPEAT.findall(pattern):
        repeats *= max(int(low), int(high or 0), 1) if len(low) < 6 and len(high) < 6 else MAX_REPEATS + 1
        if repeats > MAX_REPEATS:
            raise InvalidRequestError(f"{place}: its repeats multiply to more than {MAX_REPEATS}")


def _require_short(place: str, value: Any, most: int) -> None:
    characters = sum(len(str(one)) for one in value) if isinstance(value, list) else len(str(value))
    if value is not None and characters > most:
        raise InvalidRequestError(f"{place}: at most {most} characters, got {characters}")
