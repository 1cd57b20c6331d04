"""Checks of the backbone, before anything is built on it."""

from collections.abc import Sequence

import keras

from keras_sasa._keras_graphs import all_layers
from keras_sasa.detection.feature_pyramid import LEVELS, STRIDES

# Tried if the backbone takes any size. Sides that are not multiples of 32 are
# checked when the model receives them.
_SIDE = 256
_NUM_MAPS = 3


def feature_maps(backbone, features):
    """Returns the maps of a backbone that are inputs of the pyramid.

    Args:
        backbone: A functional `keras.Model` with one input, a batch of
            images, channels last.
        features: Names of the three layers whose outputs are 1/8, 1/16 and
            1/32 of the image size, rounded up.

    Returns:
        List of three Keras tensors.

    Raises:
        ValueError: If the backbone or the features are not as described.
    """
    _check_backbone(backbone)
    if (
        not isinstance(features, Sequence)
        or isinstance(features, str)
        or len(features) != _NUM_MAPS
    ):
        raise ValueError(
            "`features` must be the names of three layers of the backbone "
            "whose outputs are 1/8, 1/16 and 1/32 of the image size. Received: "
            f"features={features!r}."
        )
    maps = [_output(backbone, name) for name in features]
    strides = tuple(STRIDES[level] for level in LEVELS[:_NUM_MAPS])
    image = backbone.inputs[0]
    height, width = image.shape[1:3]
    try:
        graph = keras.Model(image, maps)
    except ValueError as error:
        raise ValueError(
            "`features` must be layers that the backbone calls before any "
            f"other model does. Received: features={tuple(features)!r} "
            f"({error})"
        ) from error
    shapes = [tuple(x.shape) for x in maps]
    if None in (height, width):
        height, width = height or _SIDE, width or _SIDE
        probe = keras.KerasTensor(
            (1, height, width, image.shape[-1]), dtype=image.dtype
        )
        shapes = [tuple(x.shape) for x in graph.compute_output_spec(probe)]
    for name, shape, stride in zip(features, shapes, strides, strict=True):
        expected = -(-height // stride), -(-width // stride)
        if len(shape) != 4 or shape[1:3] != expected:
            raise ValueError(
                f"`features` must be layers whose outputs are {strides} times "
                "smaller than the image, rounded up, channels last: "
                f"{expected} of {height}x{width} pixels for {name!r}. "
                f"Received: features={tuple(features)!r}, where {name!r} has "
                f"the output shape {shape}."
            )
    return maps


def _check_backbone(backbone):
    inputs = getattr(backbone, "inputs", None)
    if not isinstance(backbone, keras.Model) or not inputs:
        raise ValueError(
            "`backbone` must be a functional `keras.Model`; a subclassed model "
            "has no graph to which a pyramid could be added. Received: "
            f"backbone={backbone!r}."
        )
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ValueError(
            "`backbone` must take one batch of images (batch_size, height, "
            "width, channels). Received: inputs with the shapes "
            f"{[tuple(x.shape) for x in inputs]}."
        )
    for layer in all_layers(backbone, include_self=False):
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                "`backbone` must be channels last; build it after "
                "`keras.config.set_image_data_format('channels_last')`. "
                f"Received: a backbone whose layer {layer.name!r} is "
                "channels first."
            )


def _output(backbone, name):
    names = [layer.name for layer in backbone.layers]
    if name not in names:
        raise ValueError(
            "`features` must be names of layers of the backbone. Received: "
            f"{name!r}, which is not one of {names}."
        )
    output = backbone.get_layer(name).output
    if not isinstance(output, keras.KerasTensor):
        raise ValueError(
            "`features` must be layers with one output. Received: "
            f"{name!r} with {len(output)} outputs."
        )
    return output
