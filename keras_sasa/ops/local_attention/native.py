"""Local self-attention by the compiled kernel, a custom call of XLA on CPU.

The kernel (`keras_sasa/kernels`) never has the attention weights of a whole map
in memory: the forward pass keeps one number a query and head, log2 of the sum
of the exponentials, from which the backward pass computes them again.

Operands are the tensors that hold queries, keys and values (one tensor may hold
several side by side) and the embeddings; attributes describe the windows.
"""

import keras

from keras_sasa.kernels import custom_call, loader, targets
from keras_sasa.kernels.dimensions import dimension
from keras_sasa.ops.local_attention import geometry, tiled


def why_not() -> str | None:
    """Returns why the kernel does not run here, or `None` if it does."""
    if loader.switched_off():
        return f"the environment variable {loader.SWITCH} turns it off"
    accelerator = _accelerator()
    if accelerator is not None:
        return f"it runs on CPU, and there is a {accelerator}"
    return loader.load()


def expected() -> bool:
    """Returns whether it is no surprise that the kernel does not run."""
    return loader.switched_off() or _accelerator() is not None


def _accelerator():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Hidden devices do not compute.
        for kind in ("GPU", "TPU"):
            if tf.config.get_visible_devices(kind):
                return kind
    if keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return jax.default_backend().upper()
    return None


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
    return_attention_scores: bool = False,
):
    """Attends within windows; arguments and results as in `patches`.

    Query, key and value are `Channels`, all in float32. Masks, dropout and
    scores are not for the kernel.
    """
    if mask is not None or dropout_mask is not None or return_attention_scores:
        raise ValueError(
            '`implementation="native"` takes no mask and no dropout and '
            "returns no attention scores."
        )
    sources, places = [], []
    for channels in (query, key, value):
        if channels is None:
            places += [-1, 0]
            continue
        number = _source(sources, channels)
        sources[number].append(channels)
        places += [number, channels.first]
    tensors = [source[0].tensor for source in sources]
    relative = row_embedding is not None
    rows, columns = axes
    attributes = {
        "sources": len(tensors),
        "places": tuple(places),
        "filters": value.count,
        "num_heads": num_heads,
        "kernel_size": (rows.kernel_size, columns.kernel_size),
        "strides": (rows.stride, columns.stride),
        "dilation_rate": (rows.dilation_rate, columns.dilation_rate),
        "padding": rows.padding,
        "relative": int(relative),
    }
    operands = tensors
    if relative:
        operands = [*tensors, row_embedding, column_embedding]

    def recompute(*operands):
        """The same from the same operands, but differentiable twice."""
        maps = [
            None
            if source < 0
            else operands[source][..., first : first + value.count]
            for source, first in zip(places[::2], places[1::2], strict=True)
        ]
        embeddings = operands[len(tensors) :] or (None, None)
        return tiled.local_attention(
            *maps,
            *embeddings,
            axes=axes,
            num_heads=num_heads,
            return_attention_scores=False,
        )[0]

    def results(shapes):
        """Shapes of the output and of what the gradient needs of it."""
        query = attributes["places"][0]
        batch, height, width = (
            dimension(shapes, query, axis) for axis in range(3)
        )
        return (
            (batch, height, width, value.count),
            (batch, num_heads, height, width),
        )

    output = custom_call.with_gradient(
        operands,
        forward=targets.FORWARD,
        backward=targets.BACKWARD,
        results=results,
        attributes=attributes,
        recompute=recompute,
    )
    return output, None


def projected_attention(
    operands,
    *,
    kernel_size: tuple[int, int],
    num_heads: int,
    dilation_rate: tuple[int, int],
    content: bool,
    recompute,
):
    """Projects and attends in one call, for a query at every pixel.

    Queries, keys and values are never in memory; so the gradient, which needs
    them, is that of `recompute`, a function of the same operands.

    Args:
        operands: Image `(batch, height, width, channels)`, matrices `(channels,
            filters)` of queries, keys (if `content`) and values, and if there
            are any both embeddings, all in float32.
        kernel_size: Height and width of the window.
        num_heads: Number of heads.
        dilation_rate: Distance between keys.
        content: Whether the logits have q.k.
        recompute: Function of the operands that computes the same and can be
            differentiated.
    """
    attributes = {
        "filters": operands[1].shape[-1],
        "num_heads": num_heads,
        "kernel_size": kernel_size,
        "dilation_rate": dilation_rate,
        "content": int(content),
        "relative": int(len(operands) == (6 if content else 5)),
    }

    def results(shapes):
        batch, height, width = (dimension(shapes, 0, axis) for axis in range(3))
        return [(batch, height, width, attributes["filters"])]

    return custom_call.with_recomputed_gradient(
        operands,
        forward=targets.PROJECTED,
        results=results,
        attributes=attributes,
        recompute=recompute,
    )


def _source(sources, channels):
    """Number of the source that holds the channels, perhaps a new one.

    Channels that overlap are sources of their own: every source has a gradient,
    where each channel is written once.
    """
    for number, source in enumerate(sources):
        if source[0].tensor is channels.tensor and all(
            abs(other.first - channels.first) >= channels.count
            for other in source
        ):
            return number
    sources.append([])
    return len(sources) - 1
