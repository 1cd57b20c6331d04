"""Self-attention within the blocks of an image, as pure functions.

For the pixels i, j of a block of `block_size` x `block_size` and one head:

    y_i = sum over j of softmax_j((W_Q' x_i) . (W_K' x_j)) M_j' x_j

with M_j the matrix of values at the place of j in its block. Where the border
of the image cuts a block off, only its pixels inside the image take part.
"""

from typing import Any

import keras

from keras_sasa.ops import dispatch, local_attention
from keras_sasa.ops.block_attention.blocks import pool as pool
from keras_sasa.ops.block_attention.problem import BlockProblem
from keras_sasa.ops.block_attention.table import IMPLEMENTATIONS
from keras_sasa.ops.precision import compute_dtype


def check_implementation(implementation: str | None) -> None:
    """Raises `ValueError` unless `implementation` is known or `None`.

    One name selects the implementation of all layers of a network, so the
    names of local attention are known here as well.
    """
    dispatch.check_name(
        implementation, {**local_attention.IMPLEMENTATIONS, **IMPLEMENTATIONS}
    )


def block_attention(
    inputs: Any,
    query_kernel: Any,
    key_kernel: Any,
    value: Any,
    *,
    block_size: int,
    num_heads: int,
    implementation: str | None = None,
) -> Any:
    """Lets the pixels of every block attend to each other.

    Args:
        inputs: `(batch, height, width, channels)`, of a floating point type.
        query_kernel: `(channels, filters)`; head n makes the channels `n * d`
            to `(n + 1) * d` with `d = filters / num_heads`.
        key_kernel: `(channels, filters)`.
        value: Matrices of values, `(block_size ** 2, channels, filters)` for
            one at each place of a block, row by row, or `(1, channels,
            filters)`; or a map of values `(batch, height, width, filters)`.
        block_size: Side of a block.
        num_heads: Number of heads.
        implementation: As in `local_attention`. A name that block attention
            has no implementation for stands for operations of Keras.

    Returns:
        `(batch, height, width, filters)` in the dtype of `inputs`. The softmax
        is computed in float32 (float64 for float64).

    Raises:
        ValueError: If the named implementation is not known or does not run
            here.
    """
    chosen, problem = _choose(
        inputs, value, block_size, num_heads, implementation
    )
    return chosen.compute(problem, inputs, query_kernel, key_kernel, value)


def pooled_block_attention(
    inputs: Any,
    query_kernel: Any,
    key_kernel: Any,
    value: Any,
    scale: Any,
    offset: Any,
    *,
    block_size: int,
    num_heads: int,
    implementation: str | None = None,
) -> Any:
    """Attends, computes `scale * y + offset` and pools, for inference.

    An implementation may fuse these steps and never hold y in memory; a
    gradient then recomputes it.

    Args:
        inputs: As in `block_attention`, as are the next three.
        query_kernel: `(channels, filters)`.
        key_kernel: `(channels, filters)`.
        value: Matrices or a map.
        scale: `(filters,)`, float32 or float64.
        offset: `(filters,)`.
        block_size: Side of a block.
        num_heads: Number of heads.
        implementation: As in `block_attention`.

    Returns:
        `(batch, ceil(height / block_size), ceil(width / block_size), filters)`
        in the dtype of `inputs`.

    Raises:
        ValueError: As in `block_attention`.
    """
    chosen, problem = _choose(
        inputs, value, block_size, num_heads, implementation
    )
    return chosen.compute_pooled(
        problem, inputs, query_kernel, key_kernel, value, scale, offset
    )


def _choose(inputs, value, block_size, num_heads, implementation):
    check_implementation(implementation)
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    problem = BlockProblem(
        block_size,
        num_heads,
        channels=inputs.shape[-1],
        dtype=compute_dtype(dtype),
        value_map=len(value.shape) == 4,
    )
    return dispatch.choose(IMPLEMENTATIONS, implementation, problem), problem
