"""Spatial operators of the bottleneck blocks: one row of a table each."""

import dataclasses
from collections.abc import Callable, Sequence

import keras
from keras import layers

from keras_sasa.applications.basic_layers import convolution
from keras_sasa.layers import SelfAttention2D

DOWNSAMPLINGS = ("pool", "stride")


@dataclasses.dataclass(frozen=True)
class AttentionOptions:
    """Arguments of `ResNet` that concern its attention; see there."""

    kernel_size: int | Sequence[int]
    num_heads: int
    position_encoding: str | None
    use_content: bool
    downsampling: str
    implementation: str | None


def _convolution(options, x, filters, strides, name):
    return convolution(x, filters, 3, strides, f"{name}_spatial_conv")


def _attention(options, x, filters, strides, name):
    pool = options.downsampling == "pool"
    x = SelfAttention2D(
        filters,
        options.kernel_size,
        num_heads=options.num_heads,
        strides=1 if pool else strides,
        position_encoding=options.position_encoding,
        use_content=options.use_content,
        implementation=options.implementation,
        name=f"{name}_attention",
    )(x)
    if pool and strides > 1:
        # "same", so that the shortcut has the same shape on odd maps.
        x = layers.AveragePooling2D(
            strides, padding="same", name=f"{name}_pool"
        )(x)
    return x


# From the options, a map, the filters, the strides and the name of the block to
# a map.
SpatialOperator = Callable[
    [AttentionOptions, keras.KerasTensor, int, int, str], keras.KerasTensor
]
SPATIAL_OPERATORS: dict[str, SpatialOperator] = {
    "conv": _convolution,
    "attention": _attention,
}
