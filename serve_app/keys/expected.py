"""How many tokens a request for a language model is expected to take, until its answer says how many it took."""

from collections.abc import Mapping
from typing import Any

BYTES_OF_TOKEN = 4
ANSWER_TOKENS = 256  # where the request sets no limit
LIMITS = ("max_completion_tokens", "max_tokens")


def expected_tokens(size: int, options: Mapping[str, Any], answers: bool = True) -> int:
    """By the size of the prompt and what the request allows the answer; embeddings have no answer of tokens."""
    prompt = size // BYTES_OF_TOKEN + 1
    if not answers:
        return prompt
    given = [options[name] for name in LIMITS if _is_count(options.get(name))]
    most = given[0] if given else ANSWER_TOKENS
    count = options["n"] if _is_count(options.get("n")) else 1
    return int(prompt + most * count)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
