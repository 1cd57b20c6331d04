"""Neighborhood attention: its numbers, and the layer as Keras knows it."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase

from keras_sasa import NeighborhoodAttention2D, local_attention
from tests.support import oracle
from tests.support.backend import BACKEND, MODES, value_and_gradients
from tests.support.config import assert_config_complete
from tests.support.layer_case import LayerCase
from tests.support.parameters import in_turn, large, large_on_jax, product

IMAGES = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype("float32")
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}


@dataclasses.dataclass(frozen=True)
class Case(LayerCase):
    channels: int = 4

    layer_class = NeighborhoodAttention2D
    defaults = {"num_heads": 2, "kernel_size": 3}

    def oracle(self, arrays):
        weights = dict(arrays)
        inputs = weights.pop("inputs")
        arguments = self.layer_arguments
        arguments.pop("use_bias", None)
        return oracle.neighborhood_attention(inputs, weights, **arguments)


CASES = {
    "default": Case(6, 7),
    "as_large_as_the_window": Case(3, 3),
    "smaller_than_the_window": Case(2, 4, {"kernel_size": (5, 3)}),
    "one_pixel": Case(1, 1),
    "window_1": Case(3, 4, {"kernel_size": 1}),
    "window_11": Case(
        12, 11, {"kernel_size": 11, "num_heads": 1}, channels=2, batch=1
    ),
    "rectangular_window": Case(8, 6, {"kernel_size": (3, 5)}),
    "dilation": Case(8, 6, {"dilation_rate": 2}),
    "dilation_that_does_not_divide": Case(11, 7, {"dilation_rate": (3, 2)}),
    "dilation_of_window_5": Case(
        12, 5, {"kernel_size": (5, 3), "dilation_rate": (2, 1)}, batch=1
    ),
    "dilation_wider_than_the_image": Case(5, 4, {"dilation_rate": 3}),
    "channels_first": Case(5, 6, {"data_format": "channels_first"}),
    "one_head": Case(5, 4, {"num_heads": 1}),
    "no_bias": Case(5, 4, {"use_bias": False}),
    "smaller_without_bias": Case(2, 2, {"use_bias": False}),
    # Several tiles, and several bands of the tiled computation.
    "many_bands": Case(37, 4, batch=1),
    "many_bands_dilation": Case(75, 4, {"dilation_rate": (2, 1)}, batch=1),
}
# Those that compile to something different.
COMPILED = (
    "smaller_than_the_window",
    "dilation_that_does_not_divide",
    "many_bands",
)


@functools.cache
def reference(name):
    return CASES[name].reference()


def in_every_mode(complete, *compiled):
    """Parameters: one implementation runs all cases in the quick run.

    Args:
        complete: Its name. The other one runs the first case.
        *compiled: Cases that the quick run compiles, with tiles.
    """
    quick = in_turn(MODES[1:] or MODES, compiled)
    return pytest.mark.parametrize(
        "implementation, mode, name",
        product(
            ("tiled", "patches"),
            MODES,
            CASES,
            quick=lambda implementation, mode, name: (
                (mode == "eager" and implementation == complete)
                or (mode == "eager" and name == "default")
                or (implementation == "tiled" and (mode, name) in quick)
            ),
        ),
    )


# Patches compute the same with scores, which are the next test.
@in_every_mode("tiled", *COMPILED)
def test_values_and_gradients(implementation, mode, name):
    case, expected = CASES[name], reference(name)
    layer = case.make_layer(implementation=implementation)
    cotangent, _ = expected.cotangents()
    result = value_and_gradients(
        layer, case.make_inputs(), cotangent, mode=mode
    )
    np.testing.assert_allclose(result.outputs, expected.outputs, **TOLERANCE)
    expected.check_gradients(result.gradients, cotangent)


@in_every_mode("patches", "smaller_than_the_window")
def test_scores_and_their_gradients(implementation, mode, name):
    case, expected = CASES[name], reference(name)
    layer = case.make_layer(implementation=implementation)
    cotangents = expected.cotangents()
    result = value_and_gradients(
        layer, case.make_inputs(), *cotangents, mode=mode
    )
    np.testing.assert_allclose(result.outputs, expected.outputs, **TOLERANCE)
    np.testing.assert_allclose(result.scores, expected.scores, **TOLERANCE)
    expected.check_gradients(result.gradients, *cotangents)


def native_compiles_differently(training, mode, name):
    """Whether the quick run computes a case with the kernel."""
    if not training:  # The windows are the same, and biases are added later.
        projected = "default", "smaller_than_the_window", "no_bias"
        return mode == MODES[0] and name in projected
    compiled = in_turn(MODES[1:] or MODES, COMPILED)
    return mode == "eager" or (mode, name) in compiled


@pytest.mark.parametrize(
    "training, mode, name",
    product([True, False], MODES, CASES, quick=native_compiles_differently),
)
def test_native_values_and_gradients(native_calls, training, mode, name):
    case, expected = CASES[name], reference(name)
    layer = case.make_layer("float32", implementation="native")
    cotangent, _ = expected.cotangents()
    result = value_and_gradients(
        layer, case.make_inputs(), cotangent, mode=mode, training=training
    )
    # The gradient of a call that projects calls the kernel once more.
    assert len(native_calls) == (1 if training else 2)
    near = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(result.outputs, expected.outputs, **near)
    expected.check_gradients(result.gradients, cotangent, **near)


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", large_on_jax("mixed_float16")]
)
def test_native_in_half_precision(native_calls, policy):
    case, expected = CASES["default"], reference("default")
    layer = case.make_layer(policy, implementation="native")
    for training in (False, True):
        outputs = layer(case.make_inputs(), training=training)
        assert keras.backend.standardize_dtype(outputs.dtype) == (
            layer.compute_dtype
        )
        actual = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
        np.testing.assert_allclose(actual, expected.outputs, atol=0.1)
    assert len(native_calls) == 2


@pytest.mark.large_on_jax
@pytest.mark.parametrize("border", ["mask", large("shift")])
def test_native_position_bias(native_available, border):
    """The kernel knows each border without biases, and masks with them."""
    layer = CASES["default"].make_layer("float32")
    images = IMAGES[..., :2]
    offsets = 3 if border == "mask" else 5

    def run(implementation, biased):
        def attend(inputs):
            bias = layer.position_bias[:, :offsets, :offsets]
            return local_attention.local_attention(
                *(factor * inputs for factor in (1, 2, 3)),
                kernel_size=3,
                num_heads=2,
                border=border,
                position_bias=bias if biased else None,
                scale=0.5,
                implementation=implementation,
            )

        return value_and_gradients(layer, images, images, function=attend)

    for biased in (False, True):
        actual, expected = run("native", biased), run("patches", biased)
        near = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(actual.outputs, expected.outputs, **near)
        for name, gradient in expected.gradients.items():
            np.testing.assert_allclose(
                actual.gradients[name], gradient, **near, err_msg=name
            )


def test_native_keeps_nan_in_its_windows(native_calls):
    layer = CASES["default"].make_layer("float32", implementation="native")
    images = IMAGES.copy()
    images[0, 7, 0, 1] = np.nan
    result = value_and_gradients(layer, images, IMAGES)
    # The pixels whose windows contain it.
    outputs, gradient = result.outputs, result.gradients["inputs"]
    expected = np.zeros(IMAGES.shape, bool)
    expected[0, 6:, :2] = True
    np.testing.assert_array_equal(np.isnan(outputs), expected)
    # Gradients of the other image, and of pixels that share no window with it.
    assert np.isfinite(gradient[1]).all()
    assert np.isfinite(gradient[0, :5]).all()
    assert np.isfinite(gradient[0, :, 4:]).all()


def test_every_pixel_has_the_same_neighbors_in_the_corner():
    """What the window of a corner contains, written down."""
    layer = NeighborhoodAttention2D(1, 3)
    layer.build((1, 4, 5, 2))
    layer.position_bias.assign(np.arange(25.0).reshape(1, 5, 5))
    layer.query_kernel.assign(np.zeros((2, 2)))
    _, scores = layer(np.zeros((1, 4, 5, 2)), return_attention_scores=True)
    logits = np.log(keras.ops.convert_to_numpy(scores)[0, :, :, 0])
    # The top left pixel sees itself and what is below and to the right.
    offsets = logits - logits[..., :1, :1]
    np.testing.assert_allclose(
        offsets[0, 0], [[0, 1, 2], [5, 6, 7], [10, 11, 12]], atol=1e-4
    )
    # Differences are the same everywhere; the first entries are not.
    np.testing.assert_allclose(
        offsets, np.broadcast_to(offsets[0, 0], offsets.shape), atol=1e-4
    )


@pytest.mark.parametrize(
    "arguments, weights, seeds",
    [
        ({}, 9, 0),
        large_on_jax({"dilation_rate": 2, "use_bias": False}, 5, 0),
        large_on_jax({"attention_dropout": 0.2, "dropout": 0.1}, 9, 1),
    ],
    ids=["default", "dilation", "dropout"],
)
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_as_a_keras_layer(arguments, weights, seeds):
    TestCase().run_layer_test(
        NeighborhoodAttention2D,
        {"num_heads": 2, "kernel_size": 3, **arguments},
        input_shape=IMAGES.shape,
        expected_output_shape=IMAGES.shape,
        expected_num_trainable_weights=weights,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=seeds,
        expected_num_losses=0,
        supports_masking=False,
    )


def test_config_holds_every_argument():
    assert_config_complete(
        NeighborhoodAttention2D,
        num_heads=3,
        kernel_size=(3, 5),
        dilation_rate=(2, 1),
        use_bias=False,
        attention_dropout=0.25,
        dropout=0.5,
        data_format="channels_first",
        implementation="patches",
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        embedding_initializer=keras.initializers.RandomNormal(0.0, 0.5, 2),
        bias_initializer=keras.initializers.Constant(0.5),
        kernel_regularizer=keras.regularizers.L2(0.1),
        embedding_regularizer=keras.regularizers.L2(0.2),
        bias_regularizer=keras.regularizers.L2(0.3),
        activity_regularizer=keras.regularizers.L2(0.4),
        kernel_constraint=keras.constraints.MaxNorm(1),
        embedding_constraint=keras.constraints.MaxNorm(2),
        bias_constraint=keras.constraints.MaxNorm(3),
        seed=11,
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16", "float64"])
def test_precision(policy):
    case = CASES["default"]
    layer = case.make_layer(dtype=policy)
    outputs, scores = layer(case.make_inputs(), return_attention_scores=True)
    expected = reference("default")
    tolerance = 1e-9 if policy == "float64" else 0.1
    for actual, wanted in (
        (outputs, expected.outputs),
        (scores, expected.scores),
    ):
        assert keras.backend.standardize_dtype(actual.dtype) == (
            layer.compute_dtype
        )
        actual = keras.ops.convert_to_numpy(keras.ops.cast(actual, "float64"))
        np.testing.assert_allclose(actual, wanted, atol=tolerance)


def test_dropouts_keep_the_mean_and_are_of_training_alone():
    """Half of the weights, then half of the outputs."""
    plain = NeighborhoodAttention2D(1, 5, bias_initializer="ones")
    plain.build((1, 10, 10, 8))
    ones = np.ones((64, 10, 10, 8), "float32")
    for options in ({"attention_dropout": 0.5}, {"dropout": 0.5}):
        layer = NeighborhoodAttention2D(1, 5, seed=3, **options)
        layer.build((1, 10, 10, 8))
        layer.set_weights([*plain.get_weights(), *layer.get_weights()[9:]])
        expected = keras.ops.convert_to_numpy(plain(ones))
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(layer(ones)), expected, rtol=1e-5
        )
        dropped = keras.ops.convert_to_numpy(layer(ones, training=True))
        assert np.std(dropped) > 0.01
        np.testing.assert_allclose(
            dropped.mean((0, 1, 2)), expected.mean((0, 1, 2)), rtol=0.05
        )
        if "dropout" in options:
            assert np.mean(dropped == 0) == pytest.approx(0.5, abs=0.02)


def test_symbolic_call_with_unknown_sizes():
    images = keras.Input((None, None, 4))
    layer = NeighborhoodAttention2D(2, 3, dilation_rate=2)
    outputs, scores = layer(images, return_attention_scores=True)
    assert outputs.shape == (None, None, None, 4)
    assert scores.shape == (None, None, None, 2, 3, 3)
    model = keras.Model(images, [outputs, scores])
    # The last is smaller than a window.
    for size in ((9, 8), (6, 7), (2, 5)):
        inputs = np.random.default_rng(0).normal(size=(3, *size, 4))
        results = model.predict(inputs, verbose=0)
        expected = layer(inputs, return_attention_scores=True)
        for actual, wanted in zip(results, expected, strict=True):
            assert actual.shape[:3] == (3, *size)
            np.testing.assert_allclose(
                actual, keras.ops.convert_to_numpy(wanted), atol=1e-5
            )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kernel_size": 4}, "`kernel_size` must be odd"),
        ({"num_heads": 0}, "`num_heads` must be a positive integer"),
        ({"dilation_rate": 0}, "`dilation_rate` must be a positive integer or"),
        ({"dropout": 1}, r"`dropout` must be a number in \[0, 1\).*=1"),
        ({"attention_dropout": -1}, "`attention_dropout` must be a number in"),
        ({"implementation": "magic"}, "`implementation` must be one of"),
        ({"data_format": "last"}, "`data_format` must be one of"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeighborhoodAttention2D(**{"num_heads": 2, **arguments})


def test_wrong_channels():
    with pytest.raises(ValueError, match="multiple of `num_heads`.*=3"):
        NeighborhoodAttention2D(3)(IMAGES)


def test_function():
    """The pure function behind the layer, with the weights of a layer."""
    case = CASES["dilation_that_does_not_divide"]
    layer = case.make_layer(use_bias=False)
    layer.output_kernel.assign(np.eye(4))
    images = case.make_inputs()
    query, key, value = (
        images @ keras.ops.convert_to_numpy(getattr(layer, f"{name}_kernel"))
        for name in ("query", "key", "value")
    )
    options = {
        "kernel_size": 3,
        "num_heads": 2,
        "dilation_rate": (3, 2),
        "border": "shift",
    }
    position_bias = keras.ops.convert_to_numpy(layer.position_bias)
    outputs = local_attention.local_attention(
        query,
        key,
        value,
        position_bias=position_bias,
        scale=0.5**0.5,
        **options,
    )
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(outputs),
        keras.ops.convert_to_numpy(layer(images)),
        **TOLERANCE,
    )
    for changes, message in (
        (
            {"strides": 2, "dilation_rate": 1},
            'needs `strides=1` and `padding="same"`',
        ),
        ({"padding": "valid"}, "needs `strides=1`"),
        ({"border": "wrap"}, "`border` must be one of"),
        ({"kernel_size": 5}, "= 15 pixels or more .*a height of 11"),
        ({"position_bias": position_bias[:, 1:]}, "`position_bias` must have"),
        ({"row_embedding": query}, "takes the place of `row_embedding`"),
    ):
        arguments = {"position_bias": position_bias, **options, **changes}
        with pytest.raises(ValueError, match=message):
            local_attention.local_attention(query, key, value, **arguments)


def test_embeddings_of_windows_that_move():
    """Twice as many offsets; a bias is a product with a query of ones."""
    random = np.random.default_rng(0)
    query = np.ones((1, 5, 6, 4))
    key, value = random.normal(size=(2, 1, 5, 6, 4))
    rows, columns = random.normal(size=(2, 5, 2, 1))
    options = {"kernel_size": 3, "num_heads": 2, "border": "shift"}
    bias = rows[:, None, :, 0] + columns[None, :, :, 0]
    np.testing.assert_allclose(
        *(
            keras.ops.convert_to_numpy(
                local_attention.local_attention(
                    query, key, value, **embeddings, **options
                )
            )
            for embeddings in (
                {"row_embedding": rows, "column_embedding": columns},
                {"position_bias": bias.transpose(2, 0, 1)},
            )
        ),
        **TOLERANCE,
    )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a feature of TensorFlow")
def test_images_too_small_for_the_function_in_a_graph():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 4))])
    def attend(images):
        return local_attention.local_attention(
            *[images] * 3,
            kernel_size=3,
            num_heads=2,
            border="shift",
            implementation="patches",  # It compiles fastest.
        )

    assert attend(tf.ones((1, 3, 4, 4))).shape == (1, 3, 4, 4)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"height of \] \[2\]"
    ):
        attend(tf.ones((1, 2, 4, 4)))
