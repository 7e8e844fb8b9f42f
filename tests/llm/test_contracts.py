"""Requests under both tensor contracts, their sampling parameters, and the messages of those that are refused."""

import struct

import pytest
from vllm.sampling_params import RequestOutputKind

from serve_app.errors import InvalidRequestError
from serve_app.llm.contracts import (
    PROMPT,
    TEXT_INPUT,
    build_metadata,
    build_model_config,
    pack_texts,
    parse_request,
)
from serve_app.llm.sampling import build_sampling_params
from serve_app.types.tensors import InferRequest, RequestedOutput, Tensor


def flag(name, value):
    return Tensor(name, "BOOL", (1,), bytes([value]))


def text(name, value="a"):
    return pack_texts(name, [value])


def parse(*inputs, parameters=None, outputs=()):
    outputs = tuple(RequestedOutput(name) for name in outputs)
    return parse_request(InferRequest("demo-llm", inputs=inputs, parameters=parameters or {}, outputs=outputs))


def test_the_prompt_contract_answers_with_the_prompt_whether_it_streams_or_not():
    for stream in (False, True):
        parameters = text("SAMPLING_PARAMETERS", '{"temperature": "0.1"}')
        found = parse(text("PROMPT", "hello"), flag("STREAM", stream), parameters)
        assert (found.contract, found.prompt, found.stream, found.with_prompt) == (PROMPT, "hello", stream, True)
        assert found.parameters == {"temperature": "0.1"}


def test_the_text_contract_leaves_the_prompt_out_of_streams_and_on_request():
    for stream, exclude, with_prompt in ((0, None, True), (1, None, False), (0, 1, False), (1, 1, False)):
        flags = [flag("stream", stream)] + ([] if exclude is None else [flag("exclude_input_in_output", exclude)])
        found = parse(text("text_input"), *flags)
        assert (found.contract, found.stream, found.with_prompt) == (TEXT_INPUT, bool(stream), with_prompt)


def test_tensors_take_precedence_over_request_parameters():
    found = parse(text("text_input"), parameters={"stream": "true", "max_tokens": 5})
    assert (found.stream, found.parameters) == (True, {"max_tokens": 5})
    found = parse(text("text_input"), parameters={"sampling_parameters": '{"max_tokens": 6}'})
    assert found.parameters == {"max_tokens": 6}
    tensor = text("sampling_parameters", '{"max_tokens": 7, "lora_name": "legal"}')
    found = parse(text("text_input"), tensor, flag("stream", 0), parameters={"stream": True, "max_tokens": 5})
    assert (found.stream, found.parameters, found.adapter) == (False, {"max_tokens": 7}, "legal")


def test_optional_outputs_are_requested_by_flags():
    found = parse(text("text_input"), flag("return_finish_reason", 1), flag("return_logprobs", 0))
    assert found.optional_outputs == ("return_finish_reason",)


def test_a_request_that_fits_no_contract_is_refused_with_the_tensor_that_is_wrong():
    def raw(data):
        return Tensor("PROMPT", "BYTES", (1,), data)

    one, prompt, streaming = (
        "expected exactly one of the inputs PROMPT and text_input",
        text("PROMPT"),
        flag("stream", 1),
    )
    for inputs, options, message in (
        ((), {}, f"{one}, got none"),
        ((prompt, text("text_input")), {}, f"{one}, got PROMPT, text_input"),
        ((text("PROMPT", ""),), {}, "input 'PROMPT' must not be empty"),
        ((prompt, streaming), {}, "unexpected inference input 'stream' beside 'PROMPT'"),
        ((flag("PROMPT", 1),), {}, "input 'PROMPT' has datatype BOOL, expected BYTES"),
        ((pack_texts("PROMPT", ["a", "b"]),), {}, "input 'PROMPT' must have one element, got shape [2]"),
        ((raw(b"\x02\0\0\0\xff\xfe"),), {}, "input 'PROMPT' must be UTF-8: invalid byte at 0"),
        ((raw(struct.pack("<I", 9) + b"a"),), {}, "input 'PROMPT' is truncated: expected 13 bytes, got 5"),
        ((raw(b"\x01"),), {}, "input 'PROMPT' is truncated: expected 5 bytes, got 1"),
        ((prompt, Tensor("STREAM", "BOOL", (2,), b"\0\1")), {}, "input 'STREAM' must have one element, got shape [2]"),
        ((prompt, text("SAMPLING_PARAMETERS", "{")), {}, "SAMPLING_PARAMETERS must be a JSON object, got '{'"),
        ((prompt, text("SAMPLING_PARAMETERS", "[]")), {}, "SAMPLING_PARAMETERS must be a JSON object, got '[]'"),
        (
            (text("text_input"),),
            {"parameters": {"stream": "yes"}},
            "parameter 'stream' must be true or false, got 'yes'",
        ),
        (
            (prompt,),
            {"outputs": ["text_output"]},
            "unexpected inference output 'text_output'; available: TEXT",
        ),
        (
            (text("text_input"), streaming, flag("exclude_input_in_output", 0)),
            {},
            "exclude_input_in_output must be true for a streaming request",
        ),
    ):
        with pytest.raises(InvalidRequestError) as refusal:
            parse(*inputs, **options)
        assert refusal.value.message == message


def test_strings_are_converted_to_the_types_of_sampling_parameters():
    values = {"temperature": "0.1", "top_p": "0.95", "max_tokens": "512", "ignore_eos": "true", "stop": "x"}
    found = build_sampling_params(values, stream=False)
    assert (found.temperature, found.top_p, found.max_tokens, found.ignore_eos) == (0.1, 0.95, 512, True)
    assert (found.stop, found.output_kind) == (["x"], RequestOutputKind.FINAL_ONLY)
    assert build_sampling_params({}, stream=True).output_kind is RequestOutputKind.DELTA


def test_sampling_parameters_that_vllm_refuses_are_refused_in_its_words():
    for name, value, message in (
        ("tempature", 1, "unknown sampling parameter 'tempature'; did you mean 'temperature'?"),
        ("output_kind", 2, "unknown sampling parameter 'output_kind'"),
        ("_eos_token_id", 2, "unknown sampling parameter '_eos_token_id'"),
        ("max_tokens", -1, "max_tokens must be at least 1, got -1"),
        ("n", 10**9, "n must be at most"),
        ("temperature", "nan", "temperature must be a finite number"),
        ("temperature", [1], "Expected `float`, got `array`"),
        ("seed", "x", "Expected `int | null`, got `str`"),
        ("logit_bias", {"5": "x"}, "Expected `float`, got `str`"),
    ):
        with pytest.raises(InvalidRequestError) as refusal:
            build_sampling_params({name: value}, stream=False)
        assert message in refusal.value.message


def test_metadata_and_configuration_have_the_tensors_of_both_contracts():
    metadata, config = build_metadata("demo-llm"), build_model_config("demo-llm")
    for part, listed in (("inputs", "input"), ("outputs", "output")):
        names = {name for contract in (PROMPT, TEXT_INPUT) for name in getattr(contract, part)}
        assert {row["name"] for row in metadata[part]} == names == {row["name"] for row in config[listed]}
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert all(row["optional"] for row in config["input"])
    types = {row["name"]: row["data_type"] for row in config["input"] + config["output"]}
    assert (types["PROMPT"], types["STREAM"], types["cumulative_logprob"]) == ("TYPE_STRING", "TYPE_BOOL", "TYPE_FP32")
