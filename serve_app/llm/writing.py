"""What the engine gives, as the tensors of a Triton answer."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from vllm import RequestOutput
from vllm.outputs import CompletionOutput

from serve_app.llm.contracts import EXTRAS, Generation, pack_numbers, pack_texts
from serve_app.types.tensors import InferAnswer, InferRequest, Tensor

LEAST = -9999.0
# What each output on demand says of one of the sequences.
TELLERS: Mapping[str, Callable[[CompletionOutput], Any]] = {
    "return_finish_reason": lambda one: str(one.finish_reason),
    "return_cumulative_logprob": lambda one: one.cumulative_logprob or 0.0,
    "return_logprobs": lambda one: _logprobs(one),
    "return_num_output_tokens": lambda one: len(one.token_ids),
}


class Writing:
    """The answers of one request, one for each output of the engine."""

    def __init__(self, asked: InferRequest, generation: Generation, sequences: int) -> None:
        self._asked = asked
        self._generation = generation
        self._texts = [""] * sequences
        self.finished = False

    def answer(self, output: RequestOutput) -> InferAnswer:
        """With the prompt and all so far, or with what is new, as the contract has it."""
        self.finished = output.finished
        contract = self._generation.contract
        fresh = [""] * len(self._texts)
        for one in output.outputs:
            fresh[one.index] = one.text
        self._texts = [before + text for before, text in zip(self._texts, fresh, strict=True)]
        prompt = self._generation.prompt if self._generation.with_prompt else ""
        texts = [prompt + text for text in (self._texts if contract.whole else fresh)]
        tensors = [
            pack_texts(contract.text, texts),
            *(_extra(flag, output, len(texts)) for flag in self._generation.extras),
        ]
        wanted = {one.name for one in self._asked.outputs}
        return InferAnswer(
            model=self._asked.model,
            version="1",
            id=self._asked.id,
            outputs=tuple(tensor for tensor in tensors if not wanted or tensor.name in wanted),
            final=output.finished,
        )


def _silent(index: int) -> CompletionOutput:
    """A sequence that this output says nothing of."""
    return CompletionOutput(index=index, text="", token_ids=[], cumulative_logprob=None, logprobs=None)


def _extra(flag: str, output: RequestOutput, sequences: int) -> Tensor:
    name, datatype = EXTRAS[flag]
    values: list[Any]
    if flag == "return_num_input_tokens":
        values = [len(output.prompt_token_ids or ())]
    else:
        told = {one.index: one for one in output.outputs}
        values = [TELLERS[flag](told.get(index) or _silent(index)) for index in range(sequences)]
    return pack_texts(name, values) if datatype == "BYTES" else pack_numbers(name, datatype, values)


def _logprobs(one: CompletionOutput) -> str:
    """Of each token, the likeliest with their ranks."""
    steps = [{token: _chance(it) for token, it in step.items()} for step in one.logprobs or ()]
    return json.dumps(steps)


def _chance(it: Any) -> dict[str, Any]:
    # JSON has no infinity; this is what vLLM writes for it elsewhere
    return {"logprob": max(it.logprob, LEAST), "rank": it.rank, "decoded_token": it.decoded_token}
