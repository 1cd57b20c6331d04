"""The two heads, which all levels share (Lin et al., 2017, RetinaNet)."""

import math

import keras
from keras import initializers, layers

from keras_sasa._argument_checks import check_choice
from keras_sasa.detection.spatial_layers import (
    SPATIAL_LAYERS,
    normalization,
    spatial_layers,
)

PRIOR_PROBABILITY = 0.01


def prediction_head(
    outputs,
    spatial,
    name,
    filters=256,
    prior_probability=None,
    implementation=None,
    depth=4,
):
    """Builds a head: `depth` spatial operators, then one that predicts.

    Of convolution, the last is a 3x3 convolution to `outputs`. Of attention it
    is one more attention of width `filters`, and a pointwise convolution that
    mixes its heads and makes `outputs` of them, as in the paper.

    Args:
        outputs: Integer, numbers that are predicted for a pixel.
        spatial: `"conv"` or `"attention"`.
        name: Name of the head.
        filters: Integer, width of the pyramid and of the head.
        prior_probability: Float, what a sigmoid makes of all outputs before
            the training, so that the background, nearly all of the image, does
            not overwhelm the loss. `None` for outputs of about 0.
        implementation: Implementation of the attention.
        depth: Integer, number of operators before the last.

    Returns:
        A `keras.Sequential` from maps `(batch, height, width, filters)` of any
        size to `(batch, height, width, outputs)` in float32.

    Raises:
        ValueError: If `spatial` is none of the two.

    Reference:
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 4;
        [Ramachandran et al., 2019](https://arxiv.org/abs/1906.05909),
        section 4.2.
    """
    check_choice(spatial, "spatial", SPATIAL_LAYERS)
    parts = [keras.Input((None, None, filters))]
    for index in range(1, depth + 1):
        parts += spatial_layers(
            spatial,
            filters,
            f"{name}_{spatial}{index}",
            small_values=True,
            implementation=implementation,
        )
        parts.append(normalization(filters, f"{name}_normalization{index}"))
        parts.append(layers.ReLU(name=f"{name}_relu{index}"))
    if spatial == "attention":
        parts += spatial_layers(
            spatial,
            filters,
            f"{name}_{spatial}{depth + 1}",
            small_values=True,
            implementation=implementation,
        )
    bias = 0.0
    if prior_probability is not None:
        bias = -math.log((1 - prior_probability) / prior_probability)
    parts.append(
        layers.Conv2D(
            outputs,
            3 if spatial == "conv" else 1,
            padding="same",
            data_format="channels_last",
            kernel_initializer=initializers.RandomNormal(stddev=0.01),
            bias_initializer=initializers.Constant(bias),
            # Losses and boxes of float16 would lose what is small.
            dtype=keras.config.dtype_policy().variable_dtype,
            name=f"{name}_predictions",
        )
    )
    return keras.Sequential(parts, name=name)
