"""What a request to a language model may ask for."""

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.llm.limits import require_allowed, require_bounded_grammars, require_few_sequences


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_fields_are_those_of_the_client_and_of_the_list():
    vllm = {"top_k", "priority", "chat_template", "kv_transfer_params", "vllm_xargs", "prompt_embeds", "request_id"}
    require_allowed({"model": "m", "top_k": 3}, {"model", "temperature"}, vllm)
    require_allowed({"priority": 1}, (), vllm, ("priority",))
    for name in (*sorted(vllm - {"top_k"}), "messages"):
        with pytest.raises(InvalidRequestError, match=f"unknown field '{name}'"):
            require_allowed({name: 1}, {"model"}, vllm)
    with pytest.raises(InvalidRequestError, match="unknown field 'temprature'; did you mean 'temperature'"):
        require_allowed({"temprature": 1}, {"temperature"}, vllm)


def test_prompts_times_answers_are_few():
    for document in (
        {"prompt": "one", "n": 16}, {"prompt": ["a", "b"], "n": 8}, {"prompt": [1, 2, 3] * 100, "n": 16},
        {"prompt": [[1], [2]], "n": 8}, {"prompt": []}, {"n": "many"}, {"n": None}, {"input": ["a"] * 2048},
    ):  # fmt: skip
        require_few_sequences(document, 16)
    for document in (
        {"n": 17},
        {"prompt": ["a"] * 17},
        {"prompt": [[1]] * 3, "n": 6},
        {"prompt": ["a"] * 999, "n": 9},
        {"prompt": ["a"] * 11, "n": 10**4299},
    ):
        with pytest.raises(InvalidRequestError, match="prompts times n must be at most 16, got"):
            require_few_sequences(document, 16)
    with pytest.raises(InvalidRequestError, match="at most 2048 texts"):
        require_few_sequences({"input": ["a"] * 2049}, 16)


def test_schemas_and_grammars_are_bounded_wherever_they_are():
    good = {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": nested(10)}},
        "structured_outputs": {"regex": "[a-z]{1,100}", "choice": ["yes", "no"]},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": nested(10)}}],
    }
    require_bounded_grammars(good)
    require_bounded_grammars({"response_format": "nonsense", "structured_outputs": 3, "tools": {}})
    deep, wide = nested(400), {"enum": ["x" * 100] * 1000}
    for document, reason in (
        ({"response_format": {"json_schema": {"schema": deep}}}, "response_format: nested more than 32 levels"),
        ({"structured_outputs": {"json": deep}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": '{"a":' * 3000 + "1" + "}" * 3000}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json: not valid JSON"),
        ({"tools": [{"function": {"parameters": deep}}]}, "tools.0: nested more than 32 levels"),
        ({"tools": [{"function": {"parameters": wide}}]}, "tools.0: more than 65536 characters"),
        ({"response_format": {"schema": {"minItems": 10**9}}}, "minItems must be at most 10000, got 1000000000"),
        ({"response_format": {"schema": {"pattern": "(a{1000}){1000}"}}}, "pattern: its repeats multiply"),
        ({"structured_outputs": {"regex": "a{1,999999999999}"}}, "structured_outputs.regex: its repeats multiply"),
        ({"structured_outputs": {"regex": "a" * 5000}}, "structured_outputs.regex: at most 4096 characters"),
        ({"structured_outputs": {"grammar": "a" * 70000}}, "structured_outputs.grammar: at most 65536 characters"),
        ({"structured_outputs": {"choice": ["a"] * 1001}}, "structured_outputs.choice: at most 1000"),
        ({"structured_outputs": {"choice": ["a" * 70000]}}, "structured_outputs.choice: at most 65536 characters"),
    ):
        with pytest.raises(InvalidRequestError, match=reason):
            require_bounded_grammars(document)
