"""Batch normalization against Keras' layer."""

import functools

import keras
import numpy as np
import pytest

from keras_sasa.layers import BatchNormalization, batch_normalization
from keras_sasa.ops.local_attention import portable
from tests.support.backend import (
    BACKEND,
    MODES,
    gradients_of_gradients,
    value_and_gradients,
)
from tests.support.parameters import large_on_jax, product

CHANNELS = 3
TOLERANCE = {"rtol": 3e-5, "atol": 3e-5}


@pytest.fixture
def fused_calls(monkeypatch):
    """The names of the functions that called the fused operation."""
    calls = []
    for name in ("normalize_by_batch", "normalize_by_statistics"):

        def record(*arguments, name=name, function=None):
            calls.append(name)
            return function(*arguments)

        original = getattr(batch_normalization, name)
        monkeypatch.setattr(
            batch_normalization,
            name,
            functools.partial(record, function=original),
        )
    return calls


def pair(channels=CHANNELS, axis=-1, rank=4, **options):
    """Our layer and Keras' with the same, random weights."""
    made = []
    for layer_class in (BatchNormalization, keras.layers.BatchNormalization):
        layer = layer_class(axis=axis, **options)
        shape = [None] * rank
        shape[axis] = channels
        layer.build(tuple(shape))
        random = np.random.default_rng(0)
        for weight in layer.weights:
            weight.assign(random.uniform(0.5, 2.0, weight.shape))
        made.append(layer)
    return made


def maps(*shape):
    return np.random.default_rng(1).normal(3, 2, shape).astype("float32")


def statistics(layer):
    return [keras.ops.convert_to_numpy(w) for w in layer.non_trainable_weights]


def check_same(ours, theirs, inputs, training=True, mode=MODES[0], **call):
    """Compares values, gradients and moving statistics."""
    cotangent = np.random.default_rng(2).normal(size=inputs.shape)
    results = [
        value_and_gradients(
            layer, inputs, cotangent, mode=mode, training=training, **call
        )
        for layer in (ours, theirs)
    ]
    scale = max(1.0, np.abs(results[1].outputs).max(initial=0))
    for one, other in zip(
        [results[0].outputs, *statistics(ours)],
        [results[1].outputs, *statistics(theirs)],
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=3e-5, atol=3e-5 * scale)
    for name, gradient in results[1].gradients.items():
        if not inputs.size:
            # Keras' gradients are NaN or 0.
            continue
        bound = max(1.0, np.abs(gradient).max(initial=0))
        np.testing.assert_allclose(
            results[0].gradients[name],
            gradient,
            rtol=3e-5,
            atol=3e-5 * bound,
            err_msg=name,
        )


# Shapes, arguments of the layer and of its call.
FUSED = {
    "default": ((2, 5, 7, CHANNELS), {}),
    "one_pixel": ((1, 1, 1, CHANNELS), {}),
    "no_images": ((0, 4, 4, CHANNELS), {}),
    "no_scale": ((2, 3, 4, CHANNELS), {"scale": False}),
    "no_center": ((2, 3, 4, CHANNELS), {"center": False, "momentum": 0.5}),
    "axis_3": ((2, 3, 4, CHANNELS), {"axis": 3, "epsilon": 1e-7}),
    "frozen": ((2, 3, 4, CHANNELS), {"trainable": False}),
}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's operation")
@pytest.mark.parametrize(
    "name, mode, training",
    product(
        FUSED,
        MODES,
        [True, False],
        quick=lambda name, mode, training: (
            mode == MODES[0] or (name == "default" and training)
        ),
    ),
)
def test_fused(name, mode, training, fused_calls):
    shape, options = FUSED[name]
    ours, theirs = pair(**options)
    check_same(ours, theirs, maps(*shape), training, mode)
    batch = training and name != "frozen"
    assert set(fused_calls) == {
        "normalize_by_batch" if batch else "normalize_by_statistics"
    }


ALONE = {
    "mask": ({}, {"mask": np.arange(24).reshape(2, 3, 4) % 3 > 0}),
    "axis_1": ({"axis": 1}, {}),
    "float64": ({"dtype": "float64"}, {}),
    "renorm": ({"renorm": True}, {}),
}
if BACKEND == "tensorflow":
    ALONE["synchronized"] = ({"synchronized": True}, {})


@pytest.mark.large_on_jax
@pytest.mark.parametrize("name", ALONE)
def test_keras_code_elsewhere(name, fused_calls):
    options, call = ALONE[name]
    if name == "axis_1":
        ours, theirs = pair(axis=1)
    else:
        ours, theirs = pair(**options)
    inputs = maps(2, 3, 4, CHANNELS)
    if name == "axis_1":
        inputs = inputs.transpose(0, 3, 1, 2)
    check_same(ours, theirs, inputs, **call)
    assert not fused_calls


@pytest.mark.parametrize("rank", [2, large_on_jax(3), large_on_jax(5)])
def test_other_ranks(rank, fused_calls):
    ours, theirs = pair(rank=rank)
    check_same(ours, theirs, maps(*range(2, rank + 1), CHANNELS))
    assert not fused_calls


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's operation")
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_types(dtype, fused_calls):
    """Computed in float32, and rounded as often as in Keras' layer."""
    ours, theirs = pair(dtype=dtype)
    inputs = maps(2, 5, 7, CHANNELS)
    cotangent = np.random.default_rng(2).normal(size=inputs.shape)
    results = [
        value_and_gradients(
            layer,
            keras.ops.convert_to_numpy(
                keras.ops.cast(inputs, layer.compute_dtype)
            ),
            cotangent,
            training=True,
        )
        for layer in (ours, theirs)
    ]
    rounding = {"rtol": 2**-7, "atol": 2**-7}
    for name, tolerance in (
        ("inputs", rounding),
        ("gamma", TOLERANCE),
        ("beta", TOLERANCE),
    ):
        one, other = (
            np.asarray(result.gradients[name], "float32") for result in results
        )
        np.testing.assert_allclose(one, other, **tolerance)
    one, other = (np.asarray(r.outputs, "float32") for r in results)
    np.testing.assert_allclose(one, other, **rounding)
    assert results[0].outputs.dtype == results[1].outputs.dtype
    for one, other in zip(statistics(ours), statistics(theirs), strict=True):
        np.testing.assert_allclose(one, other, **TOLERANCE)
    assert fused_calls


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's operation")
def test_inputs_of_another_type(fused_calls):
    ours, theirs = pair(autocast=False)
    inputs = keras.ops.cast(maps(2, 5, 7, CHANNELS), "bfloat16")
    outputs, expected = (
        layer(inputs, training=True) for layer in (ours, theirs)
    )
    assert outputs.dtype == expected.dtype == "float32"
    np.testing.assert_array_equal(outputs, expected)
    assert not fused_calls


def test_maps_far_from_zero():
    """Sums of squares would cancel; no result is less exact than Keras'."""
    inputs = maps(2, 8, 8, CHANNELS) + np.float32(1000)
    layers = [*pair(), pair(dtype="float64")[1]]
    cotangent = np.random.default_rng(2).normal(size=inputs.shape)
    results = []
    for layer in layers:
        result = value_and_gradients(
            layer, inputs, cotangent, mode=MODES[0], training=True
        )
        results.append(
            [
                result.outputs,
                *statistics(layer),
                *(result.gradients[name] for name in sorted(result.gradients)),
            ]
        )
    for ours, theirs, exact in zip(*results, strict=True):
        bound = 3e-5 * max(1, np.abs(exact).max())
        error = np.abs(ours - exact).max()
        assert error <= bound + 2 * np.abs(theirs - exact).max()


def test_gradients_of_gradients():
    """Against the formula: Keras' are wrong on TensorFlow.

    Its moments stop the gradient of the mean inside of the variance.
    """
    layer = BatchNormalization()
    inputs = maps(2, 3, 4, CHANNELS)
    layer.build(inputs.shape)

    def ours(x):
        with keras.StatelessScope():
            return keras.ops.sin(layer(x, training=True))

    def formula(x):
        x = x - keras.ops.mean(x, (0, 1, 2))
        variance = keras.ops.mean(x * x, (0, 1, 2))
        return keras.ops.sin(x / keras.ops.sqrt(variance + layer.epsilon))

    (actual,), (expected,) = (
        gradients_of_gradients(function, [inputs])
        for function in (ours, formula)
    )
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_nan_and_infinity_stay_where_they_are(number):
    inputs = maps(2, 3, 4, CHANNELS)
    inputs[0, 1, 2, 1] = number
    for layer in pair():
        outputs = keras.ops.convert_to_numpy(layer(inputs, training=False))
        finite = np.isfinite(outputs)
        assert not finite[0, 1, 2, 1] and finite.sum() == finite.size - 1
        outputs = keras.ops.convert_to_numpy(layer(inputs, training=True))
        assert np.isnan(outputs[..., 1]).all()
        assert np.isfinite(outputs[..., [0, 2]]).all()


def test_exported_files_contain_what_keras_computes(fused_calls):
    ours, theirs = pair()
    inputs = maps(2, 3, 4, CHANNELS)
    with portable():
        np.testing.assert_array_equal(ours(inputs), theirs(inputs))
    assert not fused_calls


def test_it_is_keras_layer_in_files(tmp_path):
    """Config and weights are Keras'; a model of Keras' layer still loads."""
    ours, theirs = pair(name="normalization", epsilon=1e-4, center=False)
    assert ours.get_config() == theirs.get_config()
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    models = []
    for layer in (ours, theirs):
        inputs = keras.Input((4, 5, CHANNELS))
        models.append(keras.Model(inputs, layer(inputs)))
        models[-1].save(tmp_path / f"{type(layer).__module__}.keras")
        models[-1].save_weights(tmp_path / f"{len(models)}.weights.h5")
    for model, layer in zip(models, (ours, theirs), strict=True):
        loaded = keras.models.load_model(
            tmp_path / f"{type(layer).__module__}.keras"
        )
        assert type(loaded.layers[1]) is type(layer)
        images = maps(2, 4, 5, CHANNELS)
        np.testing.assert_array_equal(loaded(images), model(images))
    ours.set_weights([weight + 1 for weight in ours.get_weights()])
    models[0].load_weights(tmp_path / "2.weights.h5")
    for one, other in zip(
        ours.get_weights(), theirs.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
