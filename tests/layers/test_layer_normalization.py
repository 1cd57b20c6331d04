"""Layer normalization against Keras' layer."""

import keras
import numpy as np
import pytest

from keras_sasa.layers import LayerNormalization, layer_normalization
from keras_sasa.ops.local_attention import portable
from tests.support.backend import BACKEND, MODES, value_and_gradients

on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the kernel is called on TensorFlow"
)


@pytest.fixture
def kernel_calls(monkeypatch):
    """A list that has an entry for each call of the kernel."""
    calls = []
    original = layer_normalization.normalize_pixels

    def record(*arguments):
        calls.append(None)
        return original(*arguments)

    monkeypatch.setattr(layer_normalization, "normalize_pixels", record)
    return calls


def pair(channels, rank=4, axis=-1, **options):
    """Our layer and Keras' with the same, random weights."""
    made = []
    for layer_class in (
        LayerNormalization,
        keras.layers.LayerNormalization,
    ):
        layer = layer_class(axis=axis, epsilon=1e-5, **options)
        layer.build((2,) * (rank - 1) + (channels,))
        random = np.random.default_rng(0)
        for weight in layer.weights:
            weight.assign(random.uniform(0.5, 2.0, weight.shape))
        made.append(layer)
    return made


def maps(*shape):
    return np.random.default_rng(1).normal(3, 2, shape).astype("float32")


def check_same(ours, theirs, inputs, mode=MODES[0], training=False):
    cotangent = np.random.default_rng(2).normal(size=inputs.shape)
    results = [
        value_and_gradients(layer, inputs, cotangent, mode=mode, **call)
        for layer, call in ((ours, {"training": training}), (theirs, {}))
    ]
    for one, other in zip(
        [results[0].outputs, *results[0].gradients.values()],
        [results[1].outputs, *results[1].gradients.values()],
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=3e-5, atol=3e-5)


@on_tensorflow
@pytest.mark.usefixtures("native_available")
@pytest.mark.parametrize(
    "shape, options, mode",
    [
        ((2, 5, 7, 3), {}, MODES[0]),
        ((2, 5, 7, 40), {}, MODES[-1]),
        ((1, 3, 3, 64), {"scale": False}, MODES[0]),
        ((1, 3, 3, 5), {"center": False}, MODES[0]),
        ((0, 3, 3, 5), {}, MODES[0]),
    ],
)
def test_kernel(shape, options, mode, kernel_calls):
    check_same(*pair(shape[-1], **options), maps(*shape), mode)
    assert kernel_calls


@on_tensorflow
@pytest.mark.usefixtures("native_available")
def test_kernel_is_no_less_exact(kernel_calls):
    """Also where the mean is far larger than the deviation."""
    inputs = maps(2, 4, 4, 24) * 0.01 + np.float32(100)
    ours, theirs = pair(24)
    exact = pair(24, dtype="float64")[1](inputs.astype("float64"))
    errors = [
        np.abs(layer(inputs) - np.asarray(exact)).max()
        for layer in (ours, theirs)
    ]
    assert errors[0] <= 1e-6 < errors[1]
    assert kernel_calls


ALONE = {
    "training": ({}, 4, {"training": True}),
    "pixels": ({}, 2, {}),
    "axis": ({"axis": (2, 3)}, 4, {}),
    "float64": ({"dtype": "float64"}, 4, {}),
}


@pytest.mark.parametrize("name", ALONE)
def test_keras_code_elsewhere(name, kernel_calls):
    options, rank, call = ALONE[name]
    ours, theirs = pair(3, rank, **options)
    check_same(ours, theirs, maps(*(2,) * (rank - 1), 3), **call)
    assert not kernel_calls


@on_tensorflow
@pytest.mark.usefixtures("native_available")
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_nan_and_infinity_stay_where_they_are(number, kernel_calls):
    inputs = maps(2, 3, 4, 20)
    inputs[0, 1, 2, 1] = number
    outputs = np.asarray(pair(20)[0](inputs))
    assert np.isnan(outputs).sum() == np.isnan(outputs[0, 1, 2]).sum() == 20
    assert kernel_calls


def test_it_is_keras_layer_in_files(tmp_path, kernel_calls):
    ours, theirs = pair(3, name="normalization")
    assert ours.get_config() == theirs.get_config()
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    inputs = maps(2, 3, 4, 3)
    with portable():
        np.testing.assert_array_equal(ours(inputs), theirs(inputs))
    assert not kernel_calls
    images = keras.Input((3, 4, 3))
    model = keras.Model(images, ours(images))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[1]) is LayerNormalization
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
