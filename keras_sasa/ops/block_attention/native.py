"""Attention within blocks by the compiled kernel, a custom call of XLA on CPU.

The kernel needs queries and keys only as products: with the logit kernel
L = W_Q W_K' of a head, the logit of the pixels i and j is x_i' L x_j. An image
has few channels, so this takes fewer multiplications.
"""

from keras import ops

from keras_sasa.kernels import custom_call, targets
from keras_sasa.kernels.dimensions import Spec, dimension
from keras_sasa.ops.block_attention.blocks import cut, pool
from keras_sasa.ops.block_attention.definition import (
    attend,
    make_values,
    split_heads,
)
from keras_sasa.ops.block_attention.interface import BlockAttention
from keras_sasa.ops.native import NativeImplementation

# The kernel multiplies matrices (channels, channels), where queries and keys
# are narrower, and its gradient keeps many copies of the matrices of values.
MAX_CHANNELS = 64


class NativeBlockAttention(NativeImplementation, BlockAttention):
    """Block attention by the compiled kernel, all in float32."""

    def unsupported_reason(self, problem):
        if problem.value_map:
            return "it takes matrices of values, not a map of them"
        if problem.channels > MAX_CHANNELS:
            return f"it takes images of at most {MAX_CHANNELS} channels"
        return super().unsupported_reason(problem)

    def compute(self, problem, inputs, query_kernel, key_kernel, value):
        operands = _operands(problem, inputs, query_kernel, key_kernel, value)
        return ops.cast(_attend(problem, *operands), inputs.dtype)

    def compute_pooled(
        self, problem, inputs, query_kernel, key_kernel, value, scale, offset
    ):
        operands = [
            *_operands(problem, inputs, query_kernel, key_kernel, value),
            ops.cast(scale, "float32"),
            ops.cast(offset, "float32"),
        ]

        def results(shapes):
            batch = dimension(shapes, 0, 0)
            sizes = (
                dimension(shapes, 0, axis, problem.block_size)
                for axis in (1, 2)
            )
            return [Spec((batch, *sizes, value.shape[-1]))]

        def recompute(*operands):
            *operands, scale, offset = operands
            maps = _attend(problem, *operands)
            return pool(maps * scale + offset, problem.block_size)

        outputs = custom_call.with_recomputed_gradient(
            operands,
            forward=targets.BLOCK_POOLED,
            results=results,
            attributes=_attributes(problem),
            recompute=recompute,
        )
        return ops.cast(outputs, inputs.dtype)


def _attend(problem, inputs, logit_kernels, value_kernels):
    """Calls the kernel.

    Args:
        problem: Description of the call.
        inputs: `(batch, height, width, channels)`.
        logit_kernels: `(num_heads, channels, channels)`.
        value_kernels: `(block_size ** 2, channels, filters)`.

    Returns:
        `(batch, height, width, filters)`.
    """

    def results(shapes):
        sizes = (dimension(shapes, 0, axis) for axis in range(3))
        return [Spec((*sizes, value_kernels.shape[-1]))]

    def recompute(inputs, logit_kernels, value_kernels):
        """The same by operations of Keras, from the same operands."""
        blocks = cut(inputs, problem.block_size)
        query = ops.einsum("bic,nce->bine", blocks, logit_kernels)
        key = ops.repeat(blocks[:, :, None], problem.num_heads, axis=2)
        value = make_values(blocks, value_kernels)
        value = split_heads(value, problem.num_heads)
        return attend(inputs, query, key, value, problem.block_size)

    return custom_call.with_gradient(
        [inputs, logit_kernels, value_kernels],
        forward=targets.BLOCK_FORWARD,
        backward=targets.BLOCK_BACKWARD,
        results=results,
        attributes=_attributes(problem),
        recompute=recompute,
    )


def _attributes(problem):
    return {"num_heads": problem.num_heads, "block_size": problem.block_size}


def _operands(problem, inputs, query_kernel, key_kernel, value_kernels):
    """Returns image, logit kernels and a matrix of values for every place."""
    inputs, query_kernel, key_kernel, value_kernels = (
        ops.cast(operand, "float32")
        for operand in (inputs, query_kernel, key_kernel, value_kernels)
    )
    channels, filters = query_kernel.shape
    heads = (channels, problem.num_heads, filters // problem.num_heads)
    logit_kernels = ops.einsum(
        "cnd,end->nce",
        ops.reshape(query_kernel, heads),
        ops.reshape(key_kernel, heads),
    )
    value_kernels = ops.broadcast_to(
        value_kernels, (problem.block_size**2, channels, filters)
    )
    return inputs, logit_kernels, value_kernels
