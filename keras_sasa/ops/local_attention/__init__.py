"""Local self-attention as a pure function, computed in one of several ways.

For a query pixel (i, j), its window N(i, j) and one head:

    y_ij = sum over (a, b) in N(i, j) of
           softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) v_ab

with r_{a-i, b-j} = concat(row embedding of a-i, column embedding of b-j).
Keys outside the image take no part.
"""

import functools
import warnings
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_sasa.ops.exporters import exporting
from keras_sasa.ops.exporters import portable as portable
from keras_sasa.ops.local_attention import geometry, native, patches, tiled

# Fastest first. A way to compute never changes the result or the weights.
IMPLEMENTATIONS = {
    "native": native.local_attention,
    "tiled": tiled.local_attention,
    "patches": patches.local_attention,
}

# Images of more channels than this are projected by a matrix product of the
# backend: its time is the same, what it writes is small beside the weights, and
# these the kernel would have to rearrange first (benchmarks/README.md).
MAX_PROJECTED_CHANNELS = 256


class Channels(NamedTuple):
    """Some of the channels of a tensor `(batch, height, width, channels)`.

    One projection makes queries, keys and values side by side; the kernel reads
    them where they are.
    """

    tensor: Any
    first: int
    count: int

    def cut(self):
        if self.count == self.tensor.shape[-1]:
            return self.tensor
        return self.tensor[..., self.first : self.first + self.count]

    @property
    def shape(self):
        return (*self.tensor.shape[:-1], self.count)


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
    reasons = dict.fromkeys(IMPLEMENTATIONS)
    reasons["native"] = native.why_not()
    return reasons


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

    Queries, keys and values may also be `Channels`, some of the channels of a
    tensor.

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
        implementation: `"native"`, `"tiled"`, `"patches"` or `None` for the
            fastest that runs here. What the kernel of `"native"` does not take
            (a mask, dropout, scores, float64) is computed by `"tiled"`.

    Returns:
        `(batch, out_height, out_width, filters)` in the dtype of `value`, and
        if asked the weights before `dropout_mask`, `(batch, out_height,
        out_width, num_heads, kernel_height, kernel_width)`. float16 and
        bfloat16 are computed in float32.

    Raises:
        ValueError: If an argument is not as above, or shapes do not fit; or for
            `implementation="native"` where the kernel does not run.
    """
    check_implementation(implementation)
    query, key, value = (
        tensor
        if tensor is None or isinstance(tensor, Channels)
        else Channels(tensor, 0, tensor.shape[-1])
        for tensor in (query, key, value)
    )
    kernel_size = geometry.pair(kernel_size, "kernel_size")
    strides = geometry.pair(strides, "strides")
    dilation_rate = geometry.pair(dilation_rate, "dilation_rate")
    geometry.check_window(kernel_size, strides, padding, dilation_rate)
    axes = geometry.axes(kernel_size, strides, padding, dilation_rate)
    _check_shapes(
        query, value, row_embedding, column_embedding, axes, num_heads
    )
    if mask is not None:
        _check_mask(mask, value)

    dtype = keras.backend.standardize_dtype(value.tensor.dtype)
    compute_dtype = "float64" if dtype == "float64" else "float32"
    implementation = choose_implementation(
        implementation,
        for_kernel=compute_dtype == "float32"
        and mask is None
        and dropout_mask is None
        and not return_attention_scores,
    )

    def cast(tensor):
        return None if tensor is None else ops.cast(tensor, compute_dtype)

    if implementation == "native":
        # Tensors in common stay so.
        tensors = {}
        for channels in (query, key, value):
            if channels is not None and id(channels.tensor) not in tensors:
                tensors[id(channels.tensor)] = cast(channels.tensor)
        query, key, value = (
            channels and channels._replace(tensor=tensors[id(channels.tensor)])
            for channels in (query, key, value)
        )
    else:
        query, key, value = (
            channels and cast(channels.cut())
            for channels in (query, key, value)
        )
    output, scores = IMPLEMENTATIONS[implementation](
        query,
        key,
        value,
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


def project(inputs, kernels):
    """Multiplies every pixel by several matrices in one product.

    Args:
        inputs: `(batch, height, width, channels)`.
        kernels: Matrices `(channels, filters)`.

    Returns:
        For every matrix its product, as `Channels` of one tensor.
    """
    # As one matrix: of more axes TensorFlow makes many small products.
    *shape, channels = ops.shape(inputs)
    filters = kernels[0].shape[-1]
    projected = ops.matmul(
        ops.reshape(inputs, (-1, channels)), ops.concatenate(kernels, axis=-1)
    )
    projected = ops.reshape(projected, (*shape, len(kernels) * filters))
    return [
        Channels(projected, number * filters, filters)
        for number in range(len(kernels))
    ]


def projected_attention(
    inputs,
    query_kernel,
    key_kernel,
    value_kernel,
    row_embedding=None,
    column_embedding=None,
    *,
    kernel_size,
    num_heads: int,
    dilation_rate=1,
    implementation: str | None = None,
):
    """`local_attention` of projections of one image, for inference.

    The same as `local_attention` of `project(inputs, kernels)` with a query at
    every pixel. Unless there are many channels, the kernel of `"native"` does
    both in one call: queries, keys and values never are in memory then, and a
    gradient, which needs them, computes them again.

    Args:
        inputs: `(batch, height, width, channels)`.
        query_kernel: `(channels, filters)`.
        key_kernel: `(channels, filters)`, or `None` to leave out q.k.
        value_kernel: `(channels, filters)`.
        row_embedding: As in `local_attention`.
        column_embedding: As in `local_attention`.
        kernel_size: Odd integer, or pair (height, width).
        num_heads: Number of heads.
        dilation_rate: Integer or pair; distance between keys.
        implementation: As in `local_attention`.

    Returns:
        `(batch, height, width, filters)` in the dtype of `inputs`; as in
        `local_attention`, float16 and bfloat16 are computed in float32.
    """
    check_implementation(implementation)
    kernels = [
        kernel
        for kernel in (query_kernel, key_kernel, value_kernel)
        if kernel is not None
    ]
    embeddings = []
    if row_embedding is not None:
        embeddings = [row_embedding, column_embedding]

    def in_two_steps(inputs, *weights):
        query, *key, value = project(inputs, weights[: len(kernels)])
        return local_attention(
            query,
            key[0] if key else None,
            value,
            *weights[len(kernels) :],
            kernel_size=kernel_size,
            num_heads=num_heads,
            dilation_rate=dilation_rate,
            implementation=implementation,
        )

    operands = [inputs, *kernels, *embeddings]
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if (
        inputs.shape[-1] > MAX_PROJECTED_CHANNELS
        or choose_implementation(implementation, for_kernel=dtype != "float64")
        != "native"
    ):
        return in_two_steps(*operands)
    output = native.projected_attention(
        [ops.cast(operand, "float32") for operand in operands],
        kernel_size=geometry.pair(kernel_size, "kernel_size"),
        num_heads=num_heads,
        dilation_rate=geometry.pair(dilation_rate, "dilation_rate"),
        content=key_kernel is not None,
        recompute=in_two_steps,
    )
    return ops.cast(output, dtype)


def choose_implementation(implementation: str | None, for_kernel: bool) -> str:
    """Returns the name of what computes.

    Args:
        implementation: What was asked for.
        for_kernel: Whether the kernel takes it.

    Raises:
        ValueError: If the kernel is asked for and does not run here.
    """
    if implementation == "native":
        reason = native.why_not()
        if reason is not None:
            raise ValueError(
                '`implementation="native"` does not run here: '
                f"{reason}. `None` takes the fastest that does."
            )
    # Other runtimes have no kernel, and LiteRT no `extract_patches`.
    if exporting():
        return "tiled"
    if implementation not in (None, "native"):
        return implementation
    if not for_kernel:
        return "tiled"
    reason = native.why_not()
    if reason is None:
        return "native"
    if not native.expected():
        _warn(reason)
    return "tiled"


@functools.cache
def _warn(reason):
    warnings.warn(
        'keras_sasa computes attention by "tiled", not by its native kernel: '
        f"{reason}.",
        RuntimeWarning,
        stacklevel=2,
    )


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
