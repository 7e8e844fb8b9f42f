"""vLLM's outputs as the tensors of Triton answers."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from vllm import RequestOutput
from vllm.outputs import CompletionOutput

from serve_app.llm.contracts import OPTIONAL_OUTPUTS, GenerationRequest, pack_numbers, pack_texts
from serve_app.types.tensors import InferAnswer, InferRequest, Tensor

LEAST_LOGPROB = -9999.0
# The value of an optional output for one sequence, by the flag that requests it.
VALUES: Mapping[str, Callable[[CompletionOutput], Any]] = {
    "return_finish_reason": lambda sequence: str(sequence.finish_reason),
    "return_cumulative_logprob": lambda sequence: sequence.cumulative_logprob or 0.0,
    "return_logprobs": lambda sequence: _logprobs(sequence),
    "return_num_output_tokens": lambda sequence: len(sequence.token_ids),
}


class AnswerBuilder:
    """Builds the answers of one request, one for each output of the engine."""

    def __init__(self, request: InferRequest, generation: GenerationRequest, sequences: int) -> None:
        self._request = request
        self._generation = generation
        self._texts = [""] * sequences
        self.finished = False
        self._tokens = 0

    def build(self, output: RequestOutput) -> InferAnswer:
        self.finished = output.finished
        self._tokens += sum(len(sequence.token_ids) for sequence in output.outputs)
        contract = self._generation.contract
        delta = [""] * len(self._texts)
        for sequence in output.outputs:
            delta[sequence.index] = sequence.text
        self._texts = [before + text for before, text in zip(self._texts, delta, strict=True)]
        prompt = self._generation.prompt if self._generation.with_prompt else ""
        texts = [prompt + text for text in (self._texts if contract.cumulative else delta)]
        tensors = [
            pack_texts(contract.text, texts),
            *(_optional_output(flag, output, len(texts)) for flag in self._generation.optional_outputs),
        ]
        requested = {tensor.name for tensor in self._request.outputs}
        return InferAnswer(
            model=self._request.model,
            version="1",
            id=self._request.id,
            outputs=tuple(tensor for tensor in tensors if not requested or tensor.name in requested),
            final=output.finished,
            tokens=len(output.prompt_token_ids or ()) + self._tokens if output.finished else 0,
        )


def _optional_output(flag: str, output: RequestOutput, sequences: int) -> Tensor:
    name, datatype = OPTIONAL_OUTPUTS[flag]
    values: list[Any]
    if flag == "return_num_input_tokens":
        values = [len(output.prompt_token_ids or ())]
    else:
        present = {sequence.index: sequence for sequence in output.outputs}
        values = [VALUES[flag](present.get(index) or _empty_sequence(index)) for index in range(sequences)]
    return pack_texts(name, values) if datatype == "BYTES" else pack_numbers(name, datatype, values)


def _empty_sequence(index: int) -> CompletionOutput:
    """Stands for a sequence that is not in this output."""
    return CompletionOutput(index=index, text="", token_ids=[], cumulative_logprob=None, logprobs=None)


def _logprobs(sequence: CompletionOutput) -> str:
    """JSON with the likeliest tokens at each position."""
    steps = [{token: _logprob(found) for token, found in step.items()} for step in sequence.logprobs or ()]
    return json.dumps(steps)


def _logprob(found: Any) -> dict[str, Any]:
    # JSON has no infinity; vLLM's OpenAI server writes the same number in its place.
    return {
        "logprob": max(found.logprob, LEAST_LOGPROB),
        "rank": found.rank,
        "decoded_token": found.decoded_token,
    }
