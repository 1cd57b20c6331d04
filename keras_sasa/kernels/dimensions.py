"""Dimensions of results, some of which are known only when a graph runs."""

from typing import NamedTuple


class DynamicDimension(NamedTuple):
    """The size of an operand's axis, divided by `divisor` and rounded up."""

    operand: int
    axis: int
    divisor: int = 1


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
