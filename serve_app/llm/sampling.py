"""Sampling parameters of Triton clients: a JSON object or request parameters, whose values may all be strings."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.sampling_params import RequestOutputKind

from serve_app.errors import InvalidRequestError, near_miss
from serve_app.llm.limits import require_bounded_grammars

# Fields that the server sets itself.
INTERNAL = (
    "output_kind", "skip_clone", "stream_interval", "output_text_buffer_length", "detokenize", "flat_logprobs",
    "extra_args", "routed_experts_prompt_start", "skip_reading_prefix_cache", "trace_decode_token_ids",
)  # fmt: skip
KNOWN = tuple(
    name for name in SamplingParams.__struct_fields__ if not name.startswith("_") and name not in INTERNAL
)  # fmt: skip


def parse_json(name: str, text: str) -> dict[str, Any]:
    """Read the JSON object of the tensor or parameter `name`."""
    try:
        values = json.loads(text or "{}")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InvalidRequestError(f"{name} must be a JSON object, got {text[:80]!r}")
    return values


def build_sampling_params(values: Mapping[str, Any], stream: bool) -> SamplingParams:
    """vLLM's parameters; strings are converted to numbers and booleans."""
    for name in values:
        if name not in KNOWN:
            hint = near_miss(name, KNOWN, f"available: {', '.join(KNOWN)}")
            raise InvalidRequestError(f"unknown sampling parameter {name!r}{hint}")
    require_bounded_grammars(values)
    try:
        parameters: SamplingParams = msgspec.convert(dict(values), SamplingParams, strict=False)
    except (msgspec.ValidationError, VLLMClientError, ValueError, TypeError, OverflowError) as problem:
        raise InvalidRequestError(f"sampling parameters: {problem}") from None
    parameters.output_kind = RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY
    return parameters
