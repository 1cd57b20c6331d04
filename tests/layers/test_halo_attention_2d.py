"""Halo attention: its numbers, and the layer as Keras knows it."""

import functools

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase

from keras_sasa import HaloAttention2D
from tests.support import oracle
from tests.support.backend import BACKEND, MODES, value_and_gradients
from tests.support.config import assert_config_complete
from tests.support.layer_case import LayerCase
from tests.support.parameters import in_turn, large_on_jax, product

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}


class Case(LayerCase):
    layer_class = HaloAttention2D
    defaults = {"filters": 4, "num_heads": 2, "block_size": 2, "halo_size": 1}

    def oracle(self, arrays):
        weights = dict(arrays)
        inputs = weights.pop("inputs")
        arguments = self.layer_arguments
        for name in ("filters", "key_filters"):
            arguments.pop(name, None)
        return oracle.halo_attention(inputs, weights, **arguments)


CASES = {
    "default": Case(4, 6),
    "one_block": Case(2, 2),
    "one_pixel_blocks": Case(2, 3, {"block_size": 1, "halo_size": 2}),
    "no_halo": Case(4, 4, {"halo_size": 0}),
    "halo_of_a_block": Case(4, 2, {"halo_size": 2}),
    "halo_wider_than_the_image": Case(2, 4, {"halo_size": 5}, batch=1),
    "narrow_keys": Case(4, 4, {"filters": 6, "key_filters": 2}),
    "wide_keys": Case(2, 4, {"filters": 2, "key_filters": 6}),
    "one_head": Case(2, 4, {"num_heads": 1}),
    "strides": Case(8, 4, {"block_size": 4, "strides": 2}),
    "strides_of_a_block": Case(4, 6, {"strides": 2}),
    "odd_blocks": Case(3, 6, {"block_size": 3}, batch=1),
    # An average follows, which drops the last row of 9.
    "strides_odd_blocks": Case(9, 6, {"block_size": 3, "strides": 2}, batch=1),
    "channels_first": Case(4, 6, {"data_format": "channels_first"}),
    "channels_first_strides": Case(
        6, 3, {"data_format": "channels_first", "block_size": 3, "strides": 2}
    ),
}
# Those that compile to something different.
COMPILED = ("default", "strides_odd_blocks", "halo_of_a_block", "strides")


@functools.cache
def reference(name):
    return CASES[name].reference()


@pytest.mark.parametrize(
    "mode, name",
    product(
        MODES,
        CASES,
        quick=lambda mode, name: (
            mode == MODES[0]
            or (mode, name) in in_turn(MODES[1:] or MODES, COMPILED)
        ),
    ),
)
def test_values_scores_and_gradients(mode, name):
    case, expected = CASES[name], reference(name)
    cotangents = expected.cotangents()
    result = value_and_gradients(
        case.make_layer(), case.make_inputs(), *cotangents, mode=mode
    )
    np.testing.assert_allclose(result.outputs, expected.outputs, **TOLERANCE)
    np.testing.assert_allclose(result.scores, expected.scores, **TOLERANCE)
    expected.check_gradients(result.gradients, *cotangents)


def test_what_a_block_sees():
    """The window of every query, written down."""
    layer = HaloAttention2D(1, 1, block_size=2, halo_size=1)
    layer.build((1, 4, 4, 1))
    layer.query_kernel.assign([[1]])
    layer.key_kernel.assign([[0]])
    layer.row_embedding.assign(np.arange(7.0)[:, None])
    layer.column_embedding.assign(10 * np.arange(7.0)[:, None])
    _, scores = layer(np.ones((1, 4, 4, 1)), return_attention_scores=True)
    logits = np.log(keras.ops.convert_to_numpy(scores)[0, :, :, 0])
    rows = np.arange(4)
    for i in range(4):
        for j in range(4):
            # Positions alone: softmax and the place in a block shift them.
            expected = rows[:, None] + 10.0 * rows
            actual = logits[i, j] - logits[i, j, 0, 0]
            np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, output_shape, seeds",
    [
        ({}, (2, 4, 6, 4), 0),
        large_on_jax(
            {"strides": 2, "key_filters": 2, "dropout": 0.2}, (2, 2, 3, 4), 1
        ),
    ],
    ids=["default", "strides"],
)
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_as_a_keras_layer(arguments, output_shape, seeds):
    TestCase().run_layer_test(
        HaloAttention2D,
        {**CASES["default"].layer_arguments, **arguments},
        input_shape=(2, 4, 6, 3),
        expected_output_shape=output_shape,
        expected_num_trainable_weights=5,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=seeds,
        expected_num_losses=0,
        supports_masking=False,
    )


def test_config_holds_every_argument():
    assert_config_complete(
        HaloAttention2D,
        filters=6,
        num_heads=2,
        block_size=3,
        halo_size=2,
        strides=2,
        key_filters=4,
        dropout=0.25,
        data_format="channels_first",
        implementation="patches",
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        embedding_initializer=keras.initializers.RandomNormal(0.0, 0.5, 2),
        kernel_regularizer=keras.regularizers.L2(0.1),
        embedding_regularizer=keras.regularizers.L2(0.2),
        activity_regularizer=keras.regularizers.L2(0.4),
        kernel_constraint=keras.constraints.MaxNorm(1),
        embedding_constraint=keras.constraints.MaxNorm(2),
        seed=11,
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16", "float64"])
def test_precision(policy):
    case, expected = CASES["default"], reference("default")
    layer = case.make_layer(dtype=policy)
    results = layer(case.make_inputs(), return_attention_scores=True)
    tolerance = 1e-9 if policy == "float64" else 0.1
    for actual, wanted in zip(
        results, (expected.outputs, expected.scores), strict=True
    ):
        assert keras.backend.standardize_dtype(actual.dtype) == (
            layer.compute_dtype
        )
        actual = keras.ops.convert_to_numpy(keras.ops.cast(actual, "float64"))
        np.testing.assert_allclose(actual, wanted, atol=tolerance)


def test_dropout_keeps_the_mean_and_is_of_training_alone():
    plain = HaloAttention2D(4, 2, 2, 1)
    plain.build((1, 4, 4, 4))
    layer = HaloAttention2D(4, 2, 2, 1, dropout=0.5, seed=3)
    layer.build((1, 4, 4, 4))
    layer.set_weights([*plain.get_weights(), *layer.get_weights()[5:]])
    ones = np.ones((256, 4, 4, 4), "float32")
    expected = keras.ops.convert_to_numpy(plain(ones))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(ones)), expected, rtol=1e-5
    )
    dropped, scores = layer(ones, training=True, return_attention_scores=True)
    dropped = keras.ops.convert_to_numpy(dropped)
    assert np.std(dropped - expected) > 0.01
    np.testing.assert_allclose(dropped.mean(0), expected[0], atol=0.1)
    # The scores are those before the dropout.
    scores = keras.ops.convert_to_numpy(scores)
    np.testing.assert_allclose(scores.sum((-1, -2)), 1, rtol=1e-5)


def test_symbolic_call_with_unknown_sizes():
    images = keras.Input((None, None, 4))
    layer = HaloAttention2D(6, 2, 3, 1, strides=2)
    outputs, scores = layer(images, return_attention_scores=True)
    assert outputs.shape == (None, None, None, 6)
    assert scores.shape == (None, None, None, 2, 5, 5)
    model = keras.Model(images, [outputs, scores])
    for size in ((9, 3), (6, 6)):
        inputs = np.random.default_rng(0).normal(size=(3, *size, 4))
        results = model.predict(inputs, verbose=0)
        expected = layer(inputs, return_attention_scores=True)
        assert results[0].shape == (3, size[0] // 2, size[1] // 2, 6)
        assert results[1].shape == (3, *size, 2, 5, 5)
        for actual, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(
                actual, keras.ops.convert_to_numpy(wanted), atol=1e-5
            )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"filters": 0}, "`filters` must be a positive integer"),
        ({"filters": 5}, "`filters` must be a multiple of `num_heads`.*=5"),
        ({"key_filters": 3}, "`key_filters` must be a multiple of.*=3"),
        ({"num_heads": 0}, "`num_heads` must be a positive integer"),
        ({"block_size": 2.5}, "`block_size` must be a positive integer"),
        ({"halo_size": -1}, "`halo_size` must be a non-negative integer.*-1"),
        ({"strides": (2, 2)}, "`strides` must be a positive integer"),
        ({"dropout": 1}, r"`dropout` must be a number in \[0, 1\).*=1"),
        ({"implementation": "magic"}, "`implementation` must be one of"),
        ({"data_format": "last"}, "`data_format` must be one of"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        HaloAttention2D(**{"filters": 4, "num_heads": 2, **arguments})


def test_blocks_must_divide_the_image():
    layer = HaloAttention2D(4, 2, 4, 1)
    message = r"multiples of `block_size`, 4\. Received: .* \(8, 6\)"
    with pytest.raises(ValueError, match=message):
        layer(np.ones((1, 8, 6, 3)))
    with pytest.raises(ValueError, match=message):
        layer.compute_output_shape((None, 8, 6, 3))
    layer(np.ones((1, 8, 4, 3)))
    with pytest.raises(ValueError, match=message):
        layer(np.ones((1, 8, 6, 3)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a feature of TensorFlow")
def test_blocks_must_divide_the_image_of_a_graph():
    import tensorflow as tf

    layer = HaloAttention2D(4, 2, 2, 1)
    attend = tf.function(
        layer, input_signature=[tf.TensorSpec((1, None, None, 3))]
    )
    assert attend(tf.ones((1, 4, 2, 3))).shape == (1, 4, 2, 4)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"a width of \] \[4\] \[3\]"
    ):
        attend(tf.ones((1, 4, 3, 3)))
