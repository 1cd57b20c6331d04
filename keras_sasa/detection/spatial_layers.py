"""Spatial layers of the pyramid and the heads: one row of a table each.

Ramachandran et al., 2019 (https://arxiv.org/abs/1906.05909), section 4.2: each
3x3 convolution becomes attention of the same width, followed by a 2x2 average
pool where the convolution was strided.
"""

import math
from collections.abc import Callable

from keras import initializers, layers

from keras_sasa.layers import SelfAttention2D

KERNEL_SIZE = 7
NUM_HEADS = 8
# For the width in the paper; smaller widths have as many groups as divide them.
NUM_GROUPS = 32
# Our choice. Five attention layers in a row, without shortcuts, blur a map
# completely until each of them looks at single places. With embeddings this
# large they do so from the start: each head and pixel looks at a few random
# places. With N(0, 0.05) a detector of digits learns next to nothing in its
# first 200 steps.
EMBEDDING_SCALE = 6.0


def _convolution(filters, name, strides, initializer, implementation):
    return [
        layers.Conv2D(
            filters,
            3,
            strides,
            padding="same",
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=initializer or "he_normal",
            name=name,
        )
    ]


def _attention(filters, name, strides, initializer, implementation):
    attention = SelfAttention2D(
        filters,
        kernel_size=KERNEL_SIZE,
        num_heads=NUM_HEADS,
        value_initializer=initializer,
        embedding_initializer=initializers.RandomNormal(
            stddev=EMBEDDING_SCALE / math.sqrt(filters / NUM_HEADS)
        ),
        data_format="channels_last",
        implementation=implementation,
        name=name,
    )
    if strides == 1:
        return [attention]
    pool = layers.AveragePooling2D(
        strides,
        padding="same",
        data_format="channels_last",
        name=f"{name}_pool",
    )
    return [attention, pool]


# From the filters, the name, the strides, the initializer of the output (or
# `None`) and the implementation of attention to layers, called in this order.
SpatialLayers = Callable[
    [
        int,
        str,
        int,
        initializers.Initializer | None,
        str | None,
    ],
    list[layers.Layer],
]
SPATIAL_LAYERS: dict[str, SpatialLayers] = {
    "conv": _convolution,
    "attention": _attention,
}


def spatial_layers(
    spatial, filters, name, strides=1, small_values=False, implementation=None
):
    """Makes the layers of one spatial operator.

    Args:
        spatial: `"conv"` (3x3) or `"attention"` (7x7, 8 heads).
        filters: Integer, width of the output.
        name: Name of the layer that has the weights.
        strides: 1 or 2.
        small_values: Boolean, whether the weights behind the output (of the
            convolution, or of the values in attention) are drawn from
            `N(0, 0.01)`, as the papers do in the heads.
        implementation: Implementation of the attention.

    Returns:
        List of layers, to be called in this order.
    """
    initializer = None
    if small_values:
        initializer = initializers.RandomNormal(stddev=0.01)
    return SPATIAL_LAYERS[spatial](
        filters, name, strides, initializer, implementation
    )


def normalization(filters, name):
    """Makes the normalization after spatial layers of width `filters`.

    It normalizes groups of channels in each image (Wu & He, 2018), because
    levels share the heads, the coarsest maps have a single pixel, and batches
    are small; means over a batch suit none of these. The paper does not
    mention it.
    """
    groups = math.gcd(filters, NUM_GROUPS)
    return layers.GroupNormalization(groups, epsilon=1e-5, name=name)
