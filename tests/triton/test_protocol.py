"""Requests of the KServe protocol in real Triton: tensors, outputs, parameters, sequences and priorities."""

import asyncio
import json
import shutil

import numpy as np
import pytest

from serve_app.errors import InvalidRequestError, UnavailableError, UnsupportedError
from serve_app.triton.protocol import Protocol
from serve_app.types.tensors import (
    ELEMENT_BYTES,
    NUMPY_TYPES,
    InferRequest,
    RequestedOutput,
    Sequence,
    Tensor,
    pack_elements,
)

SCORES_CONFIG = """
backend: "python"
max_batch_size: 4
input [ { name: "IN0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [
  { name: "OUT0" data_type: TYPE_FP32 dims: [ -1 ] label_filename: "labels.txt" },
  { name: "OUT1" data_type: TYPE_FP32 dims: [ -1 ] }
]
"""
SCORES_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "IN0").as_numpy()) for request in requests]

    def answer(self, values):
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT0", values), pb_utils.Tensor("OUT1", -values)])
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory, repository_in, embedded_models, run_models):
    repository = repository_in(tmp_path_factory.mktemp("protocol") / "models")
    shutil.copytree(embedded_models, repository.path)
    repository.add("scores", SCORES_MODEL, config=SCORES_CONFIG)
    (repository.path / "scores" / "labels.txt").write_text("cat\ndog\n")
    return run_models(repository.path, "accumulate", "decoupled", "echo", "identity", "parameters", "scores", "slow")


@pytest.fixture
def protocol(engine):
    return Protocol(engine)


def tensor(name, values, datatype="FP32"):
    array = np.array(values, NUMPY_TYPES[datatype])
    return Tensor(name, datatype, array.shape, array.tobytes())


def ask(model, *inputs, outputs=(), **more):
    wanted = tuple(output if isinstance(output, RequestedOutput) else RequestedOutput(output) for output in outputs)
    return InferRequest(model, inputs=inputs, outputs=wanted, **more)


def ask_slow(seconds, **more):
    return ask("slow", tensor("SECONDS", [[seconds]]), **more)


def order(answer):
    return answer.outputs[0].array().item()


async def collect(responses):
    return [answer async for answer in responses]


def sample(datatype):
    """Three elements that are all different, in every bit pattern a byte can have a part in."""
    if datatype == "BYTES":
        return pack_elements([b"", b"a\x00\xff", "ж".encode()])
    if datatype == "BOOL":
        return b"\1\0\1"
    return bytes(range(1, 3 * ELEMENT_BYTES[datatype] + 1))


def echoed(datatype, shape, data):
    name = datatype.replace("BYTES", "STRING")
    return ask("echo", Tensor(f"IN_{name}", datatype, shape, data)), f"OUT_{name}"


async def test_tensors_of_every_datatype_come_back_as_they_went_in(protocol):
    for datatype in ELEMENT_BYTES:
        for shape, data in (((1, 3), sample(datatype)), ((0, 3), b"")):
            request, name = echoed(datatype, shape, data)
            answer = await protocol.infer(request)
            assert answer.outputs == (Tensor(name, datatype, shape, data),)
            assert (answer.model, answer.version, answer.final) == ("echo", "1", True)
    for datatype in ("FP64", "BYTES"):
        for buffer in (bytearray, memoryview, lambda data: memoryview(b"?" + data)[1:]):
            request, name = echoed(datatype, (3, 1), buffer(sample(datatype)))
            assert (await protocol.infer(request)).outputs == (Tensor(name, datatype, (3, 1), sample(datatype)),)


async def test_many_requests_at_once_are_answered_each_with_its_own(protocol):
    asked = [ask("identity", tensor("IN0", [number] * 5000), id=str(number)) for number in range(32)]
    answers = await asyncio.gather(*(protocol.infer(request) for request in asked))
    assert [(answer.id, answer.outputs[0].data) for answer in answers] == [(a.id, a.inputs[0].data) for a in asked]


BOTH = (tensor("IN_FP32", [[1]]), tensor("IN_INT8", [[2]], "INT8"))


async def test_requested_outputs_limit_the_answer_to_those_the_model_made(protocol):
    for wanted, given in (
        ((), ["OUT_FP32", "OUT_INT8"]),
        (("OUT_INT8",), ["OUT_INT8"]),
        (("OUT_INT8", "OUT_FP32"), ["OUT_FP32", "OUT_INT8"]),
        (("OUT_INT8", "OUT_INT16"), ["OUT_INT8"]),  # the model has the other, and did not make it this time
    ):
        answer = await protocol.infer(ask("echo", *BOTH, outputs=wanted))
        assert [output.name for output in answer.outputs] == given


@pytest.mark.parametrize("model", ["identity", "decoupled"])
async def test_an_output_that_the_model_does_not_have_is_refused_in_tritons_words(protocol, model):
    given = {"identity": tensor("IN0", [1]), "decoupled": tensor("COUNT", [1, 0])}[model]
    with pytest.raises(InvalidRequestError) as caught:
        await collect(protocol.stream(ask(model, given, outputs=["NOPE"])))
    assert caught.value.message == f"unexpected inference output 'NOPE' for model '{model}'"


async def test_classes_of_a_batch_come_with_labels_where_the_output_has_them(protocol):
    wanted = [RequestedOutput("OUT0", 2), RequestedOutput("OUT1", 1)]
    answer = await protocol.infer(ask("scores", tensor("IN0", [[1, 3, 2], [5, 4, 6]]), outputs=wanted))
    first, second = answer.outputs
    assert (first.shape, second.shape) == ((2, 2), (2, 1))
    assert first.elements() == [b"3.000000:1:dog", b"2.000000:2", b"6.000000:2", b"5.000000:0:cat"]
    assert second.elements() == [b"-1.000000:0", b"-4.000000:1"]


async def test_classes_of_a_model_without_a_batch_are_one_row(protocol):
    answer = await protocol.infer(ask("identity", tensor("IN0", [1, 3, 2]), outputs=[RequestedOutput("OUT0", 2)]))
    assert (answer.outputs[0].shape, answer.outputs[0].elements()) == ((2,), [b"3.000000:1", b"2.000000:2"])


async def test_classes_and_values_may_be_asked_for_together(protocol):
    given = tensor("IN0", [[1, 3]])
    answer = await protocol.infer(ask("scores", given, outputs=[RequestedOutput("OUT0", 1), "OUT1"]))
    assert [output.datatype for output in answer.outputs] == ["BYTES", "FP32"]
    assert answer.outputs[1].array().tolist() == [[-1, -3]]


async def test_the_id_and_parameters_of_every_type_reach_the_model(protocol):
    given = {"text": "ж", "number": -(2**40), "flag": True, "off": False, "ratio": 0.25}
    answer = await protocol.infer(ask("parameters", tensor("FIRST", [1]), id="abc", parameters=given))
    seen = json.loads(answer.outputs[0].elements()[0])
    assert (seen["request_id"], seen["parameters"], seen["inputs"]) == ("abc", given, ["FIRST"])
    assert answer.id == "abc"


@pytest.mark.parametrize("key", [7, 2**63 + 1, "a-name"])
async def test_a_sequence_keeps_its_state_between_start_and_end(protocol, key):
    for flags, total in (({"start": True}, 2.5), ({}, 5.0), ({"end": True}, 7.5)):
        answer = await protocol.infer(ask("accumulate", tensor("VALUE", [[2.5]]), sequence=Sequence(key, **flags)))
        found = {output.name: output for output in answer.outputs}
        assert found["SUM"].array().item() == total
        assert found["KEY"].elements() == [f"{type(key).__name__}:{key}".encode()]


async def test_a_sequence_without_a_start_or_a_key_is_refused(protocol):
    no_key = "to model 'accumulate' must specify a non-zero or non-empty correlation ID"
    for sequence, message in (
        (Sequence(99), "for sequence 99 to model 'accumulate' must specify the START flag"),
        (Sequence("other"), "for sequence other to model 'accumulate' must specify the START flag"),
        (Sequence(0, start=True), no_key),
        (Sequence("", start=True), no_key),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            await protocol.infer(ask("accumulate", tensor("VALUE", [[1]]), sequence=sequence))
        assert message in caught.value.message


async def test_a_request_of_higher_priority_overtakes(protocol):
    first = asyncio.create_task(protocol.infer(ask_slow(0.6)))
    await asyncio.sleep(0.2)
    low = asyncio.create_task(protocol.infer(ask_slow(0, priority=2)))
    await asyncio.sleep(0.1)
    high = asyncio.create_task(protocol.infer(ask_slow(0, priority=1)))
    before, last, between = [order(answer) for answer in await asyncio.gather(first, low, high)]
    assert before < between < last


async def test_a_request_that_waits_longer_than_its_own_timeout_is_unavailable(protocol):
    before = [asyncio.create_task(protocol.infer(ask_slow(seconds))) for seconds in (0.6, 0)]
    await asyncio.sleep(0.2)
    with pytest.raises(UnavailableError, match="Request timeout expired"):
        await protocol.infer(ask_slow(0, timeout_us=50_000))
    await asyncio.gather(*before)


async def test_a_decoupled_model_is_refused_where_one_answer_is_expected(protocol):
    with pytest.raises(UnsupportedError, match=r"model 'decoupled' is decoupled.*generate_stream or ModelStreamInfer"):
        await protocol.infer(ask("decoupled", tensor("COUNT", [1, 0])))
