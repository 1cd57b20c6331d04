"""Self-attention within the blocks of an image, as pure functions.

For the pixels i, j of a block of `block_size` x `block_size` and one head:

    y_i = sum over j of softmax_j((W_Q' x_i) . (W_K' x_j)) M_j' x_j

with M_j the matrix of values at the place of j in its block. Where the border
of the image cuts a block off, its pixels inside take part.
"""

import keras
from keras import ops

from keras_sasa.ops.block_attention import native, operations
from keras_sasa.ops.block_attention.operations import pool as pool
from keras_sasa.ops.local_attention import (
    check_implementation,
    choose_implementation,
)

# Images of more channels are not for the kernel. It multiplies matrices
# (channels, channels), where queries and keys are narrower, and its gradient
# keeps many copies of the matrices of values.
MAX_KERNEL_CHANNELS = 64


def block_attention(
    inputs,
    query_kernel,
    key_kernel,
    value,
    *,
    block_size: int,
    num_heads: int,
    implementation: str | None = None,
):
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
        implementation: As in `local_attention`. All but `"native"` compute by
            operations of Keras. What the kernel does not take (a map of values,
            float64, many channels) they compute, too.

    Returns:
        `(batch, height, width, filters)` in the dtype of `inputs`. The softmax
        is computed in float32 (float64 for float64), and so is all in the
        kernel.

    Raises:
        ValueError: If `implementation` is not known, or `"native"` where the
            kernel does not run.
    """
    options = {"block_size": block_size, "num_heads": num_heads}
    operands = [inputs, query_kernel, key_kernel, value]
    if not _by_kernel(inputs, value, implementation):
        return operations.block_attention(*operands, **options)
    outputs = native.block_attention(
        *_for_kernel(*operands, **options), **options
    )
    return ops.cast(outputs, inputs.dtype)


def pooled_block_attention(
    inputs,
    query_kernel,
    key_kernel,
    value,
    scale,
    offset,
    *,
    block_size: int,
    num_heads: int,
    implementation: str | None = None,
):
    """Normalizes, `scale * y + offset`, and pools each block, for inference.

    The kernel of `"native"` never has y in memory; so a gradient computes it
    again.

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
    options = {"block_size": block_size, "num_heads": num_heads}
    operands = [inputs, query_kernel, key_kernel, value]
    if not _by_kernel(inputs, value, implementation):
        maps = operations.block_attention(*operands, **options)
        maps = ops.cast(maps, scale.dtype) * scale + offset
        return operations.pool(ops.cast(maps, inputs.dtype), block_size)
    outputs = native.pooled_block_attention(
        *_for_kernel(*operands, **options),
        *(ops.cast(numbers, "float32") for numbers in (scale, offset)),
        **options,
    )
    return ops.cast(outputs, inputs.dtype)


def _by_kernel(inputs, value, implementation):
    check_implementation(implementation)
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    for_kernel = (
        dtype != "float64"
        and len(value.shape) == 3
        and inputs.shape[-1] <= MAX_KERNEL_CHANNELS
    )
    return choose_implementation(implementation, for_kernel) == "native"


def _for_kernel(
    inputs, query_kernel, key_kernel, value_kernels, *, block_size, num_heads
):
    """Returns image, logit kernels and a matrix of values for every place."""
    inputs, query_kernel, key_kernel, value_kernels = (
        ops.cast(operand, "float32")
        for operand in (inputs, query_kernel, key_kernel, value_kernels)
    )
    channels, filters = query_kernel.shape
    heads = (channels, num_heads, filters // num_heads)
    logit_kernels = ops.einsum(
        "cnd,end->nce",
        ops.reshape(query_kernel, heads),
        ops.reshape(key_kernel, heads),
    )
    value_kernels = ops.broadcast_to(
        value_kernels, (block_size**2, channels, filters)
    )
    return inputs, logit_kernels, value_kernels
