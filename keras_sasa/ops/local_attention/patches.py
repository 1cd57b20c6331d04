"""Local self-attention as it is defined: take every window, then attend.

Short, slow, obvious, and `kernel_height * kernel_width` copies of keys and
values in memory: the reference for the other implementations.

B batch, H height, W width of keys, P height, Q width of queries, N heads,
D channels per head, K window height, L window width.
"""

import keras
from keras import ops

from keras_sasa.ops.local_attention.interface import LocalAttention
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.softmax import MASKED_LOGIT, softmax


class PatchesAttention(LocalAttention):
    """Local attention by its definition."""

    name = "patches"

    def compute(
        self,
        problem,
        query,
        key,
        value,
        position=(),
        mask=None,
        dropout_mask=None,
    ):
        batch, height, width, filters = ops.shape(query)
        # Without images, no size of -1 can be inferred.
        heads = problem.num_heads, filters // problem.num_heads
        query = ops.reshape(query, (batch, height, width, *heads))
        scores_shape = (batch, height, width, heads[0], *problem.window)
        flat_shape = (*scores_shape[:4], scores_shape[4] * scores_shape[5])

        def windows(maps):
            patches = extract_windows(problem, maps, (height, width))
            return ops.reshape(
                patches, (batch, height, width, flat_shape[-1], *heads)
            )

        logits = ops.zeros(scores_shape, dtype=value.dtype)
        if key is not None:
            content = ops.einsum("bpqnd,bpqknd->bpqnk", query, windows(key))
            logits = logits + ops.reshape(content, scores_shape)
        if problem.position is not None:
            logits = logits + problem.position.logits(
                query,
                position,
                (
                    problem.rows.key_offsets(height),
                    problem.columns.key_offsets(width),
                ),
            )

        attendable = ops.ones_like(value[:, :, :, :1])
        if mask is not None:
            attendable = attendable * ops.cast(mask, value.dtype)[..., None]
        attendable = ops.reshape(
            extract_windows(problem, attendable, (height, width)) > 0.5,
            (batch, height, width, 1, *problem.window),
        )
        logits = ops.where(attendable, logits, MASKED_LOGIT)
        weights = ops.reshape(
            softmax(ops.reshape(logits, flat_shape)), scores_shape
        )
        # Where every key is masked the softmax is uniform, and means nothing.
        weights = ops.where(attendable, weights, 0.0)
        scores = weights
        if dropout_mask is not None:
            weights = weights * dropout_mask
        output = ops.einsum(
            "bpqnk,bpqknd->bpqnd",
            ops.reshape(weights, flat_shape),
            windows(value),
        )
        return ops.reshape(output, (batch, height, width, filters)), scores


def extract_windows(problem: Problem, maps, queries):
    """Returns the window of every query, zero outside the image.

    Args:
        problem: The windows.
        maps: `(B, H, W, C)`.
        queries: P and Q.

    Returns:
        `(B, P, Q, K, L, C)`.
    """
    rows, columns = (
        axis.keys(number)
        for axis, number in zip(problem.axes, queries, strict=True)
    )
    if not problem.shifts:
        # The padding is made here because "SAME" of TensorFlow moves the window
        # with the parity of a strided map.
        margins = [axis.margin for axis in problem.axes]
        maps = ops.pad(
            maps, ((0, 0), *((margin, margin) for margin in margins), (0, 0))
        )
        rows, columns = rows + margins[0], columns + margins[1]
        if keras.backend.backend() == "tensorflow":
            patches = _extract_patches(problem.axes, maps)
            batch = ops.shape(maps)[0]
            shape = (batch, *queries, *problem.window, maps.shape[-1])
            return ops.reshape(patches, shape)
    # (B, P, K, W, C), then (B, P, K, Q, L, C).
    maps = ops.take(ops.take(maps, rows, axis=1), columns, axis=3)
    return ops.transpose(maps, (0, 1, 3, 2, 4, 5))


def _extract_patches(axes, maps):
    """Returns the windows `(B, P, Q, K * L * C)` of padded maps."""
    import tensorflow as tf

    rows, columns = axes
    number = maps.shape[0]
    if not number:
        # The gradient of TensorFlow's operation needs an image.
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
