"""Saved models describe how to prepare images for them."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sasa.data import (
    DetectionData,
    ImageData,
    evaluation_batches,
    load_data,
)
from keras_sasa.layers import ImageRescaling
from keras_sasa.training import (
    CIFAR10,
    IMAGENET,
    build_model,
    describe_images,
    load_trained,
    prepare_images,
)
from keras_sasa.training.detection import DIGIT_SCENES, build_detector

NETWORK = {
    "num_blocks": (1,),
    "stem": "small",
    "spatial": "conv",
    "width_multiplier": 1 / 16,
}
CLASSES = ["cat", "dog", "fox"]
SIZES = ((12, 12), (31, 17), (20, 44), (9, 8), (60, 60))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of noise of several sizes and formats, in three classes."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    encode = {"png": tf.io.encode_png, "jpg": tf.io.encode_jpeg}
    for name in CLASSES:
        (folder / name).mkdir()
        for number, size in enumerate(SIZES):
            pixels = random.integers(0, 256, (*size, 3)).astype("uint8")
            kind = "png" if number % 2 else "jpg"
            path = folder / name / f"{number}.{kind}"
            path.write_bytes(encode[kind](pixels).numpy())
    return folder


@pytest.mark.parametrize("preset", [CIFAR10, IMAGENET], ids=["whole", "7/8"])
def test_images_are_those_of_the_evaluation(preset, photos, tmp_path):
    """For a model file that was moved away from its run."""
    recipe = dataclasses.replace(preset, image_size=12, batch_size=5)
    data = load_data(photos)
    path = tmp_path / "model.keras"
    build_model(NETWORK, data, recipe).save(path)
    model, images = load_trained(path, "classifier")
    assert images.class_names == CLASSES
    ((expected, _, weights),) = evaluation_batches(
        data, recipe, data.num_validation
    )
    assert (weights.numpy() == 1).all()
    files = [file for file, _ in data.validation.as_numpy_iterator()]
    files = [file.decode() for file in files]
    batch = prepare_images(files, images)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, expected.numpy())
    # `evaluate.py` has no recipe of the run.
    found = evaluation_batches(data, images, 5)
    for one, other in zip(
        found, evaluation_batches(data, recipe, 5), strict=True
    ):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_darker_images_and_gray(photos):
    """The digits go up to 16, and are gray."""
    data = load_data("digits")
    recipe = dataclasses.replace(CIFAR10, image_size=8)
    images = describe_images(build_model(NETWORK, data, recipe))
    assert (images.channels, images.max_pixel_value) == (1, 16)
    files = sorted((photos / "cat").iterdir())
    batch = prepare_images(files, images)
    assert batch.shape == (5, 8, 8, 1) and batch.dtype == np.float32
    images.max_pixel_value = 255
    np.testing.assert_array_equal(
        batch, (prepare_images(files, images) * (16 / 255)).astype("float32")
    )


def test_detectors(tmp_path, monkeypatch):
    data = DetectionData(
        *[tf.data.Dataset.range(4)] * 2, class_names=["a", "b"]
    )
    recipe = dataclasses.replace(DIGIT_SCENES, image_size=64, batch_size=2)
    backbone = {"num_blocks": (1, 1, 1, 1), "width_multiplier": 1 / 16}
    network = {"backbone": {**backbone, "spatial": "conv"}, "filters": 32}
    path = tmp_path / "detector.keras"
    build_detector(network, data, recipe).save(path)
    model, images = load_trained(path, "detector")
    assert model.num_classes == 2
    assert (images.class_names, images.image_size) == (["a", "b"], 64)
    assert images.resizing == "letterbox"
    with pytest.raises(ValueError, match="to classify images.*'letterbox'"):
        prepare_images(["x.png"], images)
    # Loading it once is enough.
    monkeypatch.setattr(keras.saving, "load_model", lambda path: model)
    with pytest.raises(ValueError, match="be a classifier.* .*detect.py"):
        load_trained(path, "classifier")


def test_wrong_files_and_models(tmp_path):
    def write(model, name):
        model.save(tmp_path / name)

    inputs = keras.Input((8, 8, 3))
    scores = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    write(keras.Model(inputs, scores), "plain.keras")
    write(keras.Model(inputs, [scores, scores]), "two_outputs.keras")
    write(keras.Model(inputs, inputs), "images.keras")
    (tmp_path / "text.keras").write_text("no model")
    keras.Model(inputs, scores).save_weights(tmp_path / "some.weights.h5")
    described = keras.Input((12, 12, 3))
    layer = ImageRescaling(CLASSES, image_size=12)
    scores = keras.layers.Dense(5)(keras.layers.Flatten()(layer(described)))
    write(keras.Model(described, scores), "other_head.keras")
    for name, kind, message in (
        ("", "classifier", "is a folder. .* best.keras or model.keras"),
        ("nothing.keras", "classifier", "There is no file '.*nothing.keras'"),
        ("text.keras", "classifier", "text.keras' is not a model that Keras"),
        ("some.weights.h5", "classifier", "is not a model that Keras can load"),
        ("plain.keras", "classifier", "plain.keras' does not say .* classes"),
        ("plain.keras", "detector", "must be a detector. .* a classifier"),
        ("two_outputs.keras", "classifier", "must be a classifier. .* neither"),
        ("images.keras", "classifier", "must be a classifier. .* neither"),
        ("other_head.keras", "classifier", "distinguishes 5 classes.* 3: "),
    ):
        with pytest.raises(ValueError, match=message) as error:
            load_trained(tmp_path / name, kind)
        assert "\n" not in str(error.value)


def test_older_models_are_described_by_their_run(tmp_path):
    data = ImageData(
        *[tf.data.Dataset.range(9)] * 2, class_names=["1", "2"], channels=1
    )
    recipe = dataclasses.replace(CIFAR10, image_size=8, batch_size=3)
    configuration = {"recipe": vars(recipe), "classes": data.class_names}
    state = {"configuration": configuration, "history": []}
    (tmp_path / "state.json").write_text(json.dumps(state))
    inputs = keras.Input((8, 8, 1))
    scaled = keras.layers.Rescaling(2 / 16, -1.0, name="scale")(inputs)
    scores = keras.layers.Dense(2)(keras.layers.Flatten()(scaled))
    keras.Model(inputs, scores).save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="does not describe its images"):
        _, images = load_trained(tmp_path / "model.keras", "classifier")
    assert (images.class_names, images.channels) == (["1", "2"], 1)
    assert (images.image_size, images.max_pixel_value) == (8, 16)
    assert images.resizing == "central_square"
