"""Arithmetic of sizes: integers where known, else scalar tensors of a graph."""

from typing import Any

import numpy as np
from keras import ops


def ceil_divide(size: Any, divisor: int) -> Any:
    """Divides and rounds up, in a way that survives the export to ONNX.

    tf2onnx 1.17 writes `//` and `%` of negative integers as a division that
    rounds to zero, so the usual `-(-size // divisor)` rounds down there.
    """
    return (size + divisor - 1) // divisor


def arange(size: Any) -> Any:
    """Returns `0, 1, ... size - 1`, in NumPy where `size` is known."""
    if isinstance(size, int):
        return np.arange(size, dtype="int32")
    return ops.arange(size, dtype="int32")


def clip(index: Any, lowest: Any, highest: Any) -> Any:
    """Limits an index, in NumPy where index and limits are known."""
    values = (index, lowest, highest)
    if all(isinstance(value, (int, np.ndarray)) for value in values):
        return np.minimum(np.maximum(index, lowest), highest)
    return ops.minimum(ops.maximum(index, lowest), highest)


def reshape(index: Any, shape: tuple[int, ...]) -> Any:
    """Reshapes an index table, in NumPy where it is known."""
    known = isinstance(index, np.ndarray)
    return index.reshape(shape) if known else ops.reshape(index, shape)
