"""`ImageRescaling`: computes as Keras' layer, and keeps what it was told."""

import keras
import numpy as np
import pytest

from keras_sasa.conversion import replace_convolutions
from keras_sasa.layers import ImageRescaling
from keras_sasa.profile import profile
from keras_sasa.training import describe_images

OPTIONS = {
    "class_names": ["cat", "dog", "Möwe"],
    "image_size": 12,
    "channels": 1,
    "resizing": "central_crop",
    "max_pixel_value": 16.0,
}


def network():
    inputs = keras.Input((12, 12, 1))
    outputs = ImageRescaling(**OPTIONS, name="scale")(inputs)
    outputs = keras.layers.Conv2D(4, 3, padding="same")(outputs)
    outputs = keras.layers.GlobalAveragePooling2D()(outputs)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(outputs))


def assert_described(model):
    images = describe_images(model)
    assert {name: getattr(images, name) for name in OPTIONS} == OPTIONS


def test_computes_as_rescaling():
    pixels = np.arange(17, dtype="float32")
    expected = keras.layers.Rescaling(2 / 16, -1.0)(pixels)
    actual = ImageRescaling(**OPTIONS)(pixels)
    np.testing.assert_array_equal(np.array(actual), np.array(expected))
    assert float(actual[0]) == -1 and float(actual[-1]) == 1


def test_stays_with_the_model(tmp_path):
    model = network()
    assert_described(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_described(loaded)
    loaded.save(tmp_path / "again.keras")
    assert_described(keras.saving.load_model(tmp_path / "again.keras"))
    assert_described(keras.models.clone_model(loaded))
    converted, _ = replace_convolutions(loaded, "conv", num_heads=2)
    assert_described(converted)
    # Around another model, and in half precision.
    inputs = keras.Input((12, 12, 1))
    assert_described(keras.Model(inputs, loaded(inputs)))
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert_described(network())


def test_is_counted():
    assert not profile(network()).uncounted


def test_no_description_or_two():
    inputs = keras.Input((12, 12, 1))
    layer = keras.layers.Rescaling(0.5, name="scale")
    assert describe_images(keras.Model(inputs, layer(inputs))) is None
    first, second = ImageRescaling(["a"], 12), ImageRescaling(["b"], 12)
    twice = keras.Model(inputs, second(first(inputs)))
    assert describe_images(twice) is None


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": "cat"},
        {"class_names": [1, 2]},
        {"image_size": 0},
        {"image_size": 8.0},
        {"channels": 4},
        {"resizing": "stretch"},
        {"max_pixel_value": 0},
        {"max_pixel_value": float("nan")},
    ],
    ids=str,
)
def test_wrong_arguments(change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"^`{name}` must be .* Received: "):
        ImageRescaling(**{**OPTIONS, **change})
