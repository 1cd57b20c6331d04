"""Feature pyramid and heads: shapes, parameters, initial predictions."""

import keras
import numpy as np
import pytest

from keras_sasa import SelfAttention2D
from keras_sasa.applications import ResNet
from keras_sasa.detection import RetinaNet
from keras_sasa.detection.configurations import DETECTORS
from keras_sasa.detection.feature_pyramid import (
    LEVELS,
    STRIDES,
    UpsampleLike,
    feature_pyramid,
)
from keras_sasa.detection.prediction_head import prediction_head
from keras_sasa.profile import profile
from tests.support.parameters import large

OPERATORS = ("conv", "attention")


def pyramid(spatial, height, width, filters=32):
    maps = [
        keras.Input((-(-height // stride), -(-width // stride), channels))
        for stride, channels in ((8, 6), (16, 5), (32, 4))
    ]
    return keras.Model(maps, feature_pyramid(maps, spatial, filters))


@pytest.mark.parametrize("spatial", OPERATORS)
@pytest.mark.parametrize("height, width", [(64, 96), (65, 100), (33, 7)])
def test_levels_halve_the_map(spatial, height, width):
    model = pyramid(spatial, height, width)
    levels = model([np.ones((2, *x.shape[1:])) for x in model.inputs])
    assert tuple(levels) == LEVELS
    for level, x in levels.items():
        stride = STRIDES[level]
        assert x.shape == (2, -(-height // stride), -(-width // stride), 32)


def test_upsampling_by_hand():
    coarse = np.array([[1, 2], [3, 4]]).reshape((1, 2, 2, 1))
    fine = np.zeros((1, 3, 4, 1))
    up = keras.ops.convert_to_numpy(UpsampleLike()(coarse, fine))
    np.testing.assert_array_equal(
        up[0, ..., 0], [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4]]
    )


@pytest.mark.parametrize("spatial", OPERATORS)
def test_each_level_has_a_spatial_operator(spatial):
    model = pyramid(spatial, 64, 64)
    attention = [x for x in model.layers if isinstance(x, SelfAttention2D)]
    assert len(attention) == (5 if spatial == "attention" else 0)
    for layer in attention:
        assert layer.kernel_size == (7, 7)
        assert layer.num_heads == 8
        # The pool follows on attention at full resolution.
        assert layer.strides == (1, 1)


@pytest.mark.parametrize("spatial", OPERATORS)
def test_coarse_maps_reach_the_finest_level(spatial):
    model = pyramid(spatial, 64, 64)
    maps = [np.zeros((1, *x.shape[1:]), "float32") for x in model.inputs]
    before = keras.ops.convert_to_numpy(model(maps)["P3"])
    maps[2] = np.random.default_rng(0).normal(size=maps[2].shape)
    after = keras.ops.convert_to_numpy(model(maps)["P3"])
    assert abs(after - before).max() > 1e-3


@pytest.mark.parametrize("spatial", OPERATORS)
def test_head_starts_at_the_prior_probability(spatial):
    head = prediction_head(12, spatial, "head", 32, prior_probability=0.01)
    maps = np.random.default_rng(0).normal(size=(2, 5, 7, 32))
    logits = keras.ops.convert_to_numpy(head(maps))
    assert logits.shape == (2, 5, 7, 12)
    # The kernels of N(0, 0.01) move it by little.
    assert abs(logits + np.log(99)).max() < 1
    assert 1 / (1 + np.exp(-logits.mean())) == pytest.approx(0.01, rel=0.2)
    box_head = prediction_head(36, spatial, "box_head", 32)
    outputs = keras.ops.convert_to_numpy(box_head(maps))
    assert abs(outputs).max() < 1


def test_attention_head_is_the_papers():
    head = prediction_head(720, "attention", "head")
    attention = [x for x in head.layers if isinstance(x, SelfAttention2D)]
    assert [x.filters for x in attention] == [256] * 5
    for layer in attention:
        values = keras.ops.convert_to_numpy(layer.value_kernel)
        assert 0.0095 < values.std() < 0.0105
    (pointwise,) = [
        x for x in head.layers if isinstance(x, keras.layers.Conv2D)
    ]
    assert pointwise is head.layers[-1]
    assert pointwise.kernel_size == (1, 1)


@pytest.mark.parametrize("spatial", OPERATORS)
def test_heads_save_and_load(spatial, tmp_path):
    head = prediction_head(12, spatial, "head", 32, prior_probability=0.01)
    head.save(tmp_path / "head.keras")
    again = keras.saving.load_model(tmp_path / "head.keras")
    maps = np.random.default_rng(0).normal(size=(1, 5, 7, 32))
    np.testing.assert_array_equal(head(maps), again(maps))


@pytest.mark.parametrize(
    "build",
    [
        lambda: feature_pyramid([1, 2, 3], "pool"),
        lambda: prediction_head(9, "pool", "head"),
    ],
)
def test_unknown_operator(build):
    with pytest.raises(ValueError, match="`spatial` must be .*spatial='pool'"):
        build()


def test_number_of_maps():
    with pytest.raises(ValueError, match="three maps.*Received: 2 maps"):
        feature_pyramid([1, 2], "conv")


@pytest.mark.parametrize(
    "name, published, ours",
    [
        ("conv_conv", 33.4, 33.84),
        ("attention_conv", 25.9, 26.32),
        large("full_attention_conv", 25.9, 26.32),
        ("attention_attention", 22.0, 20.08),
        large("full_attention_attention", 22.0, 20.08),
    ],
)
def test_parameters_of_the_papers_detectors(name, published, ours):
    options = dict(DETECTORS[name])
    backbone = ResNet(
        **options.pop("backbone"), include_top=False, input_shape=(64, 64, 3)
    )
    model = RetinaNet(backbone, num_classes=80, **options)
    spatial = options["spatial"]
    trainable = profile(model).trainable_parameters / 1e6
    assert trainable == pytest.approx(ours, abs=0.01)
    if spatial == "conv":
        assert trainable == pytest.approx(published, rel=0.03)
