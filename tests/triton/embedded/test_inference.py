"""Requests through real Triton: every data type, ensembles, decoupled models, sequences, queue policies."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import serve_app.triton.embedded as triton

Get = Callable[[str], triton.Model]
MODELS = Path(__file__).parent / "models"

SAMPLES = {
    "BOOL": np.array([[True, False, True]]),
    **{
        t: np.array([[np.iinfo(t.lower()).min, 1, np.iinfo(t.lower()).max]], t.lower())
        for t in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
    },
    "FP16": np.array([[1.5, -2.25, 65504]], np.float16),
    "FP32": np.array([[1.1, -2.2, 3e38]], np.float32),
    "FP64": np.array([[1.1, -2.2, 1e300]], np.float64),
    "BF16": np.array([[1.5, -2.0, 3e38]], ml_dtypes.bfloat16),
    "STRING": np.array([[b"", b"a\x00\xff", "ж".encode()]], dtype=object),
}


def ask(model: triton.Model, **request: Any) -> triton.InferenceResponse:
    responses = list(model.infer(**request))
    assert len(responses) == 1
    assert responses[0].final
    return responses[0]


def test_tensors_of_every_data_type_come_back_unchanged(model: Get) -> None:
    outputs = ask(model("echo"), inputs={f"IN_{name}": sent for name, sent in SAMPLES.items()}).outputs
    assert set(outputs) == {f"OUT_{name}" for name in SAMPLES}
    for name, sent in SAMPLES.items():
        output, got = outputs[f"OUT_{name}"], np.asarray(outputs[f"OUT_{name}"])
        assert output.data_type.name == name.replace("STRING", "BYTES")
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape), name
        assert np.array_equal(got, sent), name


def test_empty_tensors_of_every_data_type_come_back_empty(model: Get) -> None:
    outputs = ask(model("echo"), inputs={f"IN_{name}": sent[:0] for name, sent in SAMPLES.items()}).outputs
    assert {np.asarray(output).shape for output in outputs.values()} == {(0, 3)}


def test_lists_of_numbers_and_strings_are_sent_as_tensors(model: Get) -> None:
    outputs = ask(model("echo"), inputs={"IN_FP32": [[np.float32(4.5)]], "IN_STRING": [["one", "три"]]}).outputs
    assert np.asarray(outputs["OUT_FP32"]).item() == 4.5
    assert outputs["OUT_STRING"].to_string_array().tolist() == [["one", "три"]]


def test_a_torch_bfloat16_tensor_goes_in_and_out(model: Get) -> None:
    sent = torch.tensor([[1.5, -3.0]], dtype=torch.bfloat16)
    output = ask(model("echo"), inputs={"IN_BF16": sent}).outputs["OUT_BF16"]
    assert torch.equal(torch.from_dlpack(output), sent)


def test_an_array_with_gaps_or_of_the_other_byte_order_is_sent_right(model: Get) -> None:
    for sent in (np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2], np.array([[1, 2, 3]], dtype=">i4")):
        got = np.asarray(ask(model("echo"), inputs={"IN_INT32": sent}).outputs["OUT_INT32"])
        assert got.tolist() == sent.tolist()


def test_an_ensemble_passes_the_tensor_through_its_steps(model: Get) -> None:
    model("identity")
    sent = np.arange(1000, dtype=np.float32)
    response = ask(model("chain"), inputs={"IN": sent}, request_id="r1")
    assert np.array_equal(np.from_dlpack(response.outputs["OUT"]), sent)
    assert (response.model.name, response.model.version, response.request_id) == ("chain", 1, "r1")


def test_request_parameters_of_every_type_reach_the_model(model: Get) -> None:
    given = {"text": "ж", "number": -(2**40), "flag": True, "off": False, "ratio": 0.25}
    request = model("parameters").create_request(request_id="abc", parameters=given)
    request.inputs["FIRST"] = np.zeros(1, np.float32)
    (response,) = model("parameters").infer(request)
    seen = json.loads(response.outputs["SEEN"].to_string_array()[0])
    assert seen["parameters"] == given
    assert seen["request_id"] == "abc"
    assert seen["outputs"] == ["SEEN"]


def test_a_model_is_asked_for_the_requested_outputs_alone(server: triton.Server, model: Get) -> None:
    config = model("parameters").config() | {"name": "asked"}
    config["output"] += [config["output"][0] | {"name": "ALSO"}]
    source = (MODELS / "parameters" / "1" / "model.py").read_bytes()
    asked = server.load("asked", {"config": json.dumps(config), "file:1/model.py": source})
    request = asked.create_request(inputs={"FIRST": np.zeros(1, np.float32)})
    for requested, seen in (((), ["ALSO", "SEEN"]), (("SEEN",), ["SEEN"])):
        request.requested_outputs = requested
        (response,) = asked.infer(request)
        assert json.loads(response.outputs["SEEN"].to_string_array()[0])["outputs"] == seen
    request.requested_outputs = ("SEEN", "NOPE")
    with pytest.raises(triton.InvalidArgumentError, match=r"^unexpected inference output 'NOPE' for model 'asked'$"):
        asked.infer(request)


def test_request_parameters_reach_the_models_inside_an_ensemble(model: Get) -> None:
    given = {"text": "yes", "number": 3, "flag": False, "ratio": 1.5}
    inputs = {"IN": np.zeros(1, np.float32)}
    response = ask(model("chain_parameters"), inputs=inputs, parameters=given, request_id="abc")
    seen = json.loads(response.outputs["SEEN"].to_string_array()[0])
    assert (seen["parameters"], seen["request_id"]) == (given, "abc")


def test_an_optional_input_of_an_ensemble_may_be_left_out(model: Get) -> None:
    for extra, seen in (((), ["FIRST"]), (("EXTRA",), ["FIRST", "SECOND"])):
        inputs = {name: np.zeros(1, np.float32) for name in ("IN", *extra)}
        response = ask(model("chain_optional"), inputs=inputs)
        assert json.loads(response.outputs["SEEN"].to_string_array()[0])["inputs"] == seen


def test_a_decoupled_model_gives_a_response_for_each_number_and_an_empty_last_one(model: Get) -> None:
    responses = list(model("decoupled").infer(inputs={"COUNT": np.array([3, 0], np.float32)}))
    assert [np.asarray(r.outputs["NUMBER"]).item() for r in responses[:-1]] == [0, 1, 2]
    assert [r.final for r in responses] == [False, False, False, True]
    assert responses[-1].outputs == {}
    assert model("decoupled").transaction_properties() == triton.ModelTxnPropertyFlag.DECOUPLED


def test_cancelling_ends_a_decoupled_request_early(model: Get) -> None:
    responses = model("decoupled").infer(inputs={"COUNT": np.array([10000, 0.01], np.float32)}, raise_on_error=False)
    next(responses)
    responses.cancel()
    rest = list(responses)
    assert len(rest) < 100
    assert isinstance(rest[-2].error, triton.CancelledError)
    assert rest[-1].final
    responses.cancel()  # a second time, when the request is gone, is harmless


def test_a_request_can_be_cancelled_through_the_request(model: Get) -> None:
    request = model("decoupled").create_request(inputs={"COUNT": np.array([10000, 0.01], np.float32)})
    request.cancel()  # not sent yet: nothing to do
    responses = model("decoupled").infer(request)
    request.cancel()
    with pytest.raises(triton.CancelledError):
        list(responses)


def test_a_sequence_keeps_its_state_between_start_and_end(model: Get) -> None:
    for key in (7, 2**63 + 1, "a-name"):
        sums = []
        for flags in (1, 0, 2):
            inputs = {"VALUE": np.array([[2.5]], np.float32)}
            response = ask(model("accumulate"), inputs=inputs, correlation_id=key, flags=flags)
            sums.append(np.asarray(response.outputs["SUM"]).item())
            assert response.outputs["KEY"].to_string_array().item() == f"{type(key).__name__}:{key}"
        assert sums == [2.5, 5.0, 7.5], key


def test_a_sequence_without_a_start_is_refused(model: Get) -> None:
    with pytest.raises(triton.InvalidArgumentError, match="must specify the START flag"):
        ask(model("accumulate"), inputs={"VALUE": np.array([[1]], np.float32)}, correlation_id=99)


def slow(model: Get, seconds: float, **request: Any) -> triton.ResponseIterator:
    inputs = {"SECONDS": np.array([[seconds]], np.float32)}
    return model("slow").infer(inputs=inputs, **request)


def order(responses: triton.ResponseIterator) -> int:
    (response,) = responses
    return int(np.asarray(response.outputs["ORDER"]).item())


def test_a_request_of_higher_priority_overtakes(model: Get) -> None:
    first = slow(model, 0.5)
    time.sleep(0.2)
    low, high = slow(model, 0, priority=2), slow(model, 0, priority=1)
    assert order(first) < order(high) < order(low)


def test_a_request_that_waits_longer_than_its_timeout_is_refused(model: Get) -> None:
    before = [slow(model, 0.5), slow(model, 0)]  # one runs, one is already on its way to the model
    with pytest.raises(triton.UnavailableError, match="Request timeout expired"):
        list(slow(model, 0, timeout=50_000))
    for responses in before:
        order(responses)


def test_a_full_queue_refuses(model: Get) -> None:
    held = [slow(model, 0.5)]

    def fill() -> None:
        while len(held) < 15:
            held.append(slow(model, 0))

    with pytest.raises(triton.UnavailableError, match="Exceeds maximum queue size"):
        fill()
    assert 8 <= len(held) <= 10
    assert len({order(responses) for responses in held}) == len(held)


def test_a_queue_of_the_user_gets_every_response_too(model: Get) -> None:
    target: queue.SimpleQueue[triton.InferenceResponse] = queue.SimpleQueue()
    inputs = {"COUNT": np.array([2, 0], np.float32)}
    responses = list(model("decoupled").infer(inputs=inputs, response_queue=target))
    assert [target.get_nowait() for _ in responses] == responses


def test_the_same_request_may_be_sent_twice(model: Get) -> None:
    request = model("identity").create_request(inputs={"IN0": np.ones(3, np.float32)})
    for responses in [model("identity").infer(request), model("identity").infer(request)]:
        assert np.from_dlpack(next(responses).outputs["OUT0"]).tolist() == [1, 1, 1]


def test_inputs_may_be_dropped_by_the_caller_while_the_request_waits(model: Get) -> None:
    first = slow(model, 0.2)
    pending = [model("identity").infer(inputs={"IN0": np.full(50_000, number, np.float32)}) for number in range(20)]
    for number, responses in enumerate(pending):
        assert np.all(np.from_dlpack(next(responses).outputs["OUT0"]) == number)
    order(first)


def test_outputs_outlive_their_response_and_keep_their_memory(model: Get) -> None:
    views = []
    for number in range(50):
        response = ask(model("identity"), inputs={"IN0": np.full(10_000, number, np.float32)})
        views.append(np.from_dlpack(response.outputs["OUT0"]))
        del response
    assert [int(view[-1]) for view in views] == list(range(50))


class CountingAllocator(triton.MemoryAllocator):
    def __init__(self) -> None:
        self.asked: list[tuple[int, triton.MemoryType, str]] = []

    def allocate(
        self, size: int, memory_type: triton.MemoryType, memory_type_id: int, tensor_name: str
    ) -> triton.MemoryBuffer:
        self.asked.append((size, memory_type, tensor_name))
        return triton.MemoryBuffer.from_dlpack(torch.empty(size, dtype=torch.uint8))


def test_outputs_lie_in_the_memory_of_an_allocator_of_the_user(model: Get) -> None:
    allocator = CountingAllocator()
    inputs = {"IN0": np.ones(3, np.float32)}
    response = ask(model("identity"), inputs=inputs, output_memory_allocator=allocator, output_memory_type="cpu")
    assert allocator.asked == [(12, triton.MemoryType.CPU, "OUT0")]
    assert isinstance(response.outputs["OUT0"].memory_buffer.owner, torch.Tensor)
    assert np.asarray(response.outputs["OUT0"]).tolist() == [1, 1, 1]


def test_statistics_count_the_requests(model: Get) -> None:
    def successes() -> int:
        (entry,) = model("identity").statistics()["model_stats"]
        return int(entry["inference_stats"]["success"]["count"])

    # Triton counts a request a moment after it has answered it.
    time.sleep(0.5)
    before = successes()
    ask(model("identity"), inputs={"IN0": np.ones(3, np.float32)})
    deadline = time.monotonic() + 10
    while successes() == before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert successes() == before + 1


def test_metadata_and_configuration_describe_the_model(model: Get) -> None:
    identity = model("identity")
    assert identity.metadata()["inputs"] == [{"name": "IN0", "datatype": "FP32", "shape": [-1]}]
    assert identity.config()["backend"] == "python"
    assert identity.ready()
    assert model("accumulate").batch_properties() == triton.ModelBatchFlag.FIRST_DIM
    assert identity.batch_properties() == triton.ModelBatchFlag.UNKNOWN
