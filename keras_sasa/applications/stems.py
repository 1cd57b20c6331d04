"""Stems, the first layers of the networks: one row of a table each."""

import functools
from collections.abc import Callable

import keras
from keras import layers

from keras_sasa.applications.basic_layers import convolution, normalization
from keras_sasa.layers import AttentionStem


def _convolution_stem(x, filters, implementation):
    """7x7 convolution and max pool: a map of 1/4 of the image's sides."""
    x = convolution(x, filters, 7, 2, "stem_conv")
    x = normalization(x, "stem_normalization")
    x = layers.ReLU(name="stem_relu")(x)
    return layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)


def _small_stem(x, filters, implementation):
    """3x3 convolution: a map as large as the image."""
    x = convolution(x, filters, 3, 1, "stem_conv")
    x = normalization(x, "stem_normalization")
    return layers.ReLU(name="stem_relu")(x)


def _attention_stem(x, filters, implementation, values):
    """Attention and max pool: a map of 1/4 of the image's sides."""
    return AttentionStem(
        filters,
        values=values,
        implementation=implementation,
        name="stem_attention",
    )(x)


# From images, the filters and the implementation of attention to a map.
Stem = Callable[[keras.KerasTensor, int, str | None], keras.KerasTensor]
STEMS: dict[str, Stem] = {
    "conv": _convolution_stem,
    "small": _small_stem,
    "attention": functools.partial(_attention_stem, values="spatially_aware"),
    "plain_attention": functools.partial(_attention_stem, values="plain"),
    "conv_value_attention": functools.partial(_attention_stem, values="conv"),
}
