"""Dense layers on maps against Keras' layer."""

import keras
import numpy as np
import pytest

from keras_sasa.layers import Dense, dense
from keras_sasa.ops.local_attention import portable
from tests.support.backend import BACKEND, MODES, value_and_gradients


@pytest.fixture
def fused_calls(monkeypatch):
    """A list that has an entry for each call in fused steps."""
    calls = []
    original = dense.dense

    def record(*arguments):
        calls.append(None)
        return original(*arguments)

    monkeypatch.setattr(dense, "dense", record)
    return calls


def pair(channels, activation=None, **options):
    """Our layer and Keras' with the same, random weights."""
    made = []
    for layer_class in (Dense, keras.layers.Dense):
        layer = layer_class(5, activation, **options)
        layer.build((None, channels))
        random = np.random.default_rng(0)
        for weight in layer.weights:
            weight.assign(random.normal(size=weight.shape))
        made.append(layer)
    return made


def maps(*shape):
    return np.random.default_rng(1).normal(0, 2, shape).astype("float32")


def check_same(ours, theirs, inputs, mode=MODES[0], training=False):
    cotangent = np.random.default_rng(2).normal(size=(*inputs.shape[:-1], 5))
    results = [
        value_and_gradients(
            layer, inputs, cotangent, mode=mode, training=training
        )
        for layer in (ours, theirs)
    ]
    for one, other in zip(
        [results[0].outputs, *results[0].gradients.values()],
        [results[1].outputs, *results[1].gradients.values()],
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="steps for TensorFlow")
@pytest.mark.parametrize(
    "shape, activation, options, mode",
    [
        ((2, 4, 3, 6), "gelu", {}, MODES[0]),
        ((2, 4, 3, 6), "gelu", {}, MODES[-1]),
        ((2, 4, 6), "relu", {}, MODES[0]),
        ((0, 4, 3, 6), "gelu", {}, MODES[0]),
        ((2, 4, 3, 6), None, {"use_bias": False}, MODES[0]),
    ],
)
def test_fused(shape, activation, options, mode, fused_calls):
    check_same(*pair(6, activation, **options), maps(*shape), mode)
    assert fused_calls


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of TensorFlow")
def test_graph_is_optimized():
    """A graph that computes values alone, as predictions do."""
    import tensorflow as tf

    ours, theirs = pair(6, "gelu")
    inputs = tf.constant(maps(2, 4, 3, 6))
    outputs = tf.function(lambda x: ours(x, training=False))(inputs)
    np.testing.assert_allclose(outputs, theirs(inputs), rtol=1e-5, atol=1e-6)


ALONE = {
    "training": ((2, 4, 3, 6), {}, {"training": True}),
    "vectors": ((2, 6), {}, {}),
    "float64": ((2, 4, 3, 6), {"dtype": "float64"}, {}),
}


@pytest.mark.parametrize("name", ALONE)
def test_keras_code_elsewhere(name, fused_calls):
    shape, options, call = ALONE[name]
    check_same(*pair(6, "gelu", **options), maps(*shape), **call)
    assert not fused_calls


def test_it_is_keras_layer_in_files(tmp_path, fused_calls):
    ours, theirs = pair(6, "gelu", name="dense")
    assert ours.get_config() == theirs.get_config()
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    inputs = maps(2, 4, 3, 6)
    with portable():
        np.testing.assert_array_equal(ours(inputs), theirs(inputs))
    assert not fused_calls
    images = keras.Input((4, 3, 6))
    model = keras.Model(images, ours(images))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[1]) is Dense
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_quantization(fused_calls):
    """By Keras, whose layer then takes the calls."""
    inputs = maps(2, 4, 3, 6)
    outputs = []
    for layer in pair(6, "gelu"):
        layer.quantize("int8")
        outputs.append(keras.ops.convert_to_numpy(layer(inputs)))
        assert keras.backend.standardize_dtype(layer._kernel.dtype) == "int8"
    np.testing.assert_array_equal(*outputs)
    assert not fused_calls
