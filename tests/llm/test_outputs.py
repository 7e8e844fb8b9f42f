"""Answers built from vLLM's outputs, under both contracts, for one sequence and for several."""

import json
import math

import numpy as np
from vllm import RequestOutput
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput

from serve_app.llm.contracts import OPTIONAL_OUTPUTS, PROMPT, TEXT_INPUT, GenerationRequest
from serve_app.llm.outputs import AnswerBuilder
from serve_app.types.tensors import InferRequest, RequestedOutput


def one(text="", index=0, tokens=(), total=None, logprobs=None, reason=None):
    return CompletionOutput(index, text, tokens, total, logprobs, finish_reason=reason)


def output(*sequences, finished=False, prompt_ids=(1, 2, 3)):
    return RequestOutput("id", "ask", prompt_ids and list(prompt_ids), None, list(sequences), finished)


def start(contract=TEXT_INPUT, with_prompt=False, flags=(), outputs=(), sequences=1):
    request = InferRequest("demo-llm", id="mine", outputs=tuple(RequestedOutput(name) for name in outputs))
    generation = GenerationRequest(contract, "ask", True, with_prompt or contract.cumulative, optional_outputs=flags)
    return AnswerBuilder(request, generation, sequences)


def tensors(answer):
    return {tensor.name: tensor for tensor in answer.outputs}


def values(answer, name="text_output"):
    tensor = tensors(answer)[name]
    return [it.decode() for it in tensor.elements()] if tensor.datatype == "BYTES" else tensor.array().tolist()


def strict_json(text):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_prompt_contract_repeats_all_text_and_the_text_contract_sends_what_is_new():
    for contract, texts in ((PROMPT, ["ask one", "ask one", "ask one two"]), (TEXT_INPUT, [" one", "", " two"])):
        builder = start(contract)
        found = [values(builder.build(output(one(text))), contract.text) for text in (" one", "", " two")]
        assert found == [[text] for text in texts]


def test_an_answer_begins_with_the_prompt_if_requested():
    for with_prompt, text in ((True, "ask one"), (False, " one")):
        assert values(start(with_prompt=with_prompt).build(output(one(" one"), finished=True))) == [text]


def test_only_the_answer_to_the_last_output_is_final():
    builder = start(sequences=2)
    first = builder.build(output(one("a", index=1, reason="stop")))
    assert (first.model, first.version, first.id, first.final) == ("demo-llm", "1", "mine", False)
    assert not builder.finished
    assert builder.build(output(one("", reason="stop"), finished=True)).final
    assert builder.finished


def test_sequences_keep_their_order_whichever_comes_first():
    for contract, expected in (
        (PROMPT, [["ask", "ask", "askC"], ["askA", "ask", "askCD"], ["askA", "ask", "askCD"]]),
        (TEXT_INPUT, [["", "", "C"], ["A", "", "D"], ["", "", ""]]),
    ):
        builder = start(contract, sequences=3)
        outputs = (
            output(one("C", index=2)),
            output(one("D", index=2), one("A", index=0)),
            output(finished=True),  # no sequence
        )
        assert [values(builder.build(it), contract.text) for it in outputs] == expected


def test_text_is_always_utf_8():
    found = tensors(start().build(output(one("naïve 🦜 \ud83e"))))["text_output"]
    assert (found.datatype, found.shape, found.elements()) == ("BYTES", (1,), ["naïve 🦜 ?".encode()])


def test_optional_outputs_have_a_value_for_each_sequence():
    sequences = (one("b", 1, (7, 8, 9), -2.25, reason="length"), one("a", 0, [7, 8], -1.5, reason="stop"))
    builder = start(flags=tuple(OPTIONAL_OUTPUTS), sequences=2)
    answer = builder.build(output(*sequences, finished=True))
    assert {name: values(answer, name) for name in tensors(answer)} == {
        "text_output": ["a", "b"],
        "finish_reason": ["stop", "length"],
        "cumulative_logprob": [-1.5, -2.25],
        "logprobs": ["[]", "[]"],
        "num_input_tokens": [3],
        "num_output_tokens": [2, 3],
    }
    assert {name: tensor.datatype for name, tensor in tensors(answer).items()} == {
        "text_output": "BYTES", **dict(OPTIONAL_OUTPUTS.values()),
    }  # fmt: skip


def test_optional_outputs_have_a_value_where_the_engine_gives_none():
    answer = start(flags=tuple(OPTIONAL_OUTPUTS), sequences=2).build(output(one("b", index=1), prompt_ids=None))
    assert {name: values(answer, name) for name in tensors(answer)} == {
        "text_output": ["", "b"],
        "finish_reason": ["None", "None"],
        "cumulative_logprob": [0.0, 0.0],
        "logprobs": ["[]", "[]"],
        "num_input_tokens": [0],
        "num_output_tokens": [0, 0],
    }


def test_logprobs_are_json_with_the_likeliest_tokens_of_each_step():
    steps = [{7: Logprob(-0.5, 1, " a"), 9: Logprob(-math.inf, 2, "\ufffd")}, {8: Logprob(-0.25, None, None)}]
    answer = start(flags=("return_logprobs",)).build(output(one("ab", logprobs=steps)))
    assert [strict_json(text) for text in values(answer, "logprobs")] == [
        [
            {
                "7": {"logprob": -0.5, "rank": 1, "decoded_token": " a"},
                "9": {"logprob": -9999.0, "rank": 2, "decoded_token": "\ufffd"},
            },
            {"8": {"logprob": -0.25, "rank": None, "decoded_token": None}},
        ]
    ]
    answer = start(flags=("return_cumulative_logprob",)).build(output(one(total=-math.inf)))
    assert np.isneginf(tensors(answer)["cumulative_logprob"].array()).all()


def test_only_requested_outputs_are_sent_and_text_is_kept_meanwhile():
    flags = ("return_finish_reason", "return_logprobs")
    for names in (("text_output",), ("finish_reason",), ("finish_reason", "text_output")):
        assert set(tensors(start(flags=flags, outputs=names).build(output(one("a"))))) == set(names)
    builder = start(PROMPT, outputs=("TEXT",))
    assert [values(builder.build(output(one(text))), "TEXT") for text in "abc"][-1] == ["askabc"]
