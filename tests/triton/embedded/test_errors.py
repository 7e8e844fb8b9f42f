"""Wrong requests and options raise the typed error with Triton's message, and the server keeps working."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import serve_app.triton.embedded as triton
from serve_app.triton.embedded import errors

Get = Callable[[str], triton.Model]
GOOD = {"IN0": np.ones(4, np.float32)}


@pytest.fixture(autouse=True, scope="module")
def the_server_still_answers(model: Get) -> Any:
    yield
    (response,) = model("identity").infer(inputs=GOOD)
    assert np.from_dlpack(response.outputs["OUT0"]).tolist() == [1, 1, 1, 1]


def floats(shape: list[int]) -> triton.Tensor:
    """A tensor whose shape does not fit its 16 bytes of memory."""
    return triton.Tensor(triton.DataType.FP32, shape, triton.MemoryBuffer.from_dlpack(np.ones(4, np.float32)))


def test_a_wrong_input_is_an_invalid_argument(model: Get) -> None:
    for inputs, message in (
        ({"WRONG": np.ones(4, np.float32)}, "unexpected inference input 'WRONG' for model 'identity'"),
        ({"IN0": np.ones(4, np.int32)}, "data-type is 'INT32', but model 'identity' expects 'FP32'"),
        ({"IN0": np.ones((2, 2), np.float32)}, r"unexpected shape for input 'IN0'.*Expected \[-1\], got \[2,2\]"),
        ({"IN0": np.float32(1)}, "unexpected shape for input 'IN0'"),
        ({}, "expected 1 inputs but got 0 inputs"),
        ({"IN0": ["text"]}, "data-type is 'BYTES'"),
        ({"IN0": "text"}, "Input type <class 'str'> not supported"),
        ({"IN0": np.array([1j])}, "Can't convert complex128 to Triton"),
        ({"": np.ones(4, np.float32)}, "unexpected inference input '' for model 'identity'"),
        ({"a\0b": np.ones(4, np.float32)}, "must not contain a NUL character"),
        ({"IN0": floats([1000])}, "byte size"),
    ):
        with pytest.raises(triton.InvalidArgumentError, match=message):
            list(model("identity").infer(inputs=inputs))


def test_a_negative_or_huge_shape_is_refused(model: Get) -> None:
    for shape in ([-1], [2**62, 4]):
        with pytest.raises(triton.TritonError):
            list(model("identity").infer(inputs={"IN0": floats(shape)}))


def test_an_unknown_model_or_version_is_not_found(server: triton.Server, model: Get) -> None:
    for call in ("metadata", "config", "batch_properties", "transaction_properties", "infer"):
        with pytest.raises(triton.NotFoundError, match="unknown model: 'nope'"):
            getattr(server.model("nope"), call)()
    assert not server.model("nope").ready()
    model("identity")
    with pytest.raises(triton.NotFoundError, match="'identity' version 9 is not found"):
        server.model("identity", 9).config()
    with pytest.raises(triton.InvalidArgumentError, match="requested model 'nope' is not available"):
        server.model("nope").statistics()


def test_an_error_of_the_model_is_raised_or_given_with_the_response(model: Get) -> None:
    with pytest.raises(triton.UnavailableError, match=r"^no: thanks$"):
        list(model("failing").infer(inputs={"HOW": ["thanks"]}))
    (response,) = model("failing").infer(inputs={"HOW": ["thanks"]}, raise_on_error=False)
    assert (type(response.error), str(response.error)) == (triton.UnavailableError, "no: thanks")
    assert response.final
    assert response.outputs == {}


def test_an_exception_of_the_model_is_an_internal_error(model: Get) -> None:
    with pytest.raises(triton.InternalError, match="ValueError: the model raised"):
        list(model("failing").infer(inputs={"HOW": ["raise"]}))


class Broken(triton.MemoryAllocator):
    def __init__(self, how: str) -> None:
        self.how = how

    def allocate(self, size: int, memory_type: Any, memory_type_id: int, tensor_name: str) -> triton.MemoryBuffer:
        if self.how == "raises":
            raise RuntimeError(f"no memory for {tensor_name}")
        return triton.MemoryBuffer.from_dlpack(np.zeros(1, np.uint8))


def test_an_allocator_that_fails_fails_the_request(model: Get) -> None:
    for how, message in (("raises", "no memory for OUT0"), ("short", "returned 1 bytes for OUT0, which needs 16")):
        with pytest.raises(triton.InternalError, match=message):
            list(model("identity").infer(inputs=GOOD, output_memory_allocator=Broken(how)))


def test_a_wrong_option_of_a_request_is_refused(model: Get) -> None:
    wrong: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
        ({"parameters": {"p": [1]}}, triton.InvalidArgumentError, "Can't convert <class 'list'>"),
        ({"parameters": {"p": 2**63}}, triton.InvalidArgumentError, "must fit in 64 bits"),
        ({"priority": -1}, triton.InvalidArgumentError, "priority must be between 0"),
        ({"timeout": 1.5}, TypeError, "timeout must be int"),
        ({"correlation_id": 2**64}, triton.InvalidArgumentError, "correlation_id must be between"),
        ({"request_id": 5}, TypeError, "request_id must be str"),
        ({"response_queue": []}, triton.InvalidArgumentError, "queue.SimpleQueue must be used"),
        ({"output_memory_type": "tpu"}, triton.InvalidArgumentError, "Invalid memory type string tpu"),
        ({"output_memory_type": "gpu"}, triton.InvalidArgumentError, "GPU not supported"),
    )
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            list(model("identity").infer(inputs=GOOD, **options))
    with pytest.raises(triton.InvalidArgumentError, match="model of a request must be a Model, got 'identity'"):
        model("identity").infer(triton.InferenceRequest("identity", inputs=GOOD))  # type: ignore[arg-type]


def test_a_wrong_option_of_the_server_is_refused() -> None:
    wrong: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
        ({"server_id": 1}, TypeError, "server option SetServerId does not take"),
        ({"model_repository": 1}, TypeError, ""),
        ({"model_repository": None}, triton.InvalidArgumentError, "Model repository must be specified"),
        ({"model_repository": "/nowhere"}, triton.InternalError, "/nowhere"),
        ({"exit_timeout": "x"}, TypeError, ""),
        (
            {"backend_configuration": {"python": {"shm-default-byte-size": "x"}}},
            triton.InvalidArgumentError,
            "shm-default-byte-size must be a number of bytes greater than 0, got 'x'",
        ),
    )
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            triton.Server(**options).start()


def test_a_server_that_is_not_started_refuses_everything() -> None:
    server = triton.Server(model_repository="/nowhere")
    for call in (server.live, server.ready, server.metadata, server.models, server.metrics, server.stop):
        with pytest.raises(triton.InvalidArgumentError, match="Server not started"):
            call()
    with pytest.raises(triton.InvalidArgumentError, match="Server not started"):
        server.model("any")


def test_a_failed_start_leaves_the_server_that_runs_whole(model: Get) -> None:
    model("identity")
    for _ in range(2):
        with pytest.raises(triton.InternalError):
            triton.Server(model_repository="/nowhere").start()
        (response,) = model("chain").infer(inputs={"IN": np.ones(1000, np.float32)})
        assert np.from_dlpack(response.outputs["OUT"]).sum() == 1000


def test_a_started_server_is_not_started_again(server: triton.Server) -> None:
    with pytest.raises(triton.InvalidArgumentError, match="already started"):
        server.start()


def test_errors_survive_pickling() -> None:
    for cls in (errors.TritonError, *errors.ERROR_BY_CODE):
        copy = pickle.loads(pickle.dumps(cls("the message")))
        assert (type(copy), str(copy)) == (cls, "the message")
