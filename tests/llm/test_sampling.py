"""Sampling parameters: vLLM's own, in the types that Triton's clients send."""

import pytest
from vllm.sampling_params import RequestOutputKind

from serve_app.errors import InvalidRequestError
from serve_app.llm.sampling import read_parameters


def test_strings_stand_for_numbers_and_flags():
    values = {"temperature": "0.1", "top_p": "0.95", "max_tokens": "512", "ignore_eos": "true", "stop": "x"}
    found = read_parameters(values, stream=False)
    assert (found.temperature, found.top_p, found.max_tokens, found.ignore_eos) == (0.1, 0.95, 512, True)
    assert found.stop == ["x"]
    assert found.output_kind is RequestOutputKind.FINAL_ONLY
    assert read_parameters({}, stream=True).output_kind is RequestOutputKind.DELTA


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tempature": 1}, "unknown sampling parameter 'tempature'; did you mean 'temperature'?"),
        ({"output_kind": 2}, "unknown sampling parameter 'output_kind'"),
        ({"_eos_token_id": 2}, "unknown sampling parameter '_eos_token_id'"),
        ({"max_tokens": -1}, "max_tokens must be at least 1, got -1"),
        ({"n": 10**9}, "n must be at most"),
        ({"temperature": "nan"}, "temperature must be a finite number"),
        ({"temperature": [1]}, "Expected `float`, got `array`"),
        ({"seed": "x"}, "Expected `int | null`, got `str`"),
        ({"top_p": 2}, "top_p must be in (0, 1]"),
        ({"logit_bias": {"5": "x"}}, "Expected `float`, got `str`"),
    ],
)
def test_what_vllm_can_not_mean_is_refused_with_its_words(values, message):
    with pytest.raises(InvalidRequestError) as caught:
        read_parameters(values, stream=False)
    assert message in caught.value.message
