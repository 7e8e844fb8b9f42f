"""Sampling parameters as Triton's clients send them: one JSON object or request parameters, often all in strings."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.sampling_params import RequestOutputKind

from serve_app.errors import InvalidRequestError, near_miss

# How outputs are cut and cleaned is this server's business, and vLLM's own fields are nobody's.
INTERNAL = ("output_kind", "skip_clone", "stream_interval", "output_text_buffer_length", "detokenize", "flat_logprobs")
KNOWN = tuple(
    name for name in SamplingParams.__struct_fields__ if not name.startswith("_") and name not in INTERNAL
)  # fmt: skip


def parse_parameters(name: str, text: str) -> dict[str, Any]:
    """The JSON object of a tensor."""
    try:
        values = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"{name} is no JSON: {text[:80]!r}") from None
    if not isinstance(values, dict):
        raise InvalidRequestError(f"{name} is no JSON object: {text[:80]!r}")
    return values


def read_parameters(values: Mapping[str, Any], stream: bool) -> SamplingParams:
    """vLLM's own object; text stands for a number or a flag where one is meant."""
    for name in values:
        if name not in KNOWN:
            hint = near_miss(name, KNOWN, f"there is: {', '.join(KNOWN)}")
            raise InvalidRequestError(f"unknown sampling parameter {name!r}{hint}")
    kind = RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY
    try:
        parameters: SamplingParams = msgspec.convert(dict(values), SamplingParams, strict=False)
        parameters.output_kind = kind
        return parameters
    except (msgspec.ValidationError, VLLMClientError, ValueError, TypeError, OverflowError) as problem:
        raise InvalidRequestError(f"sampling parameters: {problem}") from None
