"""Local self-attention as a pure function, computed in one of several ways.

For a query pixel (i, j), its window N(i, j) and one head:

    y_ij = sum over (a, b) in N(i, j) of
           softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) v_ab

with r_{a-i, b-j} = concat(row embedding of a-i, column embedding of b-j).
Keys outside the image take no part.
"""

import keras
from keras import ops

from keras_sasa.local_attention import geometry, patches, tiled

# Fastest first. A way to compute never changes the result or the weights.
IMPLEMENTATIONS = {
    "tiled": tiled.local_attention,
    "patches": patches.local_attention,
}


def check_implementation(implementation: str | None) -> None:
    """Raises `ValueError` unless `implementation` is known or `None`."""
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"`implementation` must be one of {sorted(IMPLEMENTATIONS)} or "
            "`None` for the fastest that runs here. "
            f"Received: implementation={implementation!r}."
        )


def local_attention(
    query,
    key,
    value,
    row_embedding=None,
    column_embedding=None,
    *,
    kernel_size,
    num_heads: int,
    strides=1,
    padding: str = "same",
    dilation_rate=1,
    mask=None,
    dropout_mask=None,
    return_attention_scores: bool = False,
    implementation: str | None = None,
):
    """Lets every query attend to the window of keys around it.

    Args:
        query: `(batch, out_height, out_width, filters)`, already at the
            positions that stride and padding leave; head n is the channels
            `n * d` to `(n + 1) * d` with `d = filters / num_heads`.
        key: `(batch, height, width, filters)`, or `None` to leave out q.k.
        value: `(batch, height, width, filters)`.
        row_embedding: `(kernel_height, num_heads, d / 2)`; index 0 is the
            offset `-(kernel_height // 2)`. `None` leaves out q.r.
        column_embedding: `(kernel_width, num_heads, d / 2)` or `None`.
        kernel_size: Odd integer, or pair (height, width).
        num_heads: Number of heads.
        strides: Integer or pair; distance between queries.
        padding: `"same"` or `"valid"`.
        dilation_rate: Integer or pair; distance between keys.
        mask: Booleans `(batch, height, width)`, true where a pixel may be
            attended to. A query without any key gets zeros.
        dropout_mask: Factors of the attention weights, of the shape of the
            scores.
        return_attention_scores: Whether to return the weights as well.
        implementation: `"patches"`, `"tiled"` or `None` for the fastest that
            runs here.

    Returns:
        `(batch, out_height, out_width, filters)` in the dtype of `value`, and
        if asked the weights before `dropout_mask`, `(batch, out_height,
        out_width, num_heads, kernel_height, kernel_width)`. float16 and
        bfloat16 are computed in float32.

    Raises:
        ValueError: If an argument is not as above, or shapes do not fit.
    """
    check_implementation(implementation)
    kernel_size = geometry.pair(kernel_size, "kernel_size")
    strides = geometry.pair(strides, "strides")
    dilation_rate = geometry.pair(dilation_rate, "dilation_rate")
    geometry.check_window(kernel_size, strides, padding, dilation_rate)
    axes = geometry.axes(kernel_size, strides, padding, dilation_rate)
    _check_shapes(
        query, value, row_embedding, column_embedding, axes, num_heads
    )

    dtype = keras.backend.standardize_dtype(value.dtype)
    compute_dtype = "float64" if dtype == "float64" else "float32"

    def cast(tensor):
        return None if tensor is None else ops.cast(tensor, compute_dtype)

    output, scores = IMPLEMENTATIONS[implementation or _fastest()](
        cast(query),
        cast(key),
        cast(value),
        cast(row_embedding),
        cast(column_embedding),
        axes=axes,
        num_heads=num_heads,
        mask=mask,
        dropout_mask=cast(dropout_mask),
        return_attention_scores=return_attention_scores,
    )
    output = ops.cast(output, dtype)
    if return_attention_scores:
        return output, ops.cast(scores, dtype)
    return output


def _fastest() -> str:
    return next(iter(IMPLEMENTATIONS))


def _check_shapes(query, value, rows, columns, axes, num_heads):
    for name, tensor in (("query", query), ("value", value)):
        if len(tensor.shape) != 4:
            raise ValueError(
                f"`{name}` must have the shape (batch, height, width, "
                f"filters). Received: {name}.shape={tuple(tensor.shape)}."
            )
    filters = value.shape[-1]
    if filters % num_heads:
        raise ValueError(
            "The last axis of `value` must be a multiple of `num_heads`. "
            f"Received: value.shape={tuple(value.shape)}, "
            f"num_heads={num_heads}."
        )
    for size, axis, name in zip(
        value.shape[1:3], axes, ("height", "width"), strict=True
    ):
        queries = query.shape[1 if name == "height" else 2]
        if None in (size, queries) or queries == axis.output_size(size):
            continue
        raise ValueError(
            f"The {name} of `query` must be that of the output, "
            f"{axis.output_size(size)}. Received: query.shape="
            f"{tuple(query.shape)}, value.shape={tuple(value.shape)}."
        )
    for name, embedding, axis in (
        ("row_embedding", rows, axes[0]),
        ("column_embedding", columns, axes[1]),
    ):
        expected = (axis.kernel_size, num_heads, filters // num_heads // 2)
        if embedding is not None and tuple(embedding.shape) != expected:
            raise ValueError(
                f"`{name}` must have the shape (kernel_size, num_heads, "
                f"filters / num_heads / 2) = {expected}. "
                f"Received: {name}.shape={tuple(embedding.shape)}."
            )
