"""Backbones and features that no detector can be built on are refused."""

import keras
import pytest

from keras_sasa.detection import RetinaNet
from keras_sasa.detection.backbones import feature_maps
from tests.support.detectors import FEATURES, tiny_backbone, tiny_detector


def backbone(padding="same", side=64, **options):
    """Three convolutions of strides 8, 2 and 2, and layers beside them."""
    images = keras.Input((side, side, 3))
    x = images
    for name, strides in (("c3", 8), ("c4", 2), ("c5", 2)):
        x = keras.layers.Conv2D(
            8, 2, strides, padding=padding, name=name, **options
        )(x)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, [x, pooled], name="backbone")


@pytest.mark.parametrize(
    "features, message",
    [
        (("c3", "c4", "c6"), r"'c6', which is not one of \['input_layer"),
        (("c3", "c4"), r"three layers.*features=\('c3', 'c4'\)"),
        ("c3c", "three layers.*features='c3c'"),
        (("c4", "c5", "c5"), r"\(8, 8\) of 64x64 pixels for 'c4'.*4, 4, 8"),
        (("c5", "c4", "c3"), "for 'c5'"),
        (("c3", "c4", "pool"), r"'pool' has the output shape \(\w+, 8\)"),
    ],
)
@pytest.mark.parametrize("side", [64, None])
def test_wrong_features(features, message, side):
    # Unknown sizes are tried with another size.
    if side is None:
        message = message.split("of 64x64")[0].split(r"\(8, 8\)")[0]
    with pytest.raises(ValueError, match=f"(?s)`features` must.*{message}"):
        feature_maps(backbone(side=side), features)


def test_sides_must_be_rounded_up():
    feature_maps(backbone("valid", 64), FEATURES)
    with pytest.raises(ValueError, match="`features`.* rounded up"):
        feature_maps(backbone("valid", 65), FEATURES)


def test_layers_of_another_graph():
    model = backbone()
    x = images = keras.Input((64, 64, 3))
    for name in FEATURES:
        x = model.get_layer(name)(x)
    feature_maps(model, FEATURES)
    with pytest.raises(ValueError, match="`features` .*any other model"):
        feature_maps(keras.Model(images, x), FEATURES)


class Subclassed(keras.Model):
    def call(self, images):
        return images


@pytest.mark.parametrize(
    "make, message",
    [
        (Subclassed, "functional `keras.Model`.*Subclassed"),
        (lambda: "resnet", "functional `keras.Model`.*'resnet'"),
        (lambda: keras.Model, "functional `keras.Model`"),
        (
            lambda: keras.Sequential([keras.Input((4,)), keras.layers.ReLU()]),
            r"one batch of images.*\[\(None, 4\)\]",
        ),
        (
            lambda: backbone(data_format="channels_first"),
            "channels last.*'c3' is channels first",
        ),
    ],
)
def test_wrong_backbones(make, message):
    with pytest.raises(ValueError, match=f"(?s)`backbone` must.*{message}"):
        feature_maps(make(), FEATURES)


def test_the_image_data_format_of_keras_does_not_matter():
    channels_last = tiny_backbone()
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="`backbone` must be channels last"):
        tiny_detector()
    model = RetinaNet(
        channels_last, 3, "attention", filters=16, features=FEATURES
    )
    # 64 + 16 + 4 + 1 + 1 pixels of nine anchors.
    assert model.output["box_deltas"].shape == (None, 774, 4)
