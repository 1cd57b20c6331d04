"""Attention within blocks by the compiled kernel, a custom call of XLA on CPU.

Of queries and keys the kernel needs only what they make together: with the
logit kernel L = W_Q W_K' of a head, the logit of the pixels i and j is
x_i' L x_j. An image has few channels, so that this takes fewer products.
"""

from keras_sasa.kernels import custom_call, targets
from keras_sasa.kernels.dimensions import dimension
from keras_sasa.ops.block_attention import operations


def block_attention(
    inputs, logit_kernels, value_kernels, *, block_size, num_heads
):
    """Attends within blocks, all in float32.

    Args:
        inputs: `(batch, height, width, channels)`.
        logit_kernels: `(num_heads, channels, channels)`.
        value_kernels: `(block_size ** 2, channels, filters)`.
        block_size: Side of a block.
        num_heads: Number of heads.

    Returns:
        `(batch, height, width, filters)`.
    """

    def results(shapes):
        sizes = (dimension(shapes, 0, axis) for axis in range(3))
        return [(*sizes, value_kernels.shape[-1])]

    def recompute(*operands):
        return operations.attend_by_logit_kernels(
            *operands, block_size=block_size
        )

    return custom_call.with_gradient(
        [inputs, logit_kernels, value_kernels],
        forward=targets.BLOCK_FORWARD,
        backward=targets.BLOCK_BACKWARD,
        results=results,
        attributes={"num_heads": num_heads, "block_size": block_size},
        recompute=recompute,
    )


def pooled_block_attention(
    inputs,
    logit_kernels,
    value_kernels,
    scale,
    offset,
    *,
    block_size,
    num_heads,
):
    """The largest numbers of every block of `scale * y + offset`.

    Returns:
        `(batch, ceil(height / block_size), ceil(width / block_size), filters)`.
    """

    def results(shapes):
        batch = dimension(shapes, 0, 0)
        sizes = (dimension(shapes, 0, axis, block_size) for axis in (1, 2))
        return [(batch, *sizes, value_kernels.shape[-1])]

    def recompute(*operands):
        *operands, scale, offset = operands
        maps = block_attention(
            *operands, block_size=block_size, num_heads=num_heads
        )
        return operations.pool(maps * scale + offset, block_size)

    return custom_call.with_recomputed_gradient(
        [inputs, logit_kernels, value_kernels, scale, offset],
        forward=targets.BLOCK_POOLED,
        results=results,
        attributes={"num_heads": num_heads, "block_size": block_size},
        recompute=recompute,
    )
