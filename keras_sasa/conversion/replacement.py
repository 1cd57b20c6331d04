"""Replacement of convolutions by attention in an existing model."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_sasa._keras_graphs import check_graph
from keras_sasa.conversion.cloning import Cloner
from keras_sasa.conversion.convolutions import (
    AttentionReplacements,
    spatial_convolutions,
)
from keras_sasa.conversion.report import Conversion
from keras_sasa.profile import profile


def replace_convolutions(
    model: keras.Model,
    pattern: str | re.Pattern[str],
    kernel_size: int | Sequence[int] = 7,
    num_heads: int = 8,
    input_shape: Sequence[Any] | None = None,
) -> tuple[keras.Model, Conversion]:
    """Clones a model with `SelfAttention2D` in place of convolutions.

    Every `Conv2D`, `DepthwiseConv2D` and `SeparableConv2D` whose name matches
    `pattern` is replaced, also in models inside the model. 1x1 convolutions
    always stay, and so do classes derived from the three.

    Attention takes over the name, strides, dilation, dtype, activation,
    initializers, regularizers, and whether there is a bias. It sees all
    channels of the input, even where the convolution was depthwise or had
    groups.

    Padding "same" stays. A "valid" convolution of an image that a
    `ZeroPadding2D` padded to the "same" size becomes "same" attention to the
    image without that padding, since pixels outside the image take no part in
    attention. Other "valid" convolutions can only be replaced with their own
    kernel size.

    The remaining layers are copied with their weights: `model` does not
    change. Attention starts with new weights, which are trainable even if the
    convolution was frozen. A compiled model is compiled again, with a new
    optimizer; where that is impossible, a warning names the reason and the
    clone is not compiled.

    Args:
        model: A functional or a built sequential `keras.Model`. A derived
            class whose constructor also takes inputs and outputs, such as
            `RetinaNet`, is kept. Other derived classes become a plain
            functional model that is not compiled.
        pattern: Regular expression, a string or compiled. `re.search` must
            find it in the name of each layer to replace, for instance
            `"conv[45]_block"`.
        kernel_size: Odd integer or pair (height, width), window of attention.
        num_heads: Integer, number of attention heads.
        input_shape: Shape of the input without the batch, for the FLOPs.
            Must be passed if the model leaves sizes open; see
            `keras_sasa.profile.profile`.

    Returns:
        A pair of the new model and a `Conversion`, which compares their
        parameters and FLOPs.

    Raises:
        ValueError: If the layers of the model are not known without a call,
            `pattern` is not a regular expression or matches no convolution, a
            convolution that it matches cannot be replaced, or another layer
            cannot be cloned.

    Example:

    >>> import keras
    >>> from keras_sasa.conversion import replace_convolutions
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(32, 3, padding="same", name="conv1"),
    ...     keras.layers.Conv2D(64, 3, padding="same", name="conv2"),
    ... ])
    >>> attention, report = replace_convolutions(model, "conv2")
    >>> [type(layer).__name__ for layer in attention.layers]
    ['Conv2D', 'SelfAttention2D']
    >>> report.replaced
    ('conv2',)
    """
    check_graph(model)
    expression = _compile_pattern(pattern)
    convolutions = list(spatial_convolutions(model))
    chosen = [layer for layer in convolutions if expression.search(layer.name)]
    if not chosen:
        raise ValueError(
            "`pattern` must be found in the name of at least one spatial "
            f"convolution of {model.name!r}, which are "
            f"{[layer.name for layer in convolutions]}. "
            f"Received: pattern={pattern!r}."
        )
    before = profile(model, input_shape)
    cloner = Cloner(chosen, AttentionReplacements(kernel_size, num_heads).call)
    clone = cloner.clone(model)
    cloner.copy_weights()
    if model.compiled:
        _compile(clone, model)
    return clone, Conversion(before, profile(clone, input_shape))


def _compile_pattern(pattern):
    reason = None
    try:
        expression = re.compile(pattern)
        if isinstance(expression.pattern, str):
            return expression
    except (re.error, TypeError) as error:
        reason = error
    raise ValueError(
        "`pattern` must be a regular expression for the names of layers, a "
        f"string or compiled. Received: pattern={pattern!r}"
        + (f" ({reason})." if reason else ".")
    ) from reason


def _compile(clone, model):
    """Compiles a clone as its original was, or warns why it is not."""
    if type(clone) is not type(model):
        reason = (
            f"{type(model).__name__} cannot be made from inputs and outputs, "
            "so the clone is a plain model, which may train differently"
        )
    else:
        try:
            clone.compile_from_config(model.get_compile_config())
            return
        # Losses, metrics and optimizers of users may raise anything.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    warnings.warn(
        f"The clone of {model.name!r} is not compiled, call its `compile`: "
        f"{reason}.",
        stacklevel=3,
    )
