"""Images cut into blocks, joined again, and pooled by blocks."""

import math

from keras import ops

from keras_sasa.ops.exporters import exporting
from keras_sasa.ops.sizes import ceil_divide


def cut(maps, block_size: int):
    """`(B, H, W, C)` -> `(B * blocks, block_size ** 2, C)`.

    Blocks that the border cuts off are filled up with zeros.
    """
    batch, height, width, channels = ops.shape(maps)
    rows, columns = _count(height, width, block_size)
    maps = _fill_up(maps, block_size)
    maps = ops.reshape(
        maps, (batch, rows, block_size, columns, block_size, channels)
    )
    maps = ops.transpose(maps, (0, 1, 3, 2, 4, 5))
    return ops.reshape(maps, (batch * rows * columns, block_size**2, channels))


def join(blocks, sizes, block_size: int):
    """The inverse of `cut`.

    Args:
        blocks: `(B * blocks, block_size ** 2, ...)`; further axes become the
            channels of the map.
        sizes: Batch, height and width of the map.
        block_size: Side of a block.
    """
    batch, height, width = sizes
    rows, columns = _count(height, width, block_size)
    channels = math.prod(blocks.shape[2:])
    blocks = ops.reshape(
        blocks, (batch, rows, columns, block_size, block_size, channels)
    )
    blocks = ops.transpose(blocks, (0, 1, 3, 2, 4, 5))
    maps = ops.reshape(
        blocks, (batch, rows * block_size, columns * block_size, channels)
    )
    return maps[:, :height, :width]


def pool(maps, block_size: int):
    """Maximum of every block, `(batch, block rows, block columns, filters)`."""
    batch, height, width, filters = ops.shape(maps)
    blocks = _count(height, width, block_size)
    if isinstance(batch, int) and batch == 0:
        # The gradient of TensorFlow's pooling crashes without images.
        return maps[:, ::block_size, ::block_size]
    if exporting():
        # Infinity cannot be quantized. Repeating the last row and column of
        # the image does not change the maximum of their blocks.
        for axis, (size, number) in enumerate(
            zip((height, width), blocks, strict=True), 1
        ):
            if not divides(block_size, size):
                index = ops.arange(number * block_size, dtype="int32")
                maps = ops.take(maps, ops.minimum(index, size - 1), axis=axis)
    else:
        maps = _fill_up(maps, block_size, -float("inf"))
    # Pooling aligned with the blocks; "same" would begin before the image.
    pooled = ops.max_pool(
        maps, block_size, strides=block_size, data_format="channels_last"
    )
    # LiteRT must know the channels to convolve, and padding forgets them.
    return ops.reshape(pooled, (batch, *blocks, filters))


def divides(block_size: int, size) -> bool:
    """Returns whether the size is known and a multiple of the block's."""
    return isinstance(size, int) and size % block_size == 0


def _count(height, width, block_size):
    """Returns how many blocks there are along both sides."""
    return tuple(ceil_divide(size, block_size) for size in (height, width))


def _fill_up(maps, block_size, value=0.0):
    """Fills up the blocks that the border cuts off."""
    sizes = ops.shape(maps)[1:3]
    padding = [
        (0, number * block_size - size)
        for number, size in zip(_count(*sizes, block_size), sizes, strict=True)
    ]
    return ops.pad(maps, ((0, 0), *padding, (0, 0)), constant_values=value)
