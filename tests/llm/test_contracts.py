"""Both tensor contracts: what they take, and the words in which they refuse the rest."""

import struct

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.llm.contracts import PROMPT, TEXT_INPUT, config_of, metadata_of, pack_texts, read_generation
from serve_app.types.tensors import InferRequest, RequestedOutput, Tensor


def flag(name, value):
    return Tensor(name, "BOOL", (1,), bytes([value]))


def text(name, value):
    return pack_texts(name, [value])


def asked(*inputs, parameters=None, outputs=()):
    return InferRequest("demo-llm", inputs=inputs, parameters=parameters or {}, outputs=outputs)


def test_the_prompt_contract_answers_with_the_prompt_whether_it_streams_or_not():
    for stream in (False, True):
        parameters = text("SAMPLING_PARAMETERS", '{"temperature": "0.1"}')
        found = read_generation(asked(text("PROMPT", "hello"), flag("STREAM", stream), parameters))
        assert (found.contract, found.prompt, found.stream, found.with_prompt) == (PROMPT, "hello", stream, True)
        assert found.parameters == {"temperature": "0.1"}


@pytest.mark.parametrize(("stream", "exclude", "with_prompt"), [(0, None, True), (1, None, False), (0, 1, False)])
def test_the_text_contract_leaves_the_prompt_out_of_streams_and_on_demand(stream, exclude, with_prompt):
    inputs = [text("text_input", "hello"), flag("stream", stream)]
    if exclude is not None:
        inputs.append(flag("exclude_input_in_output", exclude))
    found = read_generation(asked(*inputs))
    assert (found.contract, found.stream, found.with_prompt) == (TEXT_INPUT, bool(stream), with_prompt)


def test_sampling_parameters_come_as_request_parameters_too_and_their_tensor_comes_first():
    found = read_generation(asked(text("text_input", "a"), parameters={"stream": True, "max_tokens": 5}))
    assert (found.stream, found.parameters) == (True, {"max_tokens": 5})
    tensor = text("sampling_parameters", '{"max_tokens": 7, "lora_name": "legal"}')
    found = read_generation(asked(text("text_input", "a"), tensor, parameters={"max_tokens": 5}))
    assert (found.parameters, found.adapter) == ({"max_tokens": 7}, "legal")


def test_what_is_told_on_demand_is_asked_for_by_flags():
    inputs = (flag("return_finish_reason", 1), flag("return_logprobs", 0))
    assert read_generation(asked(text("text_input", "a"), *inputs)).extras == ("return_finish_reason",)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asked(), "a request has one input PROMPT or text_input, got none"),
        (asked(text("PROMPT", "a"), text("text_input", "a")), "a request has one input PROMPT or text_input"),
        (asked(text("PROMPT", "")), "PROMPT is empty"),
        (asked(text("PROMPT", "a"), flag("stream", 1)), "unexpected inference input 'stream' beside 'PROMPT'"),
        (asked(flag("PROMPT", 1)), "input 'PROMPT' has datatype BOOL, expected BYTES"),
        (asked(pack_texts("PROMPT", ["a", "b"])), "input 'PROMPT' has shape [2]; it takes one element"),
        (asked(Tensor("PROMPT", "BYTES", (1,), b"\x02\0\0\0\xff\xfe")), "input 'PROMPT' is not UTF-8, byte 0 on"),
        (asked(Tensor("PROMPT", "BYTES", (1,), struct.pack("<I", 9) + b"a")), "input 'PROMPT' is cut off"),
        (asked(Tensor("PROMPT", "BYTES", (1,), b"\x01")), "input 'PROMPT' is cut off"),
        (asked(text("PROMPT", "a"), Tensor("STREAM", "BOOL", (2,), b"\0\1")), "input 'STREAM' has shape [2]"),
        (asked(text("PROMPT", "a"), text("SAMPLING_PARAMETERS", "{")), "SAMPLING_PARAMETERS is no JSON: '{'"),
        (asked(text("PROMPT", "a"), text("SAMPLING_PARAMETERS", "[]")), "SAMPLING_PARAMETERS is no JSON object"),
        (asked(text("text_input", "a"), parameters={"stream": "yes"}), "parameter 'stream' is neither true nor false"),
        (
            asked(text("PROMPT", "a"), outputs=(RequestedOutput("text_output"),)),
            "unexpected inference output 'text_output'; there is: TEXT",
        ),
        (
            asked(text("text_input", "a"), flag("stream", 1), flag("exclude_input_in_output", 0)),
            "when streaming, `exclude_input_in_output` = False is not allowed",
        ),
    ],
)
def test_what_is_neither_contract_is_refused_with_the_tensor_that_is_wrong(request_, message):
    with pytest.raises(InvalidRequestError) as caught:
        read_generation(request_)
    assert message in caught.value.message


def test_metadata_and_configuration_name_both_contracts():
    metadata, config = metadata_of("demo-llm"), config_of("demo-llm")
    for part, listed in (("inputs", "input"), ("outputs", "output")):
        named = {name for contract in (PROMPT, TEXT_INPUT) for name in getattr(contract, part)}
        assert {row["name"] for row in metadata[part]} == named == {row["name"] for row in config[listed]}
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert all(row["optional"] for row in config["input"])
