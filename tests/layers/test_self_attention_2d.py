"""The layer as Keras knows it; its numbers are in test_local_attention.py."""

import itertools
import re

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase

from keras_sasa import SelfAttention2D
from tests.support.config import assert_config_complete
from tests.support.parameters import large, large_on_jax

IMAGES = np.random.default_rng(0).normal(size=(2, 9, 8, 5)).astype("float32")


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


# The helper of Keras hands `fit` a generator; `fit` warns of its own default.
ignore_shuffle = pytest.mark.filterwarnings(
    "ignore:`shuffle=True` was passed:UserWarning"
)


@ignore_shuffle
@pytest.mark.parametrize(
    "arguments, output_shape, weights, seeds",
    [
        ({}, (2, 9, 8, 8), 5, 0),
        large_on_jax({"strides": 2, "use_bias": True}, (2, 5, 4, 8), 8, 0),
        large_on_jax(
            {"padding": "valid", "position_encoding": None}, (2, 7, 6, 8), 3, 0
        ),
        large_on_jax(
            {"dilation_rate": (1, 2), "use_content": False}, (2, 9, 8, 8), 4, 0
        ),
        large_on_jax(
            {"dropout": 0.1, "implementation": "patches"}, (2, 9, 8, 8), 5, 1
        ),
        large_on_jax({"position_encoding": "absolute"}, (2, 9, 8, 8), 3, 0),
    ],
    ids=["default", "strides", "valid", "dilation", "dropout", "absolute"],
)
def test_as_a_keras_layer(arguments, output_shape, weights, seeds):
    TestCase().run_layer_test(
        SelfAttention2D,
        {"filters": 8, "kernel_size": 3, "num_heads": 2, **arguments},
        input_shape=IMAGES.shape,
        expected_output_shape=output_shape,
        expected_num_trainable_weights=weights,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=seeds,
        expected_num_losses=0,
        supports_masking=True,
    )


@pytest.mark.large_on_jax
@ignore_shuffle
def test_as_a_keras_layer_with_losses():
    TestCase().run_layer_test(
        SelfAttention2D,
        {
            "filters": 8,
            "kernel_size": 3,
            "num_heads": 2,
            "use_bias": True,
            "kernel_regularizer": "l2",
            "embedding_regularizer": "l2",
            "bias_regularizer": "l2",
            "activity_regularizer": "l2",
        },
        input_shape=IMAGES.shape,
        expected_num_losses=9,
        supports_masking=True,
    )


def test_config_holds_every_argument():
    assert_config_complete(
        SelfAttention2D,
        at_default=("use_content", "dilation_rate"),
        filters=6,
        kernel_size=(3, 5),
        num_heads=3,
        strides=(2, 1),
        padding="valid",
        dilation_rate=1,
        data_format="channels_first",
        activation="relu",
        position_encoding="absolute",
        use_content=True,
        use_bias=True,
        dropout=0.25,
        implementation="patches",
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        value_initializer=keras.initializers.RandomNormal(0.0, 0.01, 3),
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


def test_config_holds_what_excludes_each_other():
    layer = SelfAttention2D(
        8, 3, num_heads=2, dilation_rate=(2, 3), use_content=False
    )
    config = layer.get_config()
    assert config["dilation_rate"] == (2, 3)
    assert config["use_content"] is False
    again = SelfAttention2D.from_config(config)
    assert again.get_config() == config


@pytest.mark.large_on_jax
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_activation(data_format):
    """Last of all; of the outputs alone, and along the axis of `Conv2D`."""
    options = {"num_heads": 2, "use_bias": True, "data_format": data_format}
    plain = SelfAttention2D(8, 3, bias_initializer="ones", **options)
    layer = SelfAttention2D(8, 3, activation="softmax", **options)
    plain.build(IMAGES.shape)
    layer.build(IMAGES.shape)
    layer.set_weights(plain.get_weights())
    expected, expected_scores = plain(IMAGES, return_attention_scores=True)
    outputs, scores = layer(IMAGES, return_attention_scores=True)
    np.testing.assert_array_equal(to_numpy(scores), to_numpy(expected_scores))
    for actual in (outputs, layer(IMAGES)):
        np.testing.assert_allclose(
            to_numpy(actual),
            to_numpy(keras.ops.softmax(expected, axis=-1)),
            rtol=1e-5,
        )
    again = SelfAttention2D.from_config(layer.get_config())
    assert again.activation is keras.activations.softmax


def test_only_filters_and_window_are_positional():
    # A third number would mean strides in `Conv2D`, and heads here.
    with pytest.raises(TypeError, match="positional arguments"):
        SelfAttention2D(8, 3, 2)


def test_values_may_have_an_initializer_of_their_own():
    layer = SelfAttention2D(8, 3, num_heads=2, value_initializer="zeros")
    layer.build((None, None, None, 7))
    assert not to_numpy(layer.value_kernel).any()
    assert to_numpy(layer.query_kernel).any()
    assert to_numpy(layer.key_kernel).any()


@pytest.mark.large_on_jax
def test_names_and_shapes_of_weights():
    layer = SelfAttention2D(12, (3, 5), num_heads=3, use_bias=True)
    layer.build((None, None, None, 7))
    shapes = {weight.name: tuple(weight.shape) for weight in layer.weights}
    assert shapes == {
        "query_kernel": (7, 12),
        "key_kernel": (7, 12),
        "value_kernel": (7, 12),
        "query_bias": (12,),
        "key_bias": (12,),
        "value_bias": (12,),
        "row_embedding": (3, 3, 2),
        "column_embedding": (5, 3, 2),
    }


def test_no_key_without_content():
    layer = SelfAttention2D(8, 3, num_heads=2, use_content=False, use_bias=True)
    layer.build((None, None, None, 7))
    assert not any("key" in weight.name for weight in layer.weights)


def test_weights_begin_different():
    layer = SelfAttention2D(8, 3, num_heads=2)
    layer.build((None, None, None, 8))
    weights = [to_numpy(weight) for weight in layer.weights]
    for first, second in itertools.combinations(weights, 2):
        if first.shape == second.shape:
            assert not np.allclose(first, second)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_shapes_of_conv_2d(padding, data_format):
    for size, strides, dilation in itertools.product(
        [(5, 5), (6, 9), (8, 7)], [1, 2, (1, 3)], [1, 2, (2, 1)]
    ):
        if strides != 1 and dilation != 1:
            continue
        # The same positional arguments up to the window.
        arguments = {
            "strides": strides,
            "padding": padding,
            "data_format": data_format,
            "dilation_rate": dilation,
        }
        attention = SelfAttention2D(8, 3, num_heads=2, **arguments)
        convolution = keras.layers.Conv2D(8, 3, **arguments)
        shape = (2, *size, 5)
        if data_format == "channels_first":
            shape = (2, 5, *size)
        expected = convolution.compute_output_shape(shape)
        assert attention.compute_output_shape(shape) == expected
        if keras.backend.backend() == "jax" and size != (6, 9):
            continue  # JAX compiles every operation of a new shape.
        outputs = attention(np.zeros(shape, "float32"))
        assert tuple(outputs.shape) == expected


@pytest.mark.large_on_jax
def test_symbolic_call_with_unknown_sizes():
    images = keras.Input((None, None, 5))
    layer = SelfAttention2D(8, 3, num_heads=2, strides=2)
    outputs, scores = layer(images, return_attention_scores=True)
    assert outputs.shape == (None, None, None, 8)
    assert scores.shape == (None, None, None, 2, 3, 3)
    model = keras.Model(images, [outputs, scores])
    for size in ((9, 8), (1, 2)):
        inputs = np.zeros((3, *size, 5), "float32")
        outputs, scores = model(inputs)
        expected = (3, -(-size[0] // 2), -(-size[1] // 2))
        assert tuple(outputs.shape) == (*expected, 8)
        assert tuple(scores.shape) == (*expected, 2, 3, 3)


def test_mask_of_the_output():
    layer = SelfAttention2D(8, 3, num_heads=2, strides=2, padding="valid")
    mask = np.random.default_rng(0).random((2, 9, 8)) < 0.5
    assert layer.compute_mask(None, None) is None
    np.testing.assert_array_equal(
        layer.compute_mask(None, mask), mask[:, 1:-1:2, 1:-1:2]
    )


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    "make",
    [
        lambda mask: mask[..., None],
        lambda mask: mask.astype("float32"),
        lambda mask: mask[:1],
        lambda mask: mask[:1, ..., None],
        lambda mask: mask[:, 0, 0],
        lambda mask: mask[:1, 0, 0],
    ],
    ids=[
        "last axis",
        "numbers",
        "one",
        "one, last axis",
        "images",
        "one image",
    ],
)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_masks_of_other_shapes(make, data_format):
    random = np.random.default_rng(0)
    images = random.normal(size=(2, 5, 6, 4)).astype("float32")
    full = random.random((2, 5, 6)) < 0.6
    full[:, 0, 0] = False, True
    mask = make(full)
    # Written out by hand.
    if mask.ndim == 1:
        expected_mask = np.repeat(np.repeat(mask[:, None, None], 5, 1), 6, 2)
    else:
        expected_mask = mask.reshape(mask.shape[:3]) > 0
    expected_mask = np.concatenate([expected_mask] * (2 // len(mask)))
    if data_format == "channels_first":
        images = images.transpose(0, 3, 1, 2)
    layer = SelfAttention2D(
        8, 3, num_heads=2, use_bias=True, data_format=data_format
    )
    expected = layer(images, mask=expected_mask, return_attention_scores=True)
    actual = layer(images, mask=mask, return_attention_scores=True)
    for want, got in zip(expected, actual, strict=True):
        np.testing.assert_allclose(to_numpy(got), to_numpy(want), atol=1e-6)
    np.testing.assert_allclose(
        to_numpy(layer(images, mask=mask)), to_numpy(expected[0]), atol=1e-6
    )


@pytest.mark.parametrize(
    "shape", [(5, 6), (2, 6, 5), (3, 5, 6), (2, 5, 6, 4), (2, 1, 5, 6), (5,)]
)
def test_masks_of_wrong_shapes(shape):
    layer = SelfAttention2D(8, 3, num_heads=2)
    message = (
        rf"`mask` must have the shape.*{re.escape(str(shape))}.*\(2, 5, 6\)"
    )
    for images in (
        np.zeros((2, 5, 6, 4), "float32"),
        keras.KerasTensor((2, 5, 6, 4)),
    ):
        with pytest.raises(ValueError, match=message):
            layer(images, mask=np.ones(shape, bool))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="JAX knows all sizes"
)
def test_masks_of_wrong_shapes_in_graphs():
    import tensorflow as tf

    layer = SelfAttention2D(8, 3, num_heads=2)
    function = tf.function(
        lambda images, mask: layer(images, mask=mask),
        input_signature=[
            tf.TensorSpec((None, None, None, 4)),
            tf.TensorSpec((None,) * 4, "bool"),
        ],
    )
    images = np.ones((2, 5, 6, 4), "float32")
    function(images, np.ones((2, 5, 6, 1), bool))
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(images, np.ones((2, 5, 6, 4), bool))


def test_mask_of_frames():
    """As in front of a recurrent layer; frames left out are all zeros."""
    random = np.random.default_rng(0)
    video = random.normal(size=(2, 3, 5, 6, 4)).astype("float32")
    frames = np.array([[True, True, False], [True, False, True]])
    layer = SelfAttention2D(8, 3, num_heads=2)
    outputs = keras.layers.TimeDistributed(layer)(video, mask=frames)
    for video_number, frame in np.ndindex(frames.shape):
        expected = to_numpy(layer(video[video_number, frame][None]))[0]
        np.testing.assert_allclose(
            to_numpy(outputs)[video_number, frame],
            expected * frames[video_number, frame],
            atol=1e-6,
        )


@pytest.mark.large_on_jax
def test_mask_of_a_layer_before():
    images = keras.Input((9, 8, 5))
    masked = keras.layers.Masking()(images)
    outputs = SelfAttention2D(8, 3, num_heads=2, name="attention")(masked)
    model = keras.Model(images, outputs)
    inputs = IMAGES.copy()
    inputs[:, :5, :5] = 0
    layer = model.get_layer("attention")
    np.testing.assert_allclose(
        to_numpy(model(inputs)),
        to_numpy(layer(inputs, mask=(inputs != 0).any(-1))),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(to_numpy(model(inputs))[:, :4, :4], 0)


@pytest.mark.parametrize(
    "policy",
    [
        large_on_jax("float32"),
        large_on_jax("float64"),
        "mixed_bfloat16",
        large_on_jax("mixed_float16"),
    ],
)
def test_one_fit_step(policy):
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential(
        [
            keras.Input((9, 8, 5)),
            SelfAttention2D(8, 3, num_heads=2, strides=2, dropout=0.1),
            SelfAttention2D(8, 3, num_heads=2),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, dtype="float32"),
        ]
    )
    model.compile("sgd", "mse")
    before = [to_numpy(weight) for weight in model.trainable_weights]
    history = model.fit(IMAGES, np.ones((2, 3)), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(to_numpy(weight)).all()
        assert not np.array_equal(to_numpy(weight), old), weight.path
    dtype = model.layers[0].compute_dtype
    outputs = model.layers[0](IMAGES)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype


def test_half_precision_is_close_to_float32():
    layer = SelfAttention2D(8, 3, num_heads=2)
    expected = to_numpy(layer(IMAGES))
    for policy, tolerance in (("mixed_float16", 1e-2), ("mixed_bfloat16", 0.1)):
        half = SelfAttention2D(8, 3, num_heads=2, dtype=policy)
        half.build(IMAGES.shape)
        half.set_weights(layer.get_weights())
        np.testing.assert_allclose(
            to_numpy(half(IMAGES)), expected, atol=tolerance
        )


@pytest.mark.large_on_jax
@pytest.mark.parametrize("strides", [1, 2])
def test_integer_images(strides):
    layer = SelfAttention2D(8, 3, num_heads=2, strides=strides)
    images = np.random.default_rng(0).integers(0, 5, (1, 6, 7, 3), "uint8")
    np.testing.assert_array_equal(
        to_numpy(layer(images)), to_numpy(layer(images.astype("float32")))
    )


@pytest.mark.parametrize("jit_compile", [large(False), True])
def test_fit_compiled_and_not(jit_compile):
    model = keras.Sequential(
        [
            keras.Input((9, 8, 5)),
            SelfAttention2D(8, 3, num_heads=2),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    model.compile("adam", "mse", jit_compile=jit_compile)
    targets = np.random.default_rng(1).normal(size=(2, 3))
    history = model.fit(IMAGES, targets, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


@pytest.mark.large_on_jax
def test_file_of_one_implementation_loads_into_another(tmp_path):
    def network(implementation):
        images = keras.Input((None, None, 5))
        outputs = SelfAttention2D(
            8, 3, num_heads=2, strides=2, implementation=implementation
        )(images)
        return keras.Model(images, outputs)

    model = network("patches")
    expected = to_numpy(model(IMAGES))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(to_numpy(loaded(IMAGES)), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    other = network("tiled")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(
        to_numpy(other(IMAGES)), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"filters": 10, "num_heads": 4}, "filters=10, num_heads=4"),
        ({"filters": 6, "num_heads": 2}, "must be even.*filters=6"),
        ({"filters": 0}, "`filters` must be a positive integer.*filters=0"),
        ({"filters": 8.0}, r"filters=8\.0"),
        ({"num_heads": -1}, "num_heads=-1"),
        ({"kernel_size": 4}, r"must be odd.*kernel_size=\(4, 4\)"),
        ({"kernel_size": (3, 2)}, r"must be odd.*kernel_size=\(3, 2\)"),
        ({"kernel_size": 0}, "positive integer.*kernel_size=0"),
        ({"kernel_size": (3, -1)}, r"kernel_size=\(3, -1\)"),
        ({"kernel_size": 3.0}, r"kernel_size=3\.0"),
        ({"kernel_size": (3, 3, 3)}, r"pair.*kernel_size=\(3, 3, 3\)"),
        ({"strides": 0}, "strides=0"),
        ({"dilation_rate": (1, 0)}, r"dilation_rate=\(1, 0\)"),
        (
            {"strides": 2, "dilation_rate": 2},
            r"cannot be combined.*strides=\(2, 2\), dilation_rate=\(2, 2\)",
        ),
        ({"padding": "causal"}, r"\('same', 'valid'\).*padding='causal'"),
        ({"data_format": "NHWC"}, "channels_last.*data_format='NHWC'"),
        ({"position_encoding": "learned"}, "relative.*'learned'"),
        (
            {"use_content": False, "position_encoding": None},
            "position_encoding=None",
        ),
        ({"dropout": 1.0}, r"\[0, 1\).*dropout=1\.0"),
        ({"dropout": -0.1}, r"dropout=-0\.1"),
        (
            {"implementation": "cuda"},
            r"\['native', 'patches', 'tiled'\].*'cuda'",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SelfAttention2D(
            **{"filters": 8, "kernel_size": 3, "num_heads": 2, **arguments}
        )


def test_bad_inputs():
    layer = SelfAttention2D(8, 3, num_heads=2)
    with pytest.raises(ValueError, match=r"four axes.*\(2, 9, 5\)"):
        layer.build((2, 9, 5))
    with pytest.raises(ValueError, match="ndim=4"):
        layer(np.zeros((2, 9, 5), "float32"))
    with pytest.raises(ValueError, match=r"channels.*must be known.*None"):
        SelfAttention2D(8, 3, num_heads=2)(keras.Input((9, 8, None)))
    valid = SelfAttention2D(8, 5, num_heads=2, padding="valid")
    with pytest.raises(ValueError, match=r"at least as large.*\(2, 4, 9, 5\)"):
        valid.compute_output_shape((2, 4, 9, 5))
    layer.build((None, None, None, 5))
    with pytest.raises(ValueError, match="axis -1"):
        layer(np.zeros((2, 9, 8, 6), "float32"))


@pytest.mark.large_on_jax
@pytest.mark.parametrize("implementation", ["tiled", "patches"])
def test_window_of_one_pixel_trains(implementation):
    model = keras.Sequential(
        [
            keras.Input((4, 4, 5)),
            SelfAttention2D(8, 1, num_heads=2, implementation=implementation),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 4, 4, 5)), np.ones((2, 1)), verbose=0)
