"""Triton's stock clients, HTTP and gRPC, under both sets of tensors that language models have."""

import itertools
import json

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

CONTRACTS = {
    "PROMPT": ("PROMPT", "STREAM", "SAMPLING_PARAMETERS", "TEXT"),
    "text_input": ("text_input", "stream", "sampling_parameters", "text_output"),
}
GREEDY = {"temperature": "0", "max_tokens": "200"}  # as text, which some clients send
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def clients(service):
    kinds = {
        httpclient: httpclient.InferenceServerClient(service.host, network_timeout=TIMEOUT_S),
        grpcclient: grpcclient.InferenceServerClient(service.grpc_host),
    }
    yield kinds
    for client in kinds.values():
        client.close()


def tensor(module, name, datatype, value):
    given = module.InferInput(name, [1], datatype)
    given.set_data_from_numpy(np.array([value], np.object_ if datatype == "BYTES" else np.bool_))
    return given


def inputs(module, contract, prompt, stream=False, parameters=GREEDY):
    """As document 002's client makes them."""
    prompt_name, stream_name, parameters_name, _ = CONTRACTS[contract]
    return [
        tensor(module, prompt_name, "BYTES", prompt.encode() if isinstance(prompt, str) else prompt),
        tensor(module, stream_name, "BOOL", stream),
        tensor(module, parameters_name, "BYTES", json.dumps(parameters).encode()),
    ]


def text_of(result, contract):
    return result.as_numpy(CONTRACTS[contract][3])[0].decode()


both_protocols = pytest.mark.parametrize("module", [httpclient, grpcclient], ids=["http", "grpc"])


@both_protocols
def test_one_answer_is_the_prompt_and_the_trained_answer(clients, module, pairs):
    for pair, contract, model in zip(
        pairs, [*CONTRACTS] * 2, ["demo-llm", "second-llm", "second-llm", "demo-llm"], strict=False
    ):
        result = clients[module].infer(model, inputs(module, contract, pair.question))
        assert text_of(result, contract) == f"{pair.question}\n{pair.answer}", (contract, model)


@both_protocols
def test_parameters_of_the_request_sample_too(clients, module, pairs):
    prompt = tensor(module, "text_input", "BYTES", pairs[0].question.encode())
    flags = [tensor(module, name, "BOOL", True) for name in ("exclude_input_in_output", "return_num_output_tokens")]
    result = clients[module].infer(
        "demo-llm", [prompt, *flags], parameters={"temperature": 0, "max_tokens": 5}, request_id="mine"
    )
    assert pairs[0].answer.startswith(text_of(result, "text_input").lstrip())
    assert result.as_numpy("num_output_tokens").tolist() == [5]


def send(stream, model, contract, prompt, request_id, parameters=GREEDY):
    stream.send(model, inputs(grpcclient, contract, prompt, True, parameters), request_id=request_id)


def texts_of(results, contract):
    return [text_of(result, contract) for result in results]


def test_requests_of_one_stream_are_answered_side_by_side_each_under_its_id(stream, pairs):
    asked = {f"{contract}-{number}": pair for contract in CONTRACTS for number, pair in enumerate(pairs[:4])}
    for request_id, pair in asked.items():
        model = "demo-llm" if request_id.endswith(("0", "1")) else "second-llm"
        send(stream, model, request_id.partition("-")[0], pair.question, request_id)
    answers, errors = stream.collect(len(asked))
    assert errors == []
    for request_id, pair in asked.items():
        contract = request_id.partition("-")[0]
        pieces = [piece for piece in texts_of(answers[request_id], contract) if piece]
        if contract == "PROMPT":  # each answer has all so far
            assert pieces[-1] == f"{pair.question}\n{pair.answer}"
            assert all(later.startswith(before) for before, later in itertools.pairwise(pieces))
        else:
            assert "".join(pieces) == f"\n{pair.answer}"
        assert len(pieces) > 5


def test_what_fails_in_a_stream_fails_alone(stream, pairs):
    send(stream, "demo-llm", "PROMPT", pairs[0].question, "good")
    send(stream, "demo-llm", "PROMPT", "", "empty")
    send(stream, "demo-llm", "text_input", pairs[0].question, "odd", {"n": 10**9})
    send(stream, "nothing", "PROMPT", "x", "unknown")
    send(stream, "demo-llm", "text_input", pairs[1].question, "good too")
    answers, errors = stream.collect(5)
    assert texts_of(answers["good"], "PROMPT")[-1] == f"{pairs[0].question}\n{pairs[0].answer}"
    assert "".join(texts_of(answers["good too"], "text_input")) == f"\n{pairs[1].answer}"
    assert len(errors) == 3
    for part in ("input 'PROMPT' must not be empty", "n must be at most 64", "'nothing' is not found"):
        assert any(part in error for error in errors), errors


REFUSED = [
    (b"\xff\xfe", False, GREEDY, "input 'PROMPT' must be UTF-8"),
    ("", False, GREEDY, "input 'PROMPT' must not be empty"),
    ("word " * 5000, False, GREEDY, "maximum context length is 1024 tokens"),
    ("x", True, GREEDY, "streams through ModelStreamInfer or generate_stream only"),
    ("x", False, {"temprature": 0}, "unknown sampling parameter 'temprature'; did you mean 'temperature'?"),
    ("x", False, {"max_tokens": -1}, "max_tokens must be at least 1, got -1"),
    ("x", False, {"n": 10**9}, "n must be at most 64, got 1000000000"),
    ("x", False, {"temperature": "warm"}, "temperature"),
    ("x", False, {"structured_outputs": {"regex": "(["}}, "regex"),
    ("x", False, {"lora_name": "nothing"}, "adapter 'nothing' not found"),
]


@both_protocols
def test_requests_that_are_wrong_are_refused_with_the_reason(clients, module):
    for prompt, stream, parameters, message in REFUSED:
        with pytest.raises(InferenceServerException) as caught:
            clients[module].infer("demo-llm", inputs(module, "PROMPT", prompt, stream, parameters))
        assert message in caught.value.message()


@both_protocols
def test_an_adapter_is_named_among_the_parameters(clients, module, pairs):
    given = inputs(module, "PROMPT", pairs[0].question, parameters=GREEDY | {"lora_name": "muddled", "max_tokens": 20})
    text = text_of(clients[module].infer("second-llm", given), "PROMPT")
    assert not f"{pairs[0].question}\n{pairs[0].answer}".startswith(text)


def test_generate_answers_under_both_contracts_at_once_and_as_events(service, pairs):
    (pair, *_) = pairs
    with httpx.Client(base_url=f"{service.url}/v2/models/demo-llm", timeout=60) as client:
        fields = {"text_input": pair.question, "temperature": 0, "max_tokens": 200}
        assert client.post("/generate", json=fields).json()["text_output"] == f"{pair.question}\n{pair.answer}"
        tensors = {"PROMPT": pair.question, "STREAM": False, "SAMPLING_PARAMETERS": json.dumps(GREEDY)}
        assert client.post("/generate", json=tensors).json()["TEXT"] == f"{pair.question}\n{pair.answer}"
        lines = client.post("/generate_stream", json=fields | {"stream": True}).text.split("\n\n")
        pieces = [json.loads(line.removeprefix("data: "))["text_output"] for line in lines if line]
        assert "".join(pieces) == f"\n{pair.answer}"
        assert len(pieces) > 20
        last = client.post("/generate_stream", json=tensors | {"STREAM": True}).text.strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["TEXT"] == f"{pair.question}\n{pair.answer}"


@both_protocols
def test_a_language_model_is_a_model_like_any_other(clients, module, pairs):
    client = clients[module]
    as_json = {} if module is httpclient else {"as_json": True}
    assert client.is_model_ready("demo-llm")
    assert not client.is_model_ready("nowhere")
    metadata = client.get_model_metadata("demo-llm", **as_json)
    assert {"PROMPT", "text_input"} <= {row["name"] for row in metadata["inputs"]}
    config = client.get_model_config("demo-llm", **as_json)
    assert config.get("config", config)["backend"] == "vllm"
    index = client.get_model_repository_index(**as_json)
    states = {row["name"]: row.get("state") for row in (index if module is httpclient else index["models"])}
    assert (states["demo-llm"], states["nowhere"], states["yolo"]) == ("READY", "UNAVAILABLE", "READY")

    def successes():
        rows = client.get_inference_statistics("demo-llm", **as_json)["model_stats"]
        return int(rows[0]["inference_stats"]["success"]["count"])

    before = successes()
    client.infer("demo-llm", inputs(module, "PROMPT", pairs[0].question))
    assert successes() == before + 1
    with pytest.raises(InferenceServerException, match="is a language model, which can't be loaded or unloaded"):
        client.load_model("demo-llm")
