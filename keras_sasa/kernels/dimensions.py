"""Shapes and types of operands and results.

Some dimensions of results are known only when a graph runs.
"""

from typing import Any, NamedTuple

import keras


class DynamicDimension(NamedTuple):
    """The size of an operand's axis, divided by `divisor` and rounded up."""

    operand: int
    axis: int
    divisor: int = 1


class Spec(NamedTuple):
    """A shape of integers, `None` and `DynamicDimension`, and a type."""

    shape: tuple
    dtype: str = "float32"


def spec_of(tensor: Any) -> Spec:
    """Returns shape and type of a tensor."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return Spec(tuple(tensor.shape), dtype)


def dimension(
    shapes, operand: int, axis: int, divisor: int = 1
) -> int | DynamicDimension:
    """Returns a dimension that follows from the size of an operand's axis.

    Args:
        shapes: Shapes of the operands, `None` for unknown sizes.
        operand: Index of the operand.
        axis: Index of its axis.
        divisor: The size is divided by it, and rounded up.

    Returns:
        An integer where the size is known, else a `DynamicDimension`.
    """
    known = shapes[operand][axis]
    if known is None:
        return DynamicDimension(operand, axis, divisor)
    return -(-known // divisor)
