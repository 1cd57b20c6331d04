"""Attention within blocks by operations of Keras: the definition."""

import keras
from keras import ops

from keras_sasa.ops.block_attention.blocks import cut, divides, join
from keras_sasa.ops.block_attention.interface import BlockAttention
from keras_sasa.ops.exporters import exporting
from keras_sasa.ops.precision import compute_dtype
from keras_sasa.ops.softmax import MASKED_LOGIT, masked_softmax, softmax


class BlockDefinition(BlockAttention):
    """Block attention by its definition, for every problem and backend."""

    # The blocks are the patches of the image.
    name = "patches"
    portable = True

    def compute(self, problem, inputs, query_kernel, key_kernel, value):
        blocks = cut(inputs, problem.block_size)
        query, key = (
            split_heads(ops.matmul(blocks, kernel), problem.num_heads)
            for kernel in (query_kernel, key_kernel)
        )
        if problem.value_map:
            value = cut(value, problem.block_size)
        else:
            value = make_values(blocks, value)
        value = split_heads(value, problem.num_heads)
        return attend(inputs, query, key, value, problem.block_size)


def attend(inputs, query, key, value, block_size: int):
    """Attends within blocks.

    Args:
        inputs: The image, for its sizes and type.
        query: `(blocks, places, heads, width)`, as are key and value.
        key: The keys.
        value: The values.
        block_size: Side of a block.

    Returns:
        `(batch, height, width, filters)`.
    """
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    softmax_dtype = compute_dtype(dtype)
    # Cast before the product, which float16 could not hold.
    logits = ops.einsum(
        "bind,bjnd->bnij",
        ops.cast(query, softmax_dtype),
        ops.cast(key, softmax_dtype),
    )
    # Only pixels of the image are keys; the border may cut a block off.
    inside = cut(ops.ones_like(inputs[..., :1]), block_size)[..., 0]
    inside = inside[:, None, None, :]
    if all(divides(block_size, size) for size in inputs.shape[1:3]):
        weights = softmax(logits)
    elif exporting():
        # The file may be quantized, and must not contain large logits.
        weights = masked_softmax(logits, ops.cast(inside, softmax_dtype))
    else:
        weights = softmax(ops.where(inside > 0.5, logits, MASKED_LOGIT))
    weights = ops.cast(weights, dtype)
    outputs = ops.einsum("bnij,bjnd->bind", weights, value)
    return join(outputs, ops.shape(inputs)[:3], block_size)


def make_values(blocks, value_kernels):
    """Multiplies pixels by the matrix of their place, or by the only one."""
    if value_kernels.shape[0] == 1:
        return ops.matmul(blocks, value_kernels[0])
    return ops.einsum("bpc,pcf->bpf", blocks, value_kernels)


def split_heads(blocks, num_heads: int):
    """`(blocks, places, filters)` -> `(blocks, places, heads, width)`."""
    *shape, filters = ops.shape(blocks)
    return ops.reshape(blocks, (*shape, num_heads, filters // num_heads))
