"""The two heads that all levels share (Lin et al., 2017, RetinaNet)."""

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
    outputs: int,
    spatial: str,
    name: str,
    filters: int = 256,
    prior_probability: float | None = None,
    implementation: str | None = None,
    depth: int = 4,
) -> keras.Sequential:
    """Builds a head of `depth` spatial layers and a prediction.

    With convolution, the prediction is a 3x3 convolution to `outputs`. With
    attention it is another attention layer of width `filters`, followed by a
    pointwise convolution that mixes the attention heads, as in the paper.

    Args:
        outputs: Integer, number of predictions for a pixel.
        spatial: `"conv"` or `"attention"`.
        name: Name of the head.
        filters: Integer, width of the pyramid and the head.
        prior_probability: Float, sigmoid of all outputs before training. A
            small value keeps the background, which is nearly all of the image,
            from dominating the loss. `None` for outputs of about 0.
        implementation: Implementation of the attention.
        depth: Integer, number of spatial layers before the prediction.

    Returns:
        A `keras.Sequential` from maps `(batch, height, width, filters)` of any
        size to `(batch, height, width, outputs)` in float32.

    Raises:
        ValueError: If `spatial` has another value.

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
            # Losses and boxes in float16 would lose small numbers.
            dtype=keras.config.dtype_policy().variable_dtype,
            name=f"{name}_predictions",
        )
    )
    return keras.Sequential(parts, name=name)
