"""Local self-attention as it is defined: extract every window, then attend.

Short, slow, obvious, and `kernel_height * kernel_width` copies of keys and
values in memory: the reference for the other implementations.

B batch, H height, W width of keys, P height, Q width of queries, N heads,
D channels per head, K window height, L window width.
"""

import keras
from keras import ops

from keras_sasa.ops.local_attention import geometry
from keras_sasa.ops.local_attention.geometry import MASKED_LOGIT
from keras_sasa.ops.softmax import softmax


def local_attention(
    query,
    key,
    value,
    row_embedding,
    column_embedding,
    *,
    axes: tuple[geometry.Axis, geometry.Axis],
    num_heads: int,
    mask=None,
    dropout_mask=None,
    return_attention_scores: bool = True,
):
    """Attends within windows.

    Args:
        query: `(B, P, Q, N * D)`.
        key: `(B, H, W, N * D)`, or `None` to drop the term q.k.
        value: `(B, H, W, N * D)`.
        row_embedding: `(K, N, D / 2)` or `None`.
        column_embedding: `(L, N, D / 2)` or `None`.
        axes: Geometry of the rows and of the columns.
        num_heads: N.
        mask: `(B, H, W)`, true where a pixel may be attended to, or `None`.
        dropout_mask: `(B, P, Q, N, K, L)`, factors of the weights, or `None`.
        return_attention_scores: Whether the weights are wanted; they are there
            in any case.

    Returns:
        The output `(B, P, Q, N * D)` and the weights before `dropout_mask`,
        `(B, P, Q, N, K, L)`.
    """
    batch, height, width, filters = ops.shape(query)
    kernel_height, kernel_width = (axis.kernel_size for axis in axes)
    window = kernel_height * kernel_width

    # Without images no size of -1 can be inferred.
    channels = filters // num_heads

    def windows(maps):
        patches = extract_patches(maps, axes)
        return ops.reshape(
            patches, (batch, height, width, window, num_heads, channels)
        )

    query = ops.reshape(query, (batch, height, width, num_heads, channels))
    logits = ops.zeros(
        (batch, height, width, num_heads, kernel_height, kernel_width),
        dtype=value.dtype,
    )
    if key is not None:
        content = ops.einsum("bpqnd,bpqknd->bpqnk", query, windows(key))
        logits = logits + ops.reshape(content, ops.shape(logits))
    if row_embedding is not None:
        # q.r with r = concat(row, column): each half of the query meets one.
        top, bottom = ops.split(query, 2, axis=-1)
        rows = ops.einsum("bpqnd,knd->bpqnk", top, row_embedding)
        columns = ops.einsum("bpqnd,lnd->bpqnl", bottom, column_embedding)
        logits = logits + rows[..., :, None] + columns[..., None, :]

    attendable = ops.ones_like(value[:, :, :, :1])
    if mask is not None:
        attendable = attendable * ops.cast(mask, value.dtype)[..., None]
    attendable = ops.reshape(
        extract_patches(attendable, axes) > 0.5,
        (batch, height, width, 1, kernel_height, kernel_width),
    )
    logits = ops.where(attendable, logits, MASKED_LOGIT)
    weights = softmax(
        ops.reshape(logits, (batch, height, width, num_heads, window))
    )
    weights = ops.reshape(weights, ops.shape(logits))
    # Where every key is masked the softmax is uniform, and means nothing.
    weights = ops.where(attendable, weights, 0.0)
    scores = weights
    if dropout_mask is not None:
        weights = weights * dropout_mask
    weights = ops.reshape(weights, (batch, height, width, num_heads, window))
    output = ops.einsum("bpqnk,bpqknd->bpqnd", weights, windows(value))
    return ops.reshape(output, (batch, height, width, filters)), scores


def extract_patches(maps, axes: tuple[geometry.Axis, geometry.Axis]):
    """Returns the window of every query, zero outside the image.

    Args:
        maps: `(B, H, W, C)`.
        axes: Geometry of the rows and of the columns.

    Returns:
        `(B, P, Q, K * L * C)`.
    """
    rows, columns = axes
    # The padding is made here because "SAME" of TensorFlow moves the window
    # with the parity of a strided map.
    maps = ops.pad(
        maps, ((0, 0), (rows.margin,) * 2, (columns.margin,) * 2, (0, 0))
    )
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        number = maps.shape[0]
        if not number:
            # The gradient of TensorFlow needs an image.
            number = tf.shape(maps)[0]
            added = tf.cast(number == 0, "int32")
            maps = tf.pad(maps, [[0, added], [0, 0], [0, 0], [0, 0]])
        return tf.image.extract_patches(
            maps,
            sizes=(1, rows.kernel_size, columns.kernel_size, 1),
            strides=(1, rows.stride, columns.stride, 1),
            rates=(1, rows.dilation_rate, columns.dilation_rate, 1),
            padding="VALID",
        )[:number]
    _, height, width, _ = ops.shape(maps)

    def shifted(row, column):
        top = row * rows.dilation_rate
        left = column * columns.dilation_rate
        bottom = height - 2 * rows.reach + top
        right = width - 2 * columns.reach + left
        return maps[
            :, top : bottom : rows.stride, left : right : columns.stride
        ]

    return ops.concatenate(
        [
            shifted(row, column)
            for row in range(rows.kernel_size)
            for column in range(columns.kernel_size)
        ],
        axis=-1,
    )
