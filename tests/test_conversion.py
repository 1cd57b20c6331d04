"""Attention in the place of the convolutions of Keras' own models."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sasa import SelfAttention2D
from keras_sasa.conversion import Conversion, replace_convolutions
from keras_sasa.detection import RetinaNet
from tests.support import oracle
from tests.support.backend import BACKEND
from tests.support.detectors import tiny_detector, tiny_scenes


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def convert(model, pattern="conv", kernel_size=3, num_heads=2, **options):
    clone, _ = replace_convolutions(
        model, pattern, kernel_size, num_heads, **options
    )
    return clone


def sequential(*parts, size=(8, 8, 4), **options):
    return keras.Sequential([keras.Input(size), *parts], **options)


def randomize(model):
    """Gives every weight a value of its own, those of 0 and 1 too."""
    numbers = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(numbers.uniform(0.1, 1, weight.shape))


def assert_rest_is_kept(model, clone):
    """Asserts equal names, shapes and weights but for attention."""
    kept = [
        layer
        for layer in clone.layers
        if not isinstance(layer, SelfAttention2D)
    ]
    for layer in kept:
        original = model.get_layer(layer.name)
        assert type(layer) is type(original)
        assert layer is not original
        for copy, weight in zip(
            layer.get_weights(), original.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(copy, weight)
    for layer in clone.layers:
        assert layer.output.shape == model.get_layer(layer.name).output.shape


def attention_layers(model):
    return [
        layer for layer in model.layers if isinstance(layer, SelfAttention2D)
    ]


@pytest.mark.large
def test_groups_and_stem_of_resnet50():
    model = keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=5
    )
    parameters = model.count_params()
    clone, report = replace_convolutions(model, "conv[45]_block|conv1_conv")
    blocks = [f"conv4_block{block}" for block in range(1, 7)]
    blocks += [f"conv5_block{block}" for block in range(1, 4)]
    names = ("conv1_conv", *(f"{block}_2_conv" for block in blocks))
    assert report.replaced == names
    assert [layer.name for layer in attention_layers(clone)] == list(names)
    assert_rest_is_kept(model, clone)
    # The padding of the stem is not needed any more.
    missing = {layer.name for layer in model.layers} - {
        layer.name for layer in clone.layers
    }
    assert missing == {"conv1_pad"}

    stem = clone.get_layer("conv1_conv")
    assert (stem.strides, stem.padding) == ((2, 2), "same")
    assert report.before.parameters == parameters == model.count_params()
    assert report.after.parameters == clone.count_params()
    change = 0
    for channels, width, window, number in (
        (3, 64, 49, 1),
        (256, 256, 9, 6),
        (512, 512, 9, 3),
    ):
        convolution = window * channels * width + width
        attention = 3 * (channels * width + width) + 7 * width
        change += number * (attention - convolution)
    assert report.after.parameters - report.before.parameters == change
    assert clone.predict(images(1, 32, 32, 3), verbose=0).shape == (1, 5)


def test_depthwise_convolutions_of_mobilenet_v2():
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=5, alpha=0.35
    )
    clone, report = replace_convolutions(model, "depthwise$", kernel_size=5)
    assert len(report.replaced) == 17
    assert_rest_is_kept(model, clone)
    # Those of strides 2 are "valid" and padded on the right and below.
    strided = [f"block_{block}" for block in (1, 3, 6, 13)]
    for name in strided:
        layer = clone.get_layer(f"{name}_depthwise")
        assert (layer.strides, layer.padding) == ((2, 2), "same")
    assert not any(isinstance(x, layers.ZeroPadding2D) for x in clone.layers)
    assert report.after.parameters == clone.count_params()
    assert clone.predict(images(1, 32, 32, 3), verbose=0).shape == (1, 5)


def test_rest_computes_the_same():
    """One layer replaced equals the layers of the original around it."""
    model = sequential(
        layers.Conv2D(4, 3, padding="same", activation="relu", name="first"),
        layers.BatchNormalization(name="normalization"),
        layers.Conv2D(
            6, 3, 2, "same", activation="tanh", use_bias=False, name="second"
        ),
        layers.Flatten(name="flatten"),
        layers.Dense(3, name="dense"),
        size=(5, 6, 3),
    )
    randomize(model)
    batch = images(2, 5, 6, 3)
    before = model.predict(batch, verbose=0)
    clone, report = replace_convolutions(
        model, "second", kernel_size=5, num_heads=3
    )
    assert report.replaced == ("second",)
    attention = clone.get_layer("second")
    weights = {
        name: ops.convert_to_numpy(getattr(attention, name))
        for name in (
            "query_kernel",
            "key_kernel",
            "value_kernel",
            "row_embedding",
            "column_embedding",
        )
    }
    x = model.get_layer("normalization")(model.get_layer("first")(batch))
    x, _ = oracle.self_attention_2d(
        ops.convert_to_numpy(x), weights, num_heads=3, kernel_size=5, strides=2
    )
    x = model.get_layer("flatten")(np.tanh(x).astype("float32"))
    expected = ops.convert_to_numpy(model.get_layer("dense")(x))
    np.testing.assert_allclose(
        clone.predict(batch, verbose=0), expected, rtol=1e-4
    )
    np.testing.assert_array_equal(model.predict(batch, verbose=0), before)


def test_arguments_of_the_convolution_are_taken_over():
    model = sequential(
        layers.Conv2D(
            8,
            (3, 5),
            strides=(2, 1),
            padding="same",
            kernel_initializer="he_normal",
            bias_initializer="ones",
            kernel_regularizer=keras.regularizers.L2(0.1),
            bias_regularizer=keras.regularizers.L2(0.2),
            activity_regularizer=keras.regularizers.L2(0.3),
            kernel_constraint="non_neg",
            bias_constraint="max_norm",
            dtype="mixed_bfloat16",
            name="conv1",
        ),
        layers.Conv2D(
            8, 3, dilation_rate=2, padding="same", use_bias=False, name="conv2"
        ),
    )
    first, second = convert(model, kernel_size=(5, 3)).layers
    assert first.kernel_size == (5, 3)
    assert (first.filters, first.num_heads) == (8, 2)
    assert first.strides == (2, 1)
    assert isinstance(first.kernel_initializer, keras.initializers.HeNormal)
    assert isinstance(first.kernel_constraint, keras.constraints.NonNeg)
    assert isinstance(first.bias_constraint, keras.constraints.MaxNorm)
    for kind, strength in (("kernel", 0.1), ("bias", 0.2), ("activity", 0.3)):
        regularizer = getattr(first, f"{kind}_regularizer")
        assert float(regularizer.l2) == pytest.approx(strength)
    np.testing.assert_array_equal(first.query_bias, np.ones(8))
    assert first.dtype_policy.name == "mixed_bfloat16"
    assert not second.use_bias
    assert second.dilation_rate == (2, 2)


def test_activation_is_kept():
    regularizer = keras.regularizers.L2(0.5)
    model = sequential(
        layers.Conv2D(
            4,
            3,
            padding="same",
            activation="relu",
            activity_regularizer=regularizer,
            name="conv",
        )
    )
    clone = convert(model)
    assert isinstance(clone, keras.Sequential)
    (attention,) = clone.layers
    assert attention.activation is keras.activations.relu
    outputs = ops.convert_to_numpy(clone(images(1, 8, 8, 4)))
    assert outputs.min() == 0
    np.testing.assert_allclose(
        float(clone.losses[0]), 0.5 * np.sum(outputs**2), rtol=1e-5
    )


def test_one_by_one_convolutions_stay():
    model = sequential(
        layers.Conv2D(4, 1, name="conv1"),
        layers.Conv2D(4, 3, padding="same", name="conv2"),
        layers.Conv2D(4, (1, 3), padding="same", name="conv3"),
    )
    kinds = [type(layer) for layer in convert(model).layers]
    assert kinds == [layers.Conv2D, SelfAttention2D, SelfAttention2D]


@pytest.mark.parametrize(
    "convolution, filters",
    [
        (layers.Conv2D(8, 3, padding="same", groups=2), 8),
        (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), 8),
        (layers.SeparableConv2D(12, 3, padding="same"), 12),
    ],
    ids=["grouped", "depthwise", "separable"],
)
def test_attention_sees_all_channels(convolution, filters):
    model = sequential(convolution)
    (layer,) = convert(model).layers
    assert layer.query_kernel.shape == (4, filters)
    assert layer.use_bias
    assert layer.output.shape == model.output_shape


@pytest.mark.parametrize("size", [7, 8, None])
@pytest.mark.parametrize("strides", [1, 2])
def test_padding_to_the_same_size_is_left_out(size, strides):
    model = sequential(
        layers.ZeroPadding2D(1, name="padding"),
        layers.Conv2D(4, 3, strides, "valid", use_bias=False, name="conv"),
        size=(size, size, 4),
    )
    clone = convert(model, kernel_size=5, input_shape=(8, 8, 4))
    (attention,) = clone.layers
    expected = SelfAttention2D(4, 5, num_heads=2, strides=strides)
    batch = images(1, 8, 8, 4) if size is None else images(1, size, size, 4)
    expected.build(batch.shape)
    expected.set_weights(attention.get_weights())
    outputs = clone(batch)
    assert outputs.shape == model(batch).shape
    np.testing.assert_array_equal(outputs, expected(batch))


def test_padding_on_the_right_only():
    """Even sizes and strides 2, as in MobileNetV2."""
    model = sequential(
        layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(4, 3, 2)
    )
    clone = convert(model, kernel_size=7)
    assert len(clone.layers) == 1
    assert clone.output_shape == model.output_shape


@pytest.mark.parametrize(
    "padding, strides, size",
    [
        (2, 1, 8),  # Larger than the image.
        (((2, 0), (2, 0)), 1, 8),  # All on one side.
        (((0, 1), (0, 1)), 2, 7),  # The same only for even sizes.
        (((0, 1), (0, 1)), 2, None),
    ],
)
def test_other_padding_stays(padding, strides, size):
    model = sequential(
        layers.ZeroPadding2D(padding),
        layers.Conv2D(4, 3, strides, name="conv"),
        size=(size, size, 4),
    )
    clone = convert(model, input_shape=(8, 8, 4))
    assert clone.layers[-1].padding == "valid"
    assert len(clone.layers) == 2
    assert clone.output_shape == model.output_shape
    with pytest.raises(
        ValueError, match=r"'conv' .*\"valid\" .*kernel_size=\(3, 3\).*: .*=5\."
    ):
        convert(model, kernel_size=5, input_shape=(8, 8, 4))


def test_padding_that_is_used_elsewhere_stays():
    inputs = keras.Input((8, 8, 4))
    padded = layers.ZeroPadding2D(1, name="padding")(inputs)
    x = layers.Conv2D(4, 3, name="conv")(padded)
    model = keras.Model(inputs, [x, layers.MaxPooling2D(3, 1)(padded)])
    clone = convert(model)
    assert clone.get_layer("padding").output.shape == (None, 10, 10, 4)
    assert clone.get_layer("conv").padding == "same"


def test_shared_layer_with_and_without_padding():
    inputs = keras.Input((8, 8, 4))
    conv = layers.Conv2D(4, 3, name="conv")
    model = keras.Model(
        inputs, [conv(layers.ZeroPadding2D(1)(inputs)), conv(inputs)]
    )
    with pytest.raises(ValueError, match="'conv' .* padded and on others"):
        convert(model)


def test_channels_first():
    model = sequential(
        layers.ZeroPadding2D(1, data_format="channels_first"),
        layers.DepthwiseConv2D(3, 2, data_format="channels_first", name="conv"),
        size=(4, 8, 6),
    )
    clone = convert(model)
    assert clone.layers[0].data_format == "channels_first"
    assert clone.output_shape == (None, 4, 4, 3)
    assert clone(images(1, 4, 8, 6)).shape == (1, 4, 4, 3)


def nested_model():
    """A backbone in a model, called twice, with functions in the graph."""
    inputs = keras.Input((8, 8, 4), name="image")
    shared = layers.Conv2D(4, 3, padding="same", name="conv_shared")
    tail = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(
                4, 3, padding="same", activation="relu", name="conv_tail"
            ),
        ],
        name="tail",
    )
    x = ops.relu(shared(inputs)) + inputs
    backbone = keras.Model(
        {"image": inputs}, {"out": tail(x), "in": x}, name="backbone"
    )
    first, second = keras.Input((8, 8, 4)), keras.Input((8, 8, 4))
    outputs = [backbone({"image": image})["out"] for image in (first, second)]
    outputs = shared(layers.Concatenate(name="join")(outputs)[..., 2:6])
    return keras.Model([first, second], layers.Flatten()(outputs), name="whole")


def test_models_in_models():
    model = nested_model()
    batch = [images(1, 8, 8, 4), images(1, 8, 8, 4) + 1]
    before = model.predict(batch, verbose=0)
    clone, report = replace_convolutions(model, "conv", 3, 2)
    assert set(report.replaced) == {
        "backbone/conv_shared",
        "backbone/tail/conv_tail",
        "conv_shared",
    }
    backbone = clone.get_layer("backbone")
    assert list(backbone.output) == ["out", "in"]
    assert isinstance(backbone.get_layer("tail"), keras.Sequential)
    shared = backbone.get_layer("conv_shared")
    assert isinstance(shared, SelfAttention2D)
    assert clone.get_layer("conv_shared") is shared
    assert clone.count_params() == report.after.parameters
    np.testing.assert_array_equal(model.predict(batch, verbose=0), before)

    def by_hand(image):
        x = ops.relu(shared(image)) + image
        tail = backbone.get_layer("tail")
        return ops.relu(tail.get_layer("conv_tail")(x))

    joined = ops.concatenate([by_hand(image) for image in batch], axis=-1)
    expected = ops.reshape(shared(joined[..., 2:6]), (1, -1))
    np.testing.assert_allclose(
        clone.predict(batch, verbose=0), expected, rtol=1e-4, atol=1e-5
    )


def test_chosen_part_of_a_model_in_a_model():
    clone = convert(nested_model(), "tail")
    backbone = clone.get_layer("backbone")
    assert isinstance(backbone.get_layer("conv_shared"), layers.Conv2D)
    assert clone.get_layer("conv_shared") is backbone.get_layer("conv_shared")


def test_save_and_load(tmp_path):
    def conv(name, **options):
        return layers.Conv2D(4, 3, padding="same", name=name, **options)

    # Keras 3.15 loads no layer that is both in a model and in one around it.
    shared = conv("conv_shared")
    backbone = functional(shared, conv("conv", activation="relu"), shared)
    model = sequential(backbone, conv("conv_behind", activation="gelu"))
    clone, batch = convert(model), images(1, 8, 8, 4)
    assert not np.allclose(clone(batch), model(batch))
    clone.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(batch, verbose=0),
        clone.predict(batch, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


def functional(*parts):
    inputs = outputs = keras.Input((8, 8, 4))
    for part in parts:
        outputs = part(outputs)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("build", [sequential, functional])
def test_compiled_model_trains(build):
    model = build(
        layers.Conv2D(4, 3, padding="same", name="conv"),
        layers.Flatten(),
        layers.Dense(1),
    )
    assert not convert(model).compiled
    model.compile(keras.optimizers.Adam(0.02), "mse")
    clone = convert(model)
    assert clone.optimizer is not model.optimizer
    assert float(clone.optimizer.learning_rate) == pytest.approx(0.02)
    before = clone.layers[-3].get_weights()
    history = clone.fit(
        images(8, 8, 8, 4), images(8, 1), epochs=5, verbose=0
    ).history
    assert history["loss"][-1] < history["loss"][0]
    after = clone.layers[-3].get_weights()
    assert all((x != y).any() for x, y in zip(before, after, strict=True))


def double_loss(targets, outputs):
    return 2 * keras.losses.mean_squared_error(targets, outputs)


class OwnTraining(keras.Model):
    """A functional model with a training of its own."""

    def train_step(self, data):
        return {"loss": 0.0}


class OwnConstructor(keras.Model):
    """A functional model that cannot be made from inputs and outputs."""

    def __init__(self, filters):
        inputs = keras.Input((8, 8, 4))
        super().__init__(
            inputs,
            layers.Conv2D(filters, 3, padding="same", name="conv")(inputs),
        )


@pytest.mark.parametrize(
    "make, loss, reason",
    [
        (
            lambda: functional(
                layers.Conv2D(4, 3, padding="same", name="conv")
            ),
            double_loss,
            "Could not locate.*double_loss",
        ),
        (
            lambda: OwnConstructor(4),
            "mse",
            "OwnConstructor cannot be made from inputs",
        ),
    ],
    ids=["own_loss", "own_constructor"],
)
def test_what_cannot_be_compiled_again_is_not(make, loss, reason):
    model = make()
    model.compile("sgd", loss)
    with pytest.warns(UserWarning, match=f"call its `compile`: .*{reason}"):
        clone = convert(model)
    assert not clone.compiled
    assert not isinstance(clone, OwnConstructor)


def test_class_that_is_made_from_a_graph_is_kept():
    plain = functional(layers.Conv2D(4, 3, padding="same", name="conv"))
    model = OwnTraining(plain.input, plain.output, name="own")
    model.compile("sgd", "mse")
    clone = convert(model)
    assert type(clone) is OwnTraining
    assert clone.name == "own"
    assert len(attention_layers(clone)) == 1
    batch = images(2, 8, 8, 4)
    history = clone.fit(batch, batch, verbose=0).history
    assert history["loss"] == [0.0]


@pytest.mark.large
def test_detector_stays_a_detector(tmp_path):
    model = tiny_detector(bounding_box_format="yxyx", max_detections=7)
    model.compile("sgd")
    clone, report = replace_convolutions(model, "c4|box_head_conv", 3, 2)
    assert report.replaced == ("c4", "box_head/box_head_conv1")
    assert isinstance(clone, RetinaNet)
    assert clone.bounding_box_format == "yxyx"
    assert [layer.name for layer in attention_layers(clone.backbone)] == ["c4"]
    assert clone.backbone.get_layer("c4") is clone.get_layer("c4")
    batch, labels = tiny_scenes()
    before = clone.get_layer("c4").get_weights()
    clone.train_on_batch(batch, labels)
    after = clone.get_layer("c4").get_weights()
    assert all((x != y).any() for x, y in zip(before, after, strict=True))
    found = clone.predict_on_batch(batch)
    assert found["boxes"].shape == (2, 7, 4)
    clone.save(tmp_path / "detector.keras")
    loaded = keras.saving.load_model(tmp_path / "detector.keras")
    np.testing.assert_allclose(
        loaded.predict_on_batch(batch)["boxes"], found["boxes"], rtol=1e-4
    )


def test_adapted_normalization_computes_the_same():
    """It computes with numbers that are made of its weights."""
    normalization = layers.Normalization()
    normalization.adapt(5 + 3 * images(9, 8, 8, 4))
    model = sequential(
        normalization, layers.Conv2D(4, 3, padding="same", name="conv")
    )
    copy = convert(model).layers[0]
    batch = images(2, 8, 8, 4)
    np.testing.assert_array_equal(copy(batch), normalization(batch))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="strings need TensorFlow")
def test_adapted_vocabularies_are_kept():
    """They are neither weights nor part of the configuration."""
    strings = layers.StringLookup(output_mode="tf_idf")
    strings.adapt(np.array([["a", "b"], ["a", "c"]]))
    integers = layers.IntegerLookup(output_mode="one_hot")
    integers.adapt(np.array([5, 7]))
    words = layers.TextVectorization(output_sequence_length=3)
    words.adapt(np.array(["a b", "b c"]))
    bins = layers.Discretization(num_bins=3, output_mode="one_hot")
    bins.adapt(np.arange(9.0)[:, None])
    image = keras.Input((8, 8, 4))
    keys = [keras.Input((1,), dtype=kind) for kind in ("string", "int64")]
    number = keras.Input((1,))
    outputs = [strings(keys[0]), integers(keys[1]), bins(number)]
    # As wide as the vocabularies are.
    outputs.append(layers.Dense(2)(layers.Concatenate()(outputs)))
    outputs.append(words(keys[0]))
    outputs.append(layers.Conv2D(4, 3, padding="same", name="conv")(image))
    model = keras.Model([image, *keys, number], outputs)
    batch = [
        ops.convert_to_tensor(values)
        for values in (
            images(2, 8, 8, 4),
            [["c"], ["b a"]],
            [[7], [6]],
            [[1.0], [8.0]],
        )
    ]
    expected = model(batch)[:5]
    actual = convert(model)(batch)[:5]
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="strings need TensorFlow")
def test_vocabulary_that_cannot_be_copied():
    """Keras writes one entry a line."""
    lookup = layers.StringLookup(name="lookup")
    lookup.adapt(np.array(["two\nlines", "one"]))
    image, key = keras.Input((8, 8, 4)), keras.Input((1,), dtype="string")
    convolution = layers.Conv2D(4, 3, padding="same", name="conv")
    model = keras.Model([image, key], [convolution(image), lookup(key)])
    with pytest.raises(ValueError, match="'lookup' cannot be .* its state"):
        convert(model)


def test_weight_that_is_frozen_alone():
    dense, conv = layers.Dense(4), layers.Conv2D(4, 3, padding="same")
    model = sequential(conv, dense)
    dense.bias.trainable = False
    attention, copy = convert(model).layers
    assert copy.trainable
    assert [weight.trainable for weight in copy.weights] == [True, False]
    assert all(weight.trainable for weight in attention.weights)


def test_objects_that_cannot_be_serialized():
    """Of a replaced convolution they are used as they are."""

    class Halves(keras.Initializer):
        def __call__(self, shape, dtype=None):
            return ops.full(shape, 0.5, dtype)

    class Sums(keras.Regularizer):
        def __call__(self, kernel):
            return ops.sum(kernel)

    model = sequential(
        layers.Conv2D(
            4,
            3,
            padding="same",
            kernel_initializer=Halves(),
            kernel_regularizer=Sums(),
            name="conv",
        )
    )
    (attention,) = convert(model).layers
    assert type(attention.kernel_regularizer) is Sums
    assert (ops.convert_to_numpy(attention.query_kernel) == 0.5).all()


def test_layer_that_cannot_be_cloned_is_named():
    class Same(layers.Layer):
        def __init__(self, something, **options):
            super().__init__(**options)

        def call(self, inputs):
            return inputs

    model = sequential(
        Same(object(), name="same"),
        layers.Conv2D(4, 3, padding="same", name="conv"),
    )
    with pytest.raises(ValueError, match="Layer 'same' cannot be cloned"):
        convert(model)


def test_convolution_of_a_derived_class_stays():
    class Doubled(layers.Conv2D):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = sequential(
        Doubled(4, 3, padding="same", name="conv1"),
        layers.Conv2D(4, 3, padding="same", name="conv2"),
    )
    first, second = convert(model).layers
    assert type(first) is Doubled
    assert isinstance(second, SelfAttention2D)


def test_losses_by_name_of_an_output():
    inputs = keras.Input((8, 8, 4))
    outputs = [
        layers.Conv2D(4, 3, padding="same", activation="relu", name=name)(
            inputs
        )
        for name in ("conv_first", "conv_second")
    ]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"conv_first": "mse", "conv_second": "mae"})
    targets = dict.fromkeys(model.output_names, np.zeros((1, 8, 8, 4)))
    history = convert(model).fit(images(1, 8, 8, 4), targets, verbose=0)
    assert history.history["loss"][0] > 0


def test_frozen_model_has_trainable_attention():
    model = sequential(
        layers.Conv2D(4, 3, padding="same", name="conv"),
        layers.BatchNormalization(),
    )
    model.trainable = False
    attention, normalization = convert(model).layers
    assert len(attention.trainable_weights) == 8
    assert not normalization.trainable


def test_sizes_left_open():
    model = sequential(
        layers.Conv2D(4, 3, padding="same", name="conv"), size=(None, None, 4)
    )
    with pytest.raises(ValueError, match="`input_shape`.*axis 1 of input 0"):
        convert(model)
    clone, report = replace_convolutions(model, "conv", 3, 2, (8, 6, 4))
    assert clone.output_shape == (None, None, None, 4)
    assert report.before.flops == 48 * (2 * 9 * 16 + 4)


def test_report():
    model = sequential(
        layers.Conv2D(
            8, 3, padding="same", activation="relu", use_bias=False, name="conv"
        ),
        layers.Conv2D(8, 1, use_bias=False, name="last"),
        layers.UpSampling2D(interpolation="bilinear", name="up"),
        size=(4, 4, 2),
    )
    _, report = replace_convolutions(model, "conv", 3, 2)
    assert isinstance(report, Conversion)
    # By hand, ReLU included: 144 and 72 parameters in the layer.
    conv, attention = 16 * (2 * 9 * 2 * 8 + 8), 16 * 8
    attention += 16 * (2 * 3 * 2 * 8 + 3 * 2 * 9 * 8 + 2 * 9)
    separable = attention - 16 * 2 * 9 * 8 + 16 * (6 * 8 + 2 * 2 * 9)
    assert (conv, attention, separable) == (4736, 8864, 7904)
    assert str(report).splitlines() == [
        "layer   was     output  parameters     now  FLOPs     now  separable",
        "conv    Conv2D  4x4x8          144      72  4,736   8,864      7,904",
        "model                          208     136  6,784  10,912      9,952",
        "change                              -34.6%         +60.8%     +46.7%",
        "FLOPs not counted: up",
    ]


def test_report_of_a_model_with_attention_already():
    model = sequential(
        SelfAttention2D(4, 3, num_heads=2, name="conv_before"),
        layers.Conv2D(4, 3, padding="same", name="conv"),
    )
    randomize(model)
    clone, report = replace_convolutions(model, "conv", 3, 2)
    assert report.replaced == ("conv",)
    for copy, weight in zip(
        clone.layers[0].get_weights(),
        model.layers[0].get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(copy, weight)


def test_nothing_fits_the_pattern():
    model = sequential(
        layers.Conv2D(4, 3, name="conv1"),
        layers.Conv2D(4, 1, name="pointwise"),
        layers.Flatten(name="flatten"),
        name="small",
    )
    for pattern in ("stage", "pointwise", "flatten"):
        with pytest.raises(
            ValueError,
            match=rf"of 'small', which are \['conv1'\].*pattern='{pattern}'",
        ):
            convert(model, pattern)


@pytest.mark.parametrize(
    "pattern", [3, None, ["conv"], b"conv", "conv("], ids=repr
)
def test_pattern_that_is_none(pattern):
    model = sequential(layers.Conv2D(4, 3, padding="same", name="conv"))
    received = re.escape(f"Received: pattern={pattern!r}")
    with pytest.raises(ValueError, match=f"^`pattern` must be .*{received}"):
        convert(model, pattern)


def test_compiled_pattern():
    model = sequential(layers.Conv2D(4, 3, padding="same", name="Conv"))
    assert attention_layers(convert(model, re.compile("conv", re.I)))


def test_heads_that_do_not_fit_name_the_layer():
    model = sequential(
        layers.Conv2D(8, 3, padding="same", name="conv1"),
        layers.Conv2D(6, 3, padding="same", name="conv2"),
    )
    with pytest.raises(
        ValueError, match="Convolution 'conv2' .*filters=6, num_heads=4"
    ):
        convert(model, num_heads=4)
    with pytest.raises(
        ValueError, match=r"Convolution 'conv1' .*kernel_size=\(4, 4\)"
    ):
        convert(model, kernel_size=4)


class Subclassed(keras.Model):
    pass


@pytest.mark.parametrize(
    "model",
    [3, Subclassed(), keras.Sequential([layers.Conv2D(4, 3, name="conv")])],
    ids=["number", "subclassed", "unbuilt"],
)
def test_model_without_known_layers(model):
    with pytest.raises(ValueError, match="functional or a built sequential"):
        convert(model)


def test_backbone_of_keras_hub(tmp_path):
    keras_hub = pytest.importorskip(
        "keras_hub", reason="keras-hub is not installed"
    )
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[16],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 32],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="bottleneck_block",
        image_shape=(32, 32, 3),
    )
    clone, report = replace_convolutions(backbone, "stack1.*conv", 5)
    # Of strides 2 and padded by a layer; the other two are 1x1.
    assert report.replaced == ("stack1_block0_2_conv",)
    (attention,) = attention_layers(clone)
    assert (attention.strides, attention.padding) == ((2, 2), "same")
    assert_rest_is_kept(backbone, clone)

    model = keras.Sequential([backbone, layers.GlobalAveragePooling2D()])
    clone, report = replace_convolutions(model, "stack1.*conv", 5)
    assert report.replaced == ("res_net_backbone/stack1_block0_2_conv",)
    clone.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    batch = images(1, 32, 32, 3)
    np.testing.assert_allclose(loaded(batch), clone(batch), rtol=1e-4)
