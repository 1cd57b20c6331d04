"""The operator that pyramid and heads are made of: convolution or attention.

Ramachandran et al., 2019 (https://arxiv.org/abs/1906.05909), section 4.2: each
3x3 convolution becomes attention of the same width, with a 2x2 average pool
where it was strided.
"""

import math

from keras import initializers, layers

from keras_sasa.layers import SelfAttention2D

KERNEL_SIZE = 7
NUM_HEADS = 8
# Of the width of the paper; narrower ones have as many as divide them.
NUM_GROUPS = 32
# Ours. Five attentions one after the other, without shortcuts, blur all that is
# in a map until each looks somewhere. With embeddings this large they do so
# from the beginning, each head and pixel at a few places that are drawn. With
# N(0, 0.05) a detector of digits learns next to nothing in its first 200 steps.
EMBEDDING_SCALE = 6.0


def spatial_operator(
    spatial, filters, name, strides=1, small_values=False, implementation=None
):
    """Makes the layers of one operator, to be called one after the other.

    Args:
        spatial: `"conv"` (3x3) or `"attention"` (7x7, 8 heads).
        filters: Integer, width of the output.
        name: Name of the layer that has the weights.
        strides: 1 or 2.
        small_values: Boolean, whether the weights that make the output (the
            convolution, the values of the attention) are drawn from
            `N(0, 0.01)`, as the papers have it in the heads.
        implementation: Implementation of the attention.

    Returns:
        List of layers.
    """
    small = None
    if small_values:
        small = initializers.RandomNormal(stddev=0.01)
    if spatial == "conv":
        return [
            layers.Conv2D(
                filters,
                3,
                strides,
                padding="same",
                use_bias=False,
                data_format="channels_last",
                kernel_initializer=small or "he_normal",
                name=name,
            )
        ]
    attention = SelfAttention2D(
        filters,
        kernel_size=KERNEL_SIZE,
        num_heads=NUM_HEADS,
        value_initializer=small,
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


def normalization(filters, name):
    """Makes the normalization after an operator of width `filters`.

    Of groups of channels of each image (Wu & He, 2018): levels share the
    heads, the coarsest maps have one pixel, and batches are small, none of
    which means over a batch can take. The paper is silent.
    """
    groups = math.gcd(filters, NUM_GROUPS)
    return layers.GroupNormalization(groups, epsilon=1e-5, name=name)
