"""The feature pyramid (Lin et al., 2017) of convolution or attention."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_sasa._argument_checks import check_choice
from keras_sasa.detection.spatial_layers import (
    SPATIAL_LAYERS,
    normalization,
    spatial_layers,
)

LEVELS = ("P3", "P4", "P5", "P6", "P7")
# Level n has 1 / 2**n of the sides of the image.
STRIDES = {level: 2 ** int(level[1:]) for level in LEVELS}


@keras.saving.register_keras_serializable(package="keras_sasa")
class UpsampleLike(layers.Layer):
    """Doubles a map (nearest neighbor) and crops it to the size of another.

    Strided layers round odd sizes up, so the doubled map can have a row or a
    column too many.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(batch_size, height, width, channels)`.
        like: `(batch_size, out_height, out_width, _)`, each size twice the
            size of `inputs` or one less.

    Output shape:
        `(batch_size, out_height, out_width, channels)`.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.detection.feature_pyramid import UpsampleLike
    >>> coarse, fine = np.ones((1, 2, 3, 4)), np.ones((1, 3, 6, 1))
    >>> tuple(UpsampleLike()(coarse, fine).shape)
    (1, 3, 6, 4)
    """

    def call(self, inputs, like):
        doubled = ops.repeat(ops.repeat(inputs, 2, axis=1), 2, axis=2)
        _, height, width, _ = ops.shape(like)
        return doubled[:, :height, :width]

    def compute_output_shape(self, inputs_shape, like_shape):
        return (inputs_shape[0], *like_shape[1:3], inputs_shape[-1])


def feature_pyramid(
    features: Sequence[keras.KerasTensor],
    spatial: str,
    filters: int = 256,
    implementation: str | None = None,
) -> dict[str, keras.KerasTensor]:
    """Adds the levels P3 to P7 to a backbone.

    Pointwise convolutions bring the three maps to the same width, coarser maps
    are added to finer ones, and a spatial layer follows on each level. Two
    strided spatial layers make P6 and P7 from P5. (In footnote 2 of Lin et
    al., 2017, RetinaNet, P6 comes from the backbone; only P5 fits the paper's
    number of parameters.)

    Args:
        features: Three Keras tensors, maps of 1/8, 1/16 and 1/32 of the image
            size.
        spatial: `"conv"` or `"attention"`.
        filters: Integer, width of all levels.
        implementation: Implementation of the attention.

    Returns:
        Dict from the names in `LEVELS` to Keras tensors of width `filters`.

    Raises:
        ValueError: If `spatial` has another value, or there are not three
            maps.

    Reference:
        [Lin et al., 2017](https://arxiv.org/abs/1612.03144);
        [Ramachandran et al., 2019](https://arxiv.org/abs/1906.05909),
        section 4.2.
    """
    check_choice(spatial, "spatial", SPATIAL_LAYERS)
    if len(features) != 3:
        raise ValueError(
            "`features` must be three maps of 1/8, 1/16 and 1/32 of the image "
            f"size. Received: {len(features)} maps."
        )

    def operate(x, level, strides=1):
        name = f"pyramid_{level.lower()}"
        for layer in spatial_layers(
            spatial,
            filters,
            f"{name}_{spatial}",
            strides,
            implementation=implementation,
        ):
            x = layer(x)
        return normalization(filters, f"{name}_normalization")(x)

    merged = {
        level: layers.Conv2D(
            filters,
            1,
            data_format="channels_last",
            name=f"pyramid_{level.lower()}_lateral",
        )(x)
        for level, x in zip(LEVELS[:3], features, strict=True)
    }
    for level, coarser in (("P4", "P5"), ("P3", "P4")):
        name = f"pyramid_{level.lower()}"
        x = merged[level]
        above = UpsampleLike(name=f"{name}_upsample")(merged[coarser], x)
        merged[level] = layers.Add(name=f"{name}_add")([x, above])
    levels = {level: operate(x, level) for level, x in merged.items()}
    levels["P6"] = operate(levels["P5"], "P6", strides=2)
    x = layers.ReLU(name="pyramid_p6_relu")(levels["P6"])
    levels["P7"] = operate(x, "P7", strides=2)
    return levels
