"""Attention within blocks by operations of Keras: the definition."""

import keras
from keras import ops

from keras_sasa.ops.exporters import exporting
from keras_sasa.ops.local_attention.geometry import MASKED_LOGIT, ceil_divide
from keras_sasa.ops.softmax import masked_softmax, softmax


def block_attention(
    inputs, query_kernel, key_kernel, value, *, block_size, num_heads
):
    """Arguments and result as for `block_attention` of the package."""
    blocks = cut(inputs, block_size)
    query, key = (
        _split_heads(ops.matmul(blocks, kernel), num_heads)
        for kernel in (query_kernel, key_kernel)
    )
    if len(value.shape) == 4:
        value = cut(value, block_size)
    else:
        value = _values(blocks, value)
    return _attend(
        inputs, query, key, _split_heads(value, num_heads), block_size
    )


def attend_by_logit_kernels(
    inputs, logit_kernels, value_kernels, *, block_size
):
    """The same of what the kernel takes, see `native`."""
    num_heads = logit_kernels.shape[0]
    blocks = cut(inputs, block_size)
    query = ops.einsum("bic,nce->bine", blocks, logit_kernels)
    key = ops.repeat(blocks[:, :, None], num_heads, axis=2)
    value = _split_heads(_values(blocks, value_kernels), num_heads)
    return _attend(inputs, query, key, value, block_size)


def _attend(inputs, query, key, value, block_size):
    """Attends; query, key and value are `(blocks, places, heads, width)`."""
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    softmax_dtype = "float64" if dtype == "float64" else "float32"
    # Cast before the product, which float16 could not hold.
    logits = ops.einsum(
        "bind,bjnd->bnij",
        ops.cast(query, softmax_dtype),
        ops.cast(key, softmax_dtype),
    )
    # Only pixels of the image are keys; the border may cut a block off.
    inside = cut(ops.ones_like(inputs[..., :1]), block_size)[..., 0]
    inside = inside[:, None, None, :]
    if all(_divides(block_size, size) for size in inputs.shape[1:3]):
        weights = softmax(logits)
    elif exporting():
        # The file may be quantized, and must not contain large logits.
        weights = masked_softmax(logits, ops.cast(inside, softmax_dtype))
    else:
        weights = softmax(ops.where(inside > 0.5, logits, MASKED_LOGIT))
    weights = ops.cast(weights, dtype)
    outputs = ops.einsum("bnij,bjnd->bind", weights, value)
    return _join(outputs, ops.shape(inputs)[:3], block_size)


def _values(blocks, value_kernels):
    if value_kernels.shape[0] == 1:
        return ops.matmul(blocks, value_kernels[0])
    return ops.einsum("bpc,pcf->bpf", blocks, value_kernels)


def _split_heads(blocks, num_heads):
    *shape, filters = ops.shape(blocks)
    return ops.reshape(blocks, (*shape, num_heads, filters // num_heads))


def cut(maps, block_size):
    """`(B, H, W, C)` -> `(B * blocks, block_size ** 2, C)`."""
    batch, height, width, channels = ops.shape(maps)
    rows, columns = _blocks(height, width, block_size)
    maps = _fill_up(maps, block_size)
    maps = ops.reshape(
        maps, (batch, rows, block_size, columns, block_size, channels)
    )
    maps = ops.transpose(maps, (0, 1, 3, 2, 4, 5))
    return ops.reshape(maps, (batch * rows * columns, block_size**2, channels))


def _join(blocks, sizes, block_size):
    """The inverse of `cut`, with the heads put together."""
    batch, height, width = sizes
    rows, columns = _blocks(height, width, block_size)
    _, _, num_heads, head_width = blocks.shape
    filters = num_heads * head_width
    blocks = ops.reshape(
        blocks, (batch, rows, columns, block_size, block_size, filters)
    )
    blocks = ops.transpose(blocks, (0, 1, 3, 2, 4, 5))
    maps = ops.reshape(
        blocks, (batch, rows * block_size, columns * block_size, filters)
    )
    return maps[:, :height, :width]


def _blocks(height, width, block_size):
    """Returns how many blocks there are along both sides."""
    return tuple(ceil_divide(size, block_size) for size in (height, width))


def _divides(block_size, size):
    return isinstance(size, int) and size % block_size == 0


def _fill_up(maps, block_size, value=0.0):
    """Fills up the blocks that the border cuts off."""
    sizes = ops.shape(maps)[1:3]
    padding = [
        (0, number * block_size - size)
        for number, size in zip(_blocks(*sizes, block_size), sizes, strict=True)
    ]
    return ops.pad(maps, ((0, 0), *padding, (0, 0)), constant_values=value)


def pool(maps, block_size):
    """Maximum of every block, `(batch, block rows, block columns, filters)`."""
    batch, height, width, filters = ops.shape(maps)
    blocks = _blocks(height, width, block_size)
    if isinstance(batch, int) and batch == 0:
        # The gradient of TensorFlow's pooling ends the process without images.
        return maps[:, ::block_size, ::block_size]
    if exporting():
        # Infinity cannot be quantized. Repeating the last row and column of
        # the image does not change the maximum of their blocks.
        for axis, (size, number) in enumerate(
            zip((height, width), blocks, strict=True), 1
        ):
            if not _divides(block_size, size):
                index = ops.arange(number * block_size, dtype="int32")
                maps = ops.take(maps, ops.minimum(index, size - 1), axis=axis)
    else:
        maps = _fill_up(maps, block_size, -float("inf"))
    # Pooling aligned with the blocks; "same" would begin before the image.
    pooled = ops.max_pool(
        maps, block_size, strides=block_size, data_format="channels_last"
    )
    # LiteRT needs known channels to convolve, and padding forgets them.
    return ops.reshape(pooled, (batch, *blocks, filters))
