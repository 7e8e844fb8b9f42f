"""Answers made of vLLM's own outputs: under both contracts, for one sequence and for several."""

import json
import math

import numpy as np
import pytest
from vllm import RequestOutput
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput

from serve_app.llm.contracts import EXTRAS, PROMPT, TEXT_INPUT, Generation
from serve_app.llm.writing import Writing
from serve_app.types.tensors import InferRequest, RequestedOutput


def one(text="", index=0, tokens=(), total=None, logprobs=None, reason=None):
    return CompletionOutput(index, text, tokens, total, logprobs, finish_reason=reason)


def output(*sequences, finished=False, prompt_ids=(1, 2, 3)):
    return RequestOutput("id", "ask", prompt_ids and list(prompt_ids), None, list(sequences), finished)


def writing(contract=TEXT_INPUT, stream=True, with_prompt=False, extras=(), outputs=(), sequences=1):
    asked = InferRequest("demo-llm", id="mine", outputs=tuple(RequestedOutput(name) for name in outputs))
    generation = Generation(contract, "ask", stream, with_prompt or contract.whole, extras=extras)
    return Writing(asked, generation, sequences)


def tensors(answer):
    return {tensor.name: tensor for tensor in answer.outputs}


def texts(answer, name="text_output"):
    return [element.decode() for element in tensors(answer)[name].elements()]


def strict_json(text):
    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_prompt_contract_gives_the_prompt_and_all_so_far():
    it = writing(PROMPT)
    found = [texts(it.answer(output(one(text))), "TEXT") for text in (" one", "", " two")]
    assert found == [["ask one"], ["ask one"], ["ask one two"]]


def test_the_text_contract_gives_what_is_new():
    it = writing()
    assert [texts(it.answer(output(one(text)))) for text in (" one", "", " two")] == [[" one"], [""], [" two"]]


@pytest.mark.parametrize(("with_prompt", "text"), [(True, "ask one"), (False, " one")])
def test_one_answer_has_the_prompt_unless_it_was_left_out(with_prompt, text):
    it = writing(stream=False, with_prompt=with_prompt)
    assert texts(it.answer(output(one(" one"), finished=True))) == [text]


def test_an_answer_is_the_requests_and_the_last_one_is_final():
    it = writing()
    first = it.answer(output(one("a")))
    assert (first.model, first.version, first.id, first.final, it.finished) == ("demo-llm", "1", "mine", False, False)
    assert it.answer(output(one("", reason="stop"), finished=True)).final
    assert it.finished


def test_a_request_is_not_finished_while_one_of_its_sequences_goes_on():
    it = writing(sequences=2)
    assert not it.answer(output(one("a", index=1, reason="stop"))).final
    assert it.answer(output(one("b", index=0, reason="length"), finished=True)).final


@pytest.mark.parametrize(
    ("contract", "expected"),
    [(PROMPT, [["ask", "ask", "askC"], ["askA", "ask", "askCD"]]), (TEXT_INPUT, [["", "", "C"], ["A", "", "D"]])],
)
def test_every_sequence_keeps_its_place_whichever_comes_first(contract, expected):
    it, name = writing(contract, sequences=3), contract.text
    first = texts(it.answer(output(one("C", index=2))), name)
    assert [first, texts(it.answer(output(one("D", index=2), one("A", index=0))), name)] == expected


def test_text_is_utf_8_whatever_the_tokens_were():
    found = tensors(writing().answer(output(one("naïve 🦜 \ud83e"))))["text_output"]
    assert (found.datatype, found.shape, found.elements()) == ("BYTES", (1,), ["naïve 🦜 ?".encode()])


@pytest.mark.parametrize(
    ("flag", "datatype", "expected"),
    [
        ("return_finish_reason", "BYTES", ["stop", "length"]),
        ("return_cumulative_logprob", "FP32", [-1.5, -2.25]),
        ("return_num_output_tokens", "UINT32", [2, 3]),
        ("return_num_input_tokens", "UINT32", [3]),
    ],
)
def test_what_was_asked_for_stands_beside_the_texts_in_their_order(flag, datatype, expected):
    sequences = (one("b", 1, (7, 8, 9), -2.25, reason="length"), one("a", 0, [7, 8], -1.5, reason="stop"))
    answer = writing(extras=(flag,), sequences=2).answer(output(*sequences, finished=True))
    told = tensors(answer)[EXTRAS[flag][0]]
    values = [it.decode() for it in told.elements()] if datatype == "BYTES" else told.array().tolist()
    assert (told.datatype, told.shape, values) == (datatype, (len(expected),), expected)
    assert texts(answer) == ["a", "b"]


def test_logprobs_tell_each_tokens_likeliest_with_their_ranks():
    steps = [{7: Logprob(-0.5, 1, " a"), 9: Logprob(-1.5, 2, "\ufffd")}, {8: Logprob(-0.25, None, None)}]
    answer = writing(extras=("return_logprobs",)).answer(output(one("ab", logprobs=steps)))
    assert [strict_json(text) for text in texts(answer, "logprobs")] == [
        [
            {
                "7": {"logprob": -0.5, "rank": 1, "decoded_token": " a"},
                "9": {"logprob": -1.5, "rank": 2, "decoded_token": "\ufffd"},
            },
            {"8": {"logprob": -0.25, "rank": None, "decoded_token": None}},
        ]
    ]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("return_finish_reason", "None"),
        ("return_cumulative_logprob", 0.0),
        ("return_logprobs", "[]"),
        ("return_num_output_tokens", 0),
        ("return_num_input_tokens", 0),
    ],
)
def test_what_the_engine_does_not_say_has_a_value_too(flag, value):
    told = tensors(writing(extras=(flag,)).answer(output(one(), prompt_ids=None)))[EXTRAS[flag][0]]
    assert (told.elements()[0].decode() if told.datatype == "BYTES" else told.array()[0]) == value


def test_a_token_that_could_not_be_makes_the_sum_infinite():
    answer = writing(extras=("return_cumulative_logprob",)).answer(output(one(total=-math.inf)))
    assert np.isneginf(tensors(answer)["cumulative_logprob"].array()).all()


def test_logprobs_of_what_could_not_be_are_json():
    answer = writing(extras=("return_logprobs",)).answer(output(one(logprobs=[{7: Logprob(-math.inf, 1, "a")}])))
    strict_json(texts(answer, "logprobs")[0])


@pytest.mark.parametrize("flag", [flag for flag in EXTRAS if flag != "return_num_input_tokens"])
def test_extras_of_a_stream_have_a_value_for_each_text(flag):
    it = writing(extras=(flag,), sequences=2)
    answer = it.answer(output(one("b", index=1, tokens=(7,), total=-1.0, reason="stop")))
    assert tensors(answer)[EXTRAS[flag][0]].shape == tensors(answer)["text_output"].shape


def test_all_that_was_asked_for_is_given_where_no_output_was_named():
    answer = writing(extras=tuple(EXTRAS)).answer(output(one("a")))
    assert list(tensors(answer)) == ["text_output", *(name for name, _ in EXTRAS.values())]


@pytest.mark.parametrize("named", [("text_output",), ("finish_reason",), ("finish_reason", "text_output")])
def test_only_the_outputs_that_were_named_are_given(named):
    answer = writing(extras=("return_finish_reason", "return_logprobs"), outputs=named).answer(output(one("a")))
    assert set(tensors(answer)) == set(named)


def test_text_that_was_not_asked_for_is_not_forgotten():
    it = writing(PROMPT, outputs=("TEXT",))
    for text in "abc":
        answer = it.answer(output(one(text)))
    assert texts(answer, "TEXT") == ["askabc"]


def test_a_final_output_without_sequences_ends_the_answer():
    it = writing(PROMPT, sequences=2)
    it.answer(output(one("a"), one("b", index=1)))
    answer = it.answer(output(finished=True))
    assert (texts(answer, "TEXT"), answer.final) == (["aska", "askb"], True)
