"""Attention of blocks of queries to the keys of the block and its halo.

The image is cut into blocks of `block_size` x `block_size` pixels. All queries
of a block share one window: the block and `halo_size` pixels around it, K =
`block_size + 2 * halo_size` pixels along each axis. For one head of width d, a
query q at the place (i, j) of its block and the key at (r, c) of the window,

    logit = q.k / sqrt(d) + q.row[r - i + K - 1] + q.column[c - j + K - 1]

Beyond the border of the image, keys and values are zero and take part.

B batch, R and S rows and columns of blocks, N heads, D channels per head, Q
queries of a block, U keys of a window.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_sasa.ops.precision import compute_dtype
from keras_sasa.ops.size_checks import require_while_running
from keras_sasa.ops.sizes import ceil_divide
from keras_sasa.ops.slices import take_range
from keras_sasa.ops.softmax import softmax


def halo_attention(
    query: Any,
    key: Any,
    value: Any,
    row_embedding: Any,
    column_embedding: Any,
    *,
    num_heads: int,
    block_size: int,
    halo_size: int,
    strides: int = 1,
    dropout_mask: Any = None,
    return_attention_scores: bool = False,
) -> Any:
    """Lets every query attend to its block and the halo around it.

    Args:
        query: `(batch, height / strides, width / strides, key_filters)`; head
            n is the channels `n * d` to `(n + 1) * d` with
            `d = key_filters / num_heads`.
        key: `(batch, height, width, key_filters)`.
        value: `(batch, height, width, filters)`.
        row_embedding: `(2 * K - 1, d)`, the same for all heads; index 0 is the
            key farthest to the top. Places of queries in their block count
            queries, also where these are strided.
        column_embedding: `(2 * K - 1, d)`; index 0 is farthest to the left.
        num_heads: Number of heads.
        block_size: Side of a block, in pixels of `key`. It divides height and
            width.
        halo_size: Pixels around a block that its queries see as well.
        strides: Distance between queries; it divides `block_size`.
        dropout_mask: Factors of the attention weights, of the shape of the
            scores.
        return_attention_scores: Whether to return the weights as well.

    Returns:
        `(batch, height / strides, width / strides, filters)` in the dtype of
        `value`, and if asked the weights before `dropout_mask`, `(batch,
        height / strides, width / strides, num_heads, K, K)`. float16 and
        bfloat16 are computed in float32.

    Raises:
        ValueError: If `block_size` does not divide height and width. Where
            TensorFlow does not know them while it traces, the call fails.
    """
    check_image_size(value.shape[1:3], block_size)
    query, key, value = _check_while_running(block_size, query, key, value)
    dtype = keras.backend.standardize_dtype(value.dtype)
    precise = compute_dtype(dtype)
    query, key, value, row_embedding, column_embedding = (
        ops.cast(tensor, precise)
        for tensor in (query, key, value, row_embedding, column_embedding)
    )
    side = block_size // strides
    window = block_size + 2 * halo_size
    sizes = ops.shape(query)[:3]
    query = _split_heads(_cut(query, side), num_heads)
    key, value = (
        _split_heads(_cut_windows(maps, block_size, halo_size), num_heads)
        for maps in (key, value)
    )
    rows, columns = _position_logits(
        query, (row_embedding, column_embedding), side, window
    )
    # Few axes, where TensorFlow broadcasts fast.
    position = ops.reshape(rows, (-1, window, 1)) + ops.reshape(
        columns, (-1, 1, window)
    )
    logits = ops.matmul(
        query * query.shape[-1] ** -0.5, ops.transpose(key, (0, 1, 3, 2))
    )
    weights = softmax(logits + ops.reshape(position, ops.shape(logits)))
    scores = weights
    if dropout_mask is not None:
        *shape, _, _, _ = ops.shape(dropout_mask)
        dropout_mask = ops.cast(dropout_mask, precise)
        dropout_mask = ops.reshape(
            dropout_mask, (*shape, num_heads * window**2)
        )
        weights = weights * _split_heads(_cut(dropout_mask, side), num_heads)
    outputs = _join(ops.matmul(weights, value), sizes, side)
    outputs = ops.cast(outputs, dtype)
    if not return_attention_scores:
        return outputs
    scores = ops.reshape(
        _join(scores, sizes, side), (*sizes, num_heads, window, window)
    )
    return outputs, ops.cast(scores, dtype)


def check_image_size(sizes: Sequence[int | None], block_size: int) -> None:
    """Raises `ValueError` unless a block divides the sizes that are known.

    Args:
        sizes: Height and width of an image.
        block_size: Side of a block.
    """
    if any(size is not None and size % block_size for size in sizes):
        raise ValueError(f"{_requirement(block_size)}{tuple(sizes)}.")


def _requirement(block_size):
    return (
        "The height and the width of the images must be multiples of "
        f"`block_size`, {block_size}. Received: a height and a width of "
    )


def _check_while_running(block_size, *maps):
    """Returns maps that fail where their size was unknown and does not fit."""
    *_, value = maps
    sizes = ops.shape(value)[1:3]
    return require_while_running(
        [
            (size % block_size == 0, [_requirement(block_size), *sizes])
            for size in sizes
            if not isinstance(size, int)
        ],
        maps,
    )


def _cut(maps, side):
    """`(B, H, W, C)` -> `(B * R, S, side, side, C)`."""
    batch, height, width, channels = ops.shape(maps)
    rows, columns = height // side, width // side
    blocks = ops.reshape(maps, (batch * rows, side, columns, side, channels))
    return ops.transpose(blocks, (0, 2, 1, 3, 4))


def _cut_windows(maps, block_size, halo_size):
    """`(B, H, W, C)` -> `(B * R, S, K, K, C)`, zeros beyond the border."""
    batch, height, width, channels = ops.shape(maps)
    window = block_size + 2 * halo_size
    rows = _overlapping(maps, 1, block_size, window)
    rows = ops.reshape(
        rows, (batch * (height // block_size), window, width, channels)
    )
    windows = _overlapping(rows, 2, block_size, window)
    return ops.transpose(windows, (0, 2, 1, 3, 4))


def _overlapping(maps, axis, block_size, window):
    """Divides an axis into (blocks, window), the blocks in the middle.

    A window is a few whole blocks, the last of them cut off, of the image that
    begins at the halo: slices, whose gradient is a sum of slices.
    """
    shape = list(ops.shape(maps))
    size = shape[axis]
    halo = (window - block_size) // 2
    number = ceil_divide(window, block_size)
    padding = [(0, 0)] * len(shape)
    padding[axis] = (halo, (number - 1) * block_size - halo)
    maps = ops.pad(maps, padding)
    before, after = shape[:axis], shape[axis + 1 :]
    parts = []
    for start in range(0, window, block_size):
        part = take_range(maps, axis, start, size)
        part = ops.reshape(
            part, (*before, size // block_size, block_size, *after)
        )
        count = min(window - start, block_size)
        parts.append(take_range(part, axis + 1, 0, count))
    return ops.concatenate(parts, axis=axis + 1)


def _split_heads(blocks, num_heads):
    """`(B * R, S, high, wide, N * D)` -> `(B * R * S, N, high * wide, D)`."""
    rows, columns, high, wide, channels = ops.shape(blocks)
    width = channels // num_heads
    blocks = ops.reshape(
        blocks, (rows * columns, high * wide, num_heads, width)
    )
    return ops.transpose(blocks, (0, 2, 1, 3))


def _join(blocks, sizes, side):
    """`(B * R * S, N, side * side, D)` -> `(B, H, W, N * D)`."""
    batch, height, width = sizes
    _, heads, _, channels = blocks.shape
    blocks = ops.reshape(
        blocks,
        (batch * (height // side), width // side, heads, side, side, channels),
    )
    blocks = ops.transpose(blocks, (0, 3, 1, 4, 2, 5))
    return ops.reshape(blocks, (batch, height, width, heads * channels))


def _position_logits(query, embeddings, side, window):
    """Products of queries with the embeddings of the rows and the columns.

    Args:
        query: `(B * R * S, N, side * side, D)`.
        embeddings: Of rows and of columns, `(2 * window - 1, D)`.
        side: Queries of a block along an axis.
        window: K.

    Returns:
        Two times `(B * R * S, N, side, side, K)`.
    """
    blocks, heads, _, width = ops.shape(query)
    query = ops.reshape(query, (blocks, heads, side, side, width))
    # The embeddings of the keys for each place in a block, (side, K, D). They
    # are slices, because these have a dense gradient.
    rows, columns = (
        ops.stack(
            [
                embedding[window - 1 - place : 2 * window - 1 - place]
                for place in range(side)
            ]
        )
        for embedding in embeddings
    )
    return (
        ops.einsum("bnijd,ikd->bnijk", query, rows),
        ops.einsum("bnijd,jkd->bnijk", query, columns),
    )
