"""Detectors as small as they can be."""

import keras
import numpy as np

from keras_sasa.detection import RetinaNet
from keras_sasa.training.engine.compilation import compile_model

FEATURES = ("c3", "c4", "c5")


def tiny_backbone(side=64, input_tensor=None, **options):
    """Three convolutions, with a normalization after the first."""
    x = input_tensor
    if x is None:
        x = keras.Input((side, side, 3))
    images = keras.utils.get_source_inputs(x)
    x = keras.layers.Conv2D(8, 3, 8, padding="same", name="c3_conv")(x)
    x = keras.layers.BatchNormalization(name="c3")(x)
    for name in ("c4", "c5"):
        x = keras.layers.Conv2D(8, 3, 2, padding="same", name=name, **options)(
            x
        )
    return keras.Model(images, x, name="backbone")


def tiny_detector(side=64, **options):
    """A `RetinaNet` for images of 64 pixels and three classes."""
    return RetinaNet(
        tiny_backbone(side),
        **{
            "num_classes": 3,
            "filters": 16,
            "features": FEATURES,
            "head_depth": 1,
            **options,
        },
    )


def build_tiny_detector(network, data, recipe, devices):
    """Takes the place of `build_detector`, whatever the network."""
    with devices.scope():
        model = tiny_detector(bounding_box_format="xyxy")
        compile_model(model, recipe, 1, devices)
    return model


def tiny_scenes():
    """Returns two images of noise, and labels for a box in each."""
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3))
    labels = {
        "boxes": np.array([[[8, 8, 40, 40.0]], [[10, 10, 50, 30]]]),
        "labels": np.array([[0], [2]]),
    }
    return images.astype("float32"), labels
