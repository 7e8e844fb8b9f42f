"""What differs in NVIDIA's own package: enums of C++ in place of Python's, and no class for a cancelled request."""

from types import SimpleNamespace

import numpy as np
import pytest

from serve_app.errors import DeadlineExceededError, EngineError, InvalidRequestError, UnsupportedError
from serve_app.triton import binding, conversion
from serve_app.triton.protocol import Protocol
from serve_app.types.tensors import InferRequest, Tensor


class TritonError(Exception):
    pass


class InvalidArgumentError(TritonError):
    pass


class Decoupled:
    """A flag that is no integer, but can be made one."""

    def __int__(self):
        return 2


@pytest.fixture
def faked_package(monkeypatch):
    """Its names as version 2.73 has them, as far as they are asked for here."""
    others = {
        name: type(name, (TritonError,), {}) for name in ("NotFoundError", "UnavailableError", "UnsupportedError")
    }
    package = SimpleNamespace(
        TritonError=TritonError,
        InvalidArgumentError=InvalidArgumentError,
        **others,
        DataType=SimpleNamespace(UINT8="the type"),
        MemoryType=SimpleNamespace(CPU="here"),
        MemoryBuffer=lambda *fields: fields,
        Tensor=lambda *fields: fields,
    )
    for module in (binding, conversion):
        monkeypatch.setattr(module, "find_tritonserver", lambda: package)
    monkeypatch.setattr(binding, "translations", binding.translations.__wrapped__)
    return package


@pytest.mark.parametrize(("theirs", "ours"), [(InvalidArgumentError, InvalidRequestError), (TritonError, EngineError)])
def test_errors_are_translated_without_a_class_for_cancelled_requests_with_a_faked_package(faked_package, theirs, ours):
    assert DeadlineExceededError not in [one for _, one in binding.translations()]
    with pytest.raises(ours) as caught, binding.translated("model 'x' failed"):
        raise theirs("no such input")
    assert caught.value.message == "model 'x' failed: no such input"


def test_data_types_that_are_no_python_enum_are_found_by_name_with_a_faked_package(faked_package):
    model = SimpleNamespace(create_request=lambda **given: SimpleNamespace(**given))
    picture = np.arange(4, dtype=np.uint8)
    asked = InferRequest("m", inputs=(Tensor("x", "UINT8", (4,), picture.tobytes()),))
    data_type, shape, _ = conversion.create_request(model, asked, 0).inputs["x"]
    assert (data_type, shape) == ("the type", (4,))


async def test_a_decoupled_model_is_told_by_flags_that_are_no_integers_with_a_faked_package(faked_package):
    model = SimpleNamespace(transaction_properties=Decoupled)
    protocol = Protocol(SimpleNamespace(model=lambda name, version: model))
    with pytest.raises(UnsupportedError) as caught:
        await protocol.infer(InferRequest("m", inputs=()))
    assert caught.value.message.startswith("model 'm' is decoupled")
