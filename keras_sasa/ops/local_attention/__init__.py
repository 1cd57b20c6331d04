"""Local self-attention as a pure function, computed in one of several ways.

For a query pixel (i, j), its window N(i, j) and one head:

    y_ij = sum over (a, b) in N(i, j) of
           softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) v_ab

with r_{a-i, b-j} = concat(row embedding of a-i, column embedding of b-j). Keys
outside the image are masked. Instead, windows may move inwards at the border,
the term q.r may be a number for each head and offset, and q.k may be scaled:
that is neighborhood attention.
"""

from typing import Any

import keras
from keras import ops

from keras_sasa._argument_checks import finite_number
from keras_sasa.ops import dispatch
from keras_sasa.ops.exporters import portable as portable
from keras_sasa.ops.local_attention.epilogue import Epilogue
from keras_sasa.ops.local_attention.position import (
    PositionBias,
    RowColumnEmbeddings,
)
from keras_sasa.ops.local_attention.problem import Problem, request
from keras_sasa.ops.local_attention.projections import Projections
from keras_sasa.ops.local_attention.table import IMPLEMENTATIONS
from keras_sasa.ops.local_attention.window import window_axes
from keras_sasa.ops.precision import compute_dtype
from keras_sasa.ops.size_checks import require_while_running


def available() -> dict[str, str | None]:
    """Returns which implementations run here.

    Returns:
        For each implementation, fastest first, `None` if it runs here or the
        reason why it does not.

    Example:

    >>> from keras_sasa import local_attention
    >>> local_attention.available()["tiled"] is None
    True
    """
    return dispatch.unavailable_reasons(IMPLEMENTATIONS)


def check_implementation(implementation: str | None) -> None:
    """Raises `ValueError` unless `implementation` is known or `None`."""
    dispatch.check_name(implementation, IMPLEMENTATIONS)


def local_attention(
    query: Any,
    key: Any,
    value: Any,
    row_embedding: Any = None,
    column_embedding: Any = None,
    *,
    kernel_size: int | tuple[int, int],
    num_heads: int,
    strides: int | tuple[int, int] = 1,
    padding: str = "same",
    dilation_rate: int | tuple[int, int] = 1,
    border: str = "mask",
    position_bias: Any = None,
    scale: float = 1.0,
    mask: Any = None,
    dropout_mask: Any = None,
    return_attention_scores: bool = False,
    implementation: str | None = None,
) -> Any:
    """Lets every query attend to the window of keys around it.

    Args:
        query: `(batch, out_height, out_width, filters)`, already at the
            positions that stride and padding leave; head n is the channels
            `n * d` to `(n + 1) * d` with `d = filters / num_heads`.
        key: `(batch, height, width, filters)`, or `None` to leave out q.k.
        value: `(batch, height, width, filters)`.
        row_embedding: `(kernel_height, num_heads, d / 2)`; index 0 is the
            offset `-(kernel_height // 2)`. Without it and `column_embedding`
            the logits have no term q.r. With `border="shift"`, there are
            `2 * kernel_height - 1` offsets and index 0 is
            `-(kernel_height - 1)`.
        column_embedding: `(kernel_width, num_heads, d / 2)` or `None`.
        kernel_size: Odd integer, or pair (height, width).
        num_heads: Number of heads.
        strides: Integer or pair; distance between queries.
        padding: `"same"` or `"valid"`.
        dilation_rate: Integer or pair; distance between keys.
        border: `"mask"` to mask keys outside the image, or `"shift"` to move
            windows inwards, so that every query has all its keys. Windows that
            move need `strides=1`, `padding="same"` and images of at least
            `kernel_size * dilation_rate` pixels along each axis.
        position_bias: `(num_heads, kernel_height, kernel_width)`, with
            `border="shift"` `(num_heads, 2 * kernel_height - 1,
            2 * kernel_width - 1)`: added to the logits, in the place of the
            embeddings. Index 0 as above.
        scale: Float, factor of q.k.
        mask: Booleans `(batch, height, width)`, true where a pixel may be
            attended to. A query without any key gets zeros.
        dropout_mask: Factors of the attention weights, of the shape of the
            scores.
        return_attention_scores: Whether to return the weights as well.
        implementation: One of the names in `available()`, or `None` for the
            fastest that runs here. If the named implementation does not support
            the call (for instance a mask), the fastest one that does
            computes it.

    Returns:
        `(batch, out_height, out_width, filters)` in the dtype of `value`, and
        if asked the weights before `dropout_mask`, `(batch, out_height,
        out_width, num_heads, kernel_height, kernel_width)`. float16 and
        bfloat16 are computed in float32.

    Raises:
        ValueError: If an argument is not as above, or shapes do not fit; or if
            the named implementation does not run here.
    """
    check_implementation(implementation)
    rows, columns = window_axes(
        kernel_size, strides, padding, dilation_rate, border
    )
    position, weights = _position_term(
        row_embedding, column_embedding, position_bias
    )
    dtype = keras.backend.standardize_dtype(value.dtype)
    problem = Problem(
        rows,
        columns,
        num_heads,
        content=key is not None,
        position=position,
        scale=float(finite_number(scale, "scale")),
        dtype=compute_dtype(dtype),
        masked=mask is not None,
        dropout=dropout_mask is not None,
        scores=bool(return_attention_scores),
    )
    _check_shapes(problem, query, value)
    query, key, value = require_while_running(
        _check_sizes(problem, value), (query, key, value)
    )
    _check_weights(problem, value.shape[-1], weights)
    if mask is not None:
        _check_mask(mask, value)

    def cast(tensor):
        return None if tensor is None else ops.cast(tensor, problem.dtype)

    key = cast(key)
    chosen = dispatch.choose(IMPLEMENTATIONS, implementation, problem)
    if problem.scale != 1 and not chosen.scales(problem):
        key = None if key is None else key * problem.scale
        problem = request(problem, scale=1.0)
    output, scores = chosen.compute(
        problem,
        cast(query),
        key,
        cast(value),
        tuple(map(cast, weights)),
        mask,
        cast(dropout_mask),
    )
    output = ops.cast(output, dtype)
    return (output, ops.cast(scores, dtype)) if problem.scores else output


def projected_attention(
    problem: Problem,
    inputs: Any,
    projections: Projections,
    position: tuple = (),
    *,
    mask: Any = None,
    dropout_mask: Any = None,
    epilogue: Epilogue | None = None,
    return_attention_scores: bool = False,
    training: bool = True,
    implementation: str | None = None,
) -> Any:
    """`local_attention` of the projections of one image.

    An implementation may project in a way of its own: for instance, queries,
    keys and values need not be in memory while a network predicts.

    Args:
        problem: Description of windows, heads and position term. The requested
            outputs are set from the other arguments.
        inputs: `(batch, height, width, channels)`.
        projections: Kernels and biases.
        position: The weights of `problem.position`.
        mask: As in `local_attention`.
        dropout_mask: As in `local_attention`.
        epilogue: Steps of the network that follow, to be computed in the same
            call; `None` for none.
        return_attention_scores: As in `local_attention`.
        training: Whether a gradient is likely to follow. It never changes the
            result.
        implementation: As in `local_attention`.

    Returns:
        As `local_attention`, in the dtype of `inputs`; with an `epilogue`,
        the output of its steps.

    Raises:
        ValueError: If the named implementation is not known or does not run
            here, or if the epilogue does not fit the projections.
    """
    check_implementation(implementation)
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    problem = request(
        problem,
        dtype=compute_dtype(dtype),
        masked=mask is not None,
        dropout=dropout_mask is not None,
        scores=return_attention_scores,
        training=training,
    )
    chosen = dispatch.choose(IMPLEMENTATIONS, implementation, problem)
    if problem.scale != 1 and not chosen.scales(problem):
        projections = projections.scale_keys(problem.scale)
        problem = request(problem, scale=1.0)
    if dropout_mask is not None:
        dropout_mask = ops.cast(dropout_mask, problem.dtype)
    if epilogue is not None:
        epilogue.check(projections.filters)
        epilogue = epilogue.cast(problem.dtype)
    output, scores = chosen.compute_projected(
        problem,
        inputs,
        projections,
        tuple(ops.cast(weight, problem.dtype) for weight in position),
        mask,
        dropout_mask,
        epilogue,
    )
    output = ops.cast(output, dtype)
    return (output, ops.cast(scores, dtype)) if problem.scores else output


def _position_term(row_embedding, column_embedding, position_bias):
    """Returns the position term, or `None`, and its weights."""
    if position_bias is not None:
        if row_embedding is not None or column_embedding is not None:
            raise ValueError(
                "`position_bias` takes the place of `row_embedding` and "
                "`column_embedding`. Received: all or two of them."
            )
        return PositionBias(), (position_bias,)
    if row_embedding is None and column_embedding is None:
        return None, ()
    if row_embedding is None or column_embedding is None:
        missing = "row" if row_embedding is None else "column"
        raise ValueError(
            "`row_embedding` and `column_embedding` must be passed together. "
            f"Received: {missing}_embedding=None."
        )
    return RowColumnEmbeddings(), (row_embedding, column_embedding)


def _check_mask(mask, value):
    shape, expected = tuple(mask.shape), tuple(value.shape[:3])
    if len(shape) != 3 or any(
        size != other and None not in (size, other)
        for size, other in zip(shape, expected, strict=True)
    ):
        raise ValueError(
            "`mask` must have the shape (batch, height, width) of the keys, "
            f"{expected}. Received: mask.shape={shape}."
        )


def _check_shapes(problem, query, value):
    for name, tensor in (("query", query), ("value", value)):
        if len(tensor.shape) != 4:
            raise ValueError(
                f"`{name}` must have the shape (batch, height, width, "
                f"filters). Received: {name}.shape={tuple(tensor.shape)}."
            )
    filters = value.shape[-1]
    if filters % problem.num_heads:
        raise ValueError(
            "The last axis of `value` must be a multiple of `num_heads`. "
            f"Received: value.shape={tuple(value.shape)}, "
            f"num_heads={problem.num_heads}."
        )
    for name, index in (("height", 1), ("width", 2)):
        size, queries = value.shape[index], query.shape[index]
        axis = problem.axes[index - 1]
        if None in (size, queries) or queries == axis.output_size(size):
            continue
        raise ValueError(
            f"The {name} of `query` must equal the {name} of the output, "
            f"{axis.output_size(size)}. Received: query.shape="
            f"{tuple(query.shape)}, value.shape={tuple(value.shape)}."
        )


def _check_weights(problem, filters, weights):
    if problem.position is None:
        return
    for name, weight, expected in zip(
        problem.position.weight_names,
        weights,
        problem.position.weight_shapes(
            problem.offsets, problem.num_heads, filters
        ),
        strict=True,
    ):
        if tuple(weight.shape) != expected:
            raise ValueError(
                f"`{name}` must have the shape {expected}, for {problem.window}"
                f" keys, {problem.num_heads} heads and {filters} filters. "
                f"Received: {name}.shape={tuple(weight.shape)}."
            )


def _check_sizes(problem, value):
    """Fails where windows that move do not fit.

    Returns:
        The requirements that can be checked only while a graph runs, for
        `require_while_running`.
    """
    unknown = []
    for name, axis, size in zip(
        ("height", "width"),
        problem.axes,
        ops.shape(value)[1:3],
        strict=True,
    ):
        requirement = (
            'With `border="shift"` images must have kernel_size * dilation_rate'
            f" = {axis.smallest_size} pixels or more along each axis. "
            f"Received: a {name} of "
        )
        if not isinstance(size, int):
            if axis.smallest_size:
                unknown.append(
                    (size >= axis.smallest_size, [requirement, size])
                )
        elif size < axis.smallest_size:
            raise ValueError(f"{requirement}{size}.")
    return unknown
