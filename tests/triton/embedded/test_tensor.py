"""Tensors without a server: conversions, and DLPack without copies."""

from __future__ import annotations

import gc
import sys
import weakref

import ml_dtypes
import numpy as np
import pytest
import torch

from serve_app.triton.embedded import DataType, DLDeviceType, InvalidArgumentError, MemoryBuffer, MemoryType, Tensor
from serve_app.triton.embedded import dlpack as dlpack_module


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_goes_in_and_out_without_a_copy() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    tensor = Tensor.from_dlpack(array)
    assert (tensor.data_ptr, tensor.shape, tensor.size) == (address(array), [2, 3], 12)
    assert (tensor.data_type, tensor.__dlpack_device__()) == (DataType.INT16, (DLDeviceType.kDLCPU, 0))
    assert address(np.from_dlpack(tensor)) == address(np.asarray(tensor)) == address(array)
    assert np.array_equal(np.from_dlpack(tensor), array)
    assert torch.from_dlpack(tensor).data_ptr() == address(array)
    assert torch.from_dlpack(tensor).tolist() == array.tolist()
    source = torch.arange(6, dtype=torch.int64)
    assert Tensor.from_dlpack(source).data_ptr == source.data_ptr()


@pytest.mark.parametrize("consumer", [np.from_dlpack, torch.from_dlpack, np.asarray])
def test_a_view_keeps_the_memory_and_gives_it_back(consumer) -> None:
    lent_before = len(dlpack_module._lent)
    array = np.arange(1000, dtype=np.float32)
    gone = weakref.ref(array)
    view = consumer(Tensor.from_dlpack(array))
    del array
    gc.collect()
    assert gone() is not None
    assert float(view[-1]) == 999
    del view
    gc.collect()
    assert gone() is None
    assert len(dlpack_module._lent) == lent_before


def test_a_buffer_holds_one_reference_to_its_owner() -> None:
    for owner in (np.zeros(3), torch.zeros(3), Tensor.from_dlpack(np.zeros(3))):
        before = sys.getrefcount(owner)
        buffer = MemoryBuffer.from_dlpack(owner)
        assert sys.getrefcount(owner) == before + 1, type(owner)
        del buffer
        assert sys.getrefcount(owner) == before, type(owner)


def test_memory_that_is_not_its_owners_own_lives_as_long_as_the_buffer() -> None:
    """A producer may export a copy, which only the capsule keeps alive."""

    class Copying:
        def __dlpack__(self) -> object:
            self.copy = np.ones(3)
            exported = weakref.ref(self.copy)
            capsule = self.copy.__dlpack__()
            self.copy = exported
            return capsule

        def __dlpack_device__(self) -> tuple[int, int]:
            return DLDeviceType.kDLCPU, 0

    owner = Copying()
    buffer = MemoryBuffer.from_dlpack(owner)
    gc.collect()
    assert owner.copy() is not None
    assert np.asarray(Tensor(DataType.FP64, [3], buffer)).tolist() == [1, 1, 1]
    del buffer
    assert owner.copy() is None


def test_a_capsule_that_nobody_takes_is_given_back() -> None:
    lent_before = len(dlpack_module._lent)
    capsule = Tensor.from_dlpack(np.zeros(3)).__dlpack__()
    assert len(dlpack_module._lent) == lent_before + 1
    del capsule
    assert len(dlpack_module._lent) == lent_before


def test_bfloat16_is_seen_by_numpy_and_by_torch() -> None:
    tensor = Tensor._from_object(np.array([1.5, -2], ml_dtypes.bfloat16))
    assert tensor.data_type == DataType.BF16
    assert np.asarray(tensor).dtype == ml_dtypes.bfloat16
    assert torch.from_dlpack(tensor).tolist() == [1.5, -2]


def test_a_tensor_of_no_dimensions_keeps_its_value() -> None:
    tensor = Tensor._from_object(np.float32(2.5))
    assert tensor.shape == []
    assert np.asarray(tensor) == 2.5
    assert torch.from_dlpack(tensor).item() == 2.5


def test_memory_with_gaps_is_refused_by_dlpack() -> None:
    with pytest.raises(InvalidArgumentError, match="Only contiguous memory is supported"):
        Tensor.from_dlpack(np.zeros((4, 4))[:, ::2])


def test_dimensions_of_one_element_do_not_count_as_gaps() -> None:
    assert Tensor.from_dlpack(torch.zeros(4, 4)[:, :1].T[:, :1]).shape == [1, 1]


def test_strings_and_bytes_become_a_bytes_tensor() -> None:
    for given in (["a", "b"], [b"a", b"b"], np.array(["a", "b"]), np.array([b"a", "b"], object)):
        tensor = Tensor.from_bytes_array(given)
        assert tensor.data_type == DataType.BYTES
        assert tensor.to_bytes_array().tolist() == [b"a", b"b"]
        assert Tensor.from_string_array(given).to_string_array().tolist() == ["a", "b"]
    assert Tensor.from_bytes_array(np.empty((0, 2), object)).to_bytes_array().shape == (0, 2)


def test_numbers_are_no_bytes_tensor() -> None:
    with pytest.raises(InvalidArgumentError, match="Unsupported conversion"):
        Tensor.from_bytes_array([1, 2])
    with pytest.raises(InvalidArgumentError, match="has data type"):
        Tensor._from_object([1, 2]).to_bytes_array()


def test_data_that_does_not_fit_its_shape_is_refused() -> None:
    for data in (b"\x05\x00\x00\x00ab", b"\x01", b"\x00\x00\x00\x00\xff"):
        buffer = MemoryBuffer.from_dlpack(np.frombuffer(bytearray(data), np.uint8))
        with pytest.raises(InvalidArgumentError, match="cut off"):
            Tensor(DataType.BYTES, [1], buffer).to_bytes_array()
    buffer = MemoryBuffer.from_dlpack(np.zeros(4, np.uint8))
    with pytest.raises(InvalidArgumentError, match="needs 8 bytes, its memory has 4"):
        np.asarray(Tensor(DataType.FP32, [2], buffer))


def test_what_is_no_tensor_is_refused() -> None:
    for given in (5, "text", object(), None, np.array([1j])):
        with pytest.raises(InvalidArgumentError):
            Tensor._from_object(given)
    assert Tensor._from_object([object()]).data_type == DataType.BYTES  # any object has a string


def test_memory_can_be_seen_as_another_type() -> None:
    buffer = MemoryBuffer.from_dlpack(np.arange(8, dtype=np.uint8))
    seen = np.from_dlpack(Tensor(DataType.UINT32, [2], buffer))
    assert address(seen) == buffer.data_ptr
    assert seen.tolist() == [0x03020100, 0x07060504]


def test_a_tensor_on_the_host_stays_where_it_is() -> None:
    tensor = Tensor.from_dlpack(np.zeros(3))
    for device in ("cpu", "CPU:0", MemoryType.CPU, (MemoryType.CPU, 0), (DLDeviceType.kDLCPU, 0)):
        assert tensor.to_device(device) is tensor
    assert tensor.to_host() is tensor
    for unknown in ("tpu", "gpu:x", "gpu:0:1", (5, 0), ("gpu", 0)):
        with pytest.raises(InvalidArgumentError, match="Invalid memory type"):
            tensor.to_device(unknown)
