"""Evidence for classes: its mean over places is the logit."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sasa.applications import ResNet
from keras_sasa.visualize import (
    class_evidence,
    model_inputs,
    plot_class_evidence,
)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def classifier(shape=(6, 8, 3), head=(), pooling=None, **options):
    """A convolution, the mean over places, and a dense layer."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(
                5, 3, strides=2, data_format=options.get("data_format")
            ),
            pooling or layers.GlobalAveragePooling2D(**options),
            *head,
        ]
    )


def dense(**options):
    return layers.Dense(4, bias_initializer="random_normal", **options)


def test_evidence_is_that_of_loops():
    model, batch = classifier(head=[dense()]), images(2, 6, 8, 3)
    conv, _, last = model.layers
    maps = ops.convert_to_numpy(conv(batch))
    kernel, bias = map(ops.convert_to_numpy, (last.kernel, last.bias))
    expected = np.zeros((2, 2, 3, 4))
    for image, row, column, label in np.ndindex(expected.shape):
        for channel in range(5):
            expected[image, row, column, label] += (
                maps[image, row, column, channel] * kernel[channel, label]
            )
    evidence = class_evidence(model, batch)
    assert evidence.dtype == "float32"
    np.testing.assert_allclose(evidence, expected, atol=1e-5)
    # The logit, summed by hand.
    logits = ops.convert_to_numpy(model(batch))
    for image, label in np.ndindex(2, 4):
        total = sum(
            evidence[image, row, column, label]
            for row in range(2)
            for column in range(3)
        )
        assert logits[image, label] == pytest.approx(
            total / 6 + bias[label], abs=1e-5
        )


HEADS = {
    "softmax": lambda: [dense(activation="softmax")],
    "sigmoid": lambda: [dense(activation="sigmoid")],
    "activation layer": lambda: [dense(), layers.Activation("softmax")],
    "softmax layer": lambda: [dense(), layers.Softmax()],
    "dropout": lambda: [layers.Dropout(0.5), dense(activation="softmax")],
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_evidence_behind_other_ends(head):
    model, batch = classifier(head=head()), images(3, 6, 8, 3)
    (last,) = (each for each in model.layers if isinstance(each, layers.Dense))
    logits = class_evidence(model, batch).mean((1, 2)) + np.array(last.bias)
    activation = keras.activations.get(
        "sigmoid" if last.activation is keras.activations.sigmoid else "softmax"
    )
    np.testing.assert_allclose(
        activation(logits), model.predict(batch, verbose=0), atol=1e-5
    )


def test_evidence_of_a_loaded_attention_network(tmp_path, monkeypatch):
    monkeypatch.setattr(model_inputs, "_IMAGES_AT_A_TIME", 2)
    model = ResNet(
        (1, 1),
        stem="small",
        kernel_size=3,
        num_heads=2,
        input_shape=(8, 8, 3),
        width_multiplier=1 / 16,
        classes=4,
        classifier_activation=None,
    )
    batch = images(5, 8, 8, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    evidence = class_evidence(loaded, batch)
    assert evidence.shape == (5, 4, 4, 4)
    np.testing.assert_allclose(
        evidence.mean((1, 2)) + np.array(model.layers[-1].bias),
        model.predict(batch, verbose=0),
        atol=1e-5,
    )


def test_evidence_of_a_model_inside_a_model():
    inner = classifier(head=[dense(activation="softmax")])
    inputs = keras.Input((6, 8, 3))
    model = keras.Model(inputs, inner(layers.Rescaling(0.5)(inputs)))
    batch = images(2, 6, 8, 3)
    np.testing.assert_allclose(
        class_evidence(model, batch),
        class_evidence(inner, 0.5 * batch),
        rtol=1e-5,
    )


def test_evidence_behind_augmentation():
    model, batch = classifier(head=[dense()]), images(5, 6, 8, 3)
    inputs = keras.Input((6, 8, 3))
    flipped = keras.Sequential([layers.RandomFlip()])(inputs)
    outer = keras.Model(inputs, model(inputs=flipped))
    np.testing.assert_allclose(
        class_evidence(outer, batch), class_evidence(model, batch), atol=1e-6
    )


def test_evidence_channels_first():
    """The map before the pooling is the input, as CPUs do not convolve it."""
    inputs = keras.Input((5, 2, 3))
    pooling = layers.GlobalAveragePooling2D(data_format="channels_first")
    model = keras.Model(inputs, dense()(pooling(inputs)))
    batch = images(2, 5, 2, 3)
    evidence = class_evidence(model, batch)
    assert evidence.shape == (2, 2, 3, 4)
    np.testing.assert_allclose(
        evidence.mean((1, 2)) + np.array(model.layers[-1].bias),
        ops.convert_to_numpy(model(batch)),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "model, ends",
    [
        (
            lambda: classifier(
                pooling=layers.GlobalMaxPooling2D(), head=[dense()]
            ),
            r"GlobalMaxPooling2D', 'Dense'\]",
        ),
        (
            lambda: classifier(pooling=layers.Flatten(), head=[dense()]),
            r"Flatten', 'Dense'\]",
        ),
        (
            lambda: classifier(head=[layers.Dense(3, "relu"), dense()]),
            r"Dense', 'Dense'\]",
        ),
        (lambda: classifier(), r"GlobalAveragePooling2D'\]"),
    ],
    ids=["max", "flatten", "two dense", "no dense"],
)
def test_models_of_other_ends(model, ends):
    with pytest.raises(ValueError, match=f"must have one output.*{ends}"):
        class_evidence(model(), images(1, 6, 8, 3))


def test_models_of_several_outputs_or_no_graph():
    inputs = keras.Input((6, 8, 3))
    x = layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, [dense()(x), dense()(x)])
    with pytest.raises(ValueError, match="with 2 outputs"):
        class_evidence(model, images(1, 6, 8, 3))
    with pytest.raises(ValueError, match="functional or a built sequential"):
        class_evidence(keras.Sequential([dense()]), images(1, 6, 8, 3))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_plot_class_evidence(tmp_path, channels):
    evidence = np.array([[2.0, -1.0], [0.0, 0.5]])[None, ..., None]
    evidence = np.concatenate([evidence, -evidence], axis=-1)
    pixels = np.zeros((1, 4, 6, channels))
    pixels[0, 0, 0] = 9
    figure = plot_class_evidence(pixels, evidence, [["cat", "dog"]], "a title")
    image, cat, dog, bar = figure.axes
    assert [axes.get_title() for axes in (cat, dog)] == ["cat", "dog"]
    assert bar.get_ylabel() == "evidence" and bar.get_ylim() == (-2, 2)
    drawn = cat.images[0].get_array()
    assert drawn.shape == (4, 6, 3)
    # The highest evidence is red, and half as light where the image is dark.
    np.testing.assert_allclose(drawn[0, 0], [1, 0, 0], atol=0.01)
    np.testing.assert_allclose(drawn[1, 2], [0.5, 0, 0], atol=0.01)
    np.testing.assert_allclose(drawn[2, 0], [0.5, 0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(
        dog.images[0].get_array()[1, 2], [0, 0, 0.5], atol=0.01
    )
    # Between 0 and -2: less blue in the colors of -1.
    red, green, blue = drawn[0, 3]
    assert red == pytest.approx(green) and red < blue
    figure.savefig(tmp_path / "evidence.png")
    assert (tmp_path / "evidence.png").stat().st_size > 1000


def test_plot_class_evidence_of_wrong_shapes():
    with pytest.raises(ValueError, match=r"of the 2 images.*\(1, 3, 3, 2\)"):
        plot_class_evidence(np.zeros((2, 6, 6, 1)), np.zeros((1, 3, 3, 2)))
    with pytest.raises(ValueError, match=r"Received: shape \(2, 3, 3\)"):
        plot_class_evidence(np.zeros((2, 6, 6, 1)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"Received: shape \(2, 3, 3, 0\)"):
        plot_class_evidence(np.zeros((2, 6, 6, 1)), np.zeros((2, 3, 3, 0)))
    with pytest.raises(ValueError, match="`captions` must have 2 strings"):
        plot_class_evidence(
            np.zeros((1, 6, 6, 1)), np.zeros((1, 3, 3, 2)), [["cat"]]
        )
