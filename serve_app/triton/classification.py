"""The classification extension: an output as its highest values, written `value:index:label`."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serve_app.errors import InvalidRequestError
from serve_app.types.tensors import NUMPY_TYPES, Tensor, pack_elements


def classify(tensor: Tensor, count: int, labels: Sequence[str], batched: bool) -> Tensor:
    """The `count` highest values of each row; a batch has a row for each of its members."""
    if tensor.datatype not in NUMPY_TYPES or tensor.datatype in ("BOOL", "FP16"):
        raise InvalidRequestError(f"class result not available for output '{tensor.name}' of type {tensor.datatype}")
    values = tensor.array()
    of_each = tensor.shape[1:] if batched else tensor.shape
    rows = values.reshape(tensor.shape[0] if batched and tensor.shape else 1, math.prod(of_each))
    count = min(count, rows.shape[1])
    best = _descending(rows)[:, :count]
    texts = [_write(row[index], int(index), labels) for row, order in zip(rows, best, strict=True) for index in order]
    shape = (len(rows), count) if batched and tensor.shape else (count,)
    return Tensor(tensor.name, "BYTES", shape, pack_elements([text.encode() for text in texts]))


def _descending(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """Among equal values the first comes first, and what is no number last."""
    if rows.dtype.kind == "f":
        return np.argsort(-rows.astype(np.float64), axis=1, kind="stable")
    # Sorting the reversed row upwards and reading it backwards keeps that order, without negating unsigned numbers.
    upwards = np.argsort(rows[:, ::-1], axis=1, kind="stable")
    return (rows.shape[1] - 1 - upwards)[:, ::-1]


def _write(value: np.generic, index: int, labels: Sequence[str]) -> str:
    number = f"{value:f}" if isinstance(value, np.floating) else str(value)
    return f"{number}:{index}:{labels[index]}" if index < len(labels) else f"{number}:{index}"
