"""The whole detector: learns, saves, any size, formats, errors."""

import keras
import numpy as np
import pytest
from keras.utils import bounding_boxes

from keras_sasa.applications import ResNet
from keras_sasa.detection import RetinaNet
from tests.support.detectors import tiny_detector
from tests.support.parameters import large

OPERATORS = ("conv", "attention")


def detector(spatial="attention", side=64, **options):
    keras.utils.set_random_seed(0)
    backbone = ResNet(
        (1, 1, 1, 1),
        width_multiplier=0.25,
        include_top=False,
        input_shape=(side, side, 3),
    )
    return RetinaNet(backbone, 3, spatial, filters=32, **options)


def scenes(number=4, side=64):
    """Rectangles of one of three colours on black."""
    random = np.random.default_rng(0)
    images = random.normal(0, 0.1, (number, side, side, 3)).astype("float32")
    boxes = np.full((number, 3, 4), -1.0, "float32")
    labels = np.full((number, 3), -1)
    for index in range(number):
        x, y = random.integers(0, 24, 2)
        width, height = random.integers(24, 36, 2)
        label = index % 3
        images[index, y : y + height, x : x + width, label] += 2
        boxes[index, 0] = x, y, x + width, y + height
        labels[index, 0] = label
    return images, {"boxes": boxes, "labels": labels}


def test_tiny_detector_learns_four_images_and_saves(tmp_path):
    keras.utils.set_random_seed(0)
    model = tiny_detector(filters=32)
    model.compile(keras.optimizers.Adam(1e-2))
    # Otherwise the first step is traced twice, once to create the variables.
    model.optimizer.build(model.trainable_variables)
    images, labels = scenes()
    # Steps of one epoch start faster than epochs.
    steps = keras.tree.map_structure(
        lambda array: np.concatenate([array] * 10), (images, labels)
    )
    losses = model.fit(
        *steps, batch_size=4, epochs=4, shuffle=False, verbose=0
    ).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    right, iou = compare_best(model, images, labels)
    assert right.all()
    assert iou.min() > 0.8
    assert_saved(model, images, tmp_path)


def compare_best(model, images, labels):
    """Compares the best box of each image with the one that was drawn.

    In training mode, because the moving statistics of so few steps lag behind.

    Returns:
        Whether the labels are right, and the intersections over unions.
    """
    outputs = model(images, training=True)
    found = model.make_detections(outputs, 64, 64)
    found = keras.tree.map_structure(keras.ops.convert_to_numpy, found)
    iou = bounding_boxes.compute_iou(
        found["boxes"][:, :1], labels["boxes"][:, :1], "xyxy"
    )
    right = found["labels"][:, 0] == labels["labels"][:, 0]
    return right, keras.ops.convert_to_numpy(iou)


def assert_saved(model, images, folder):
    before = model.predict(images, batch_size=3, verbose=0)
    assert all(len(value) == len(images) for value in before.values())
    model.save(folder / "detector.keras")
    again = keras.saving.load_model(folder / "detector.keras")
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    outputs = model(images), again(images)
    keras.tree.map_structure(np.testing.assert_array_equal, *outputs)


@pytest.mark.large
@pytest.mark.parametrize("spatial", OPERATORS)
def test_learns_four_images_and_saves(spatial, tmp_path):
    model = detector(spatial)
    model.compile(keras.optimizers.Adam(3e-3))
    images, labels = scenes()
    losses = model.fit(
        images, labels, batch_size=4, epochs=200, shuffle=False, verbose=0
    ).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    right, iou = compare_best(model, images, labels)
    assert right.sum() >= (4 if spatial == "conv" else 3)
    if spatial == "conv":
        # Attention takes longer.
        assert iou.min() > 0.6
    assert_saved(model, images, tmp_path)


@pytest.mark.parametrize("run_eagerly", [True, large(False)])
def test_images_of_unknown_size(run_eagerly):
    model = tiny_detector(side=None, spatial="attention")
    model.compile("sgd", run_eagerly=run_eagerly)
    for side in (64, 70):
        images, labels = scenes(2, side)
        loss = model.train_on_batch(images, labels)
        assert np.isfinite(loss)
        found = model.predict(images, verbose=0)
        assert found["boxes"].shape == (2, 100, 4)
    fixed = tiny_detector(side=70, spatial="attention")
    fixed.compile(run_eagerly=True)
    fixed.set_weights(model.get_weights())
    expected = fixed.predict(images, verbose=0)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)


def test_small_images_have_fewer_boxes_than_asked_for():
    model = tiny_detector(side=None, max_detections=1000, score_threshold=0.0)
    found = model.predict(np.zeros((1, 8, 8, 3), "float32"), verbose=0)
    assert found["boxes"].shape == (1, 1000, 4)
    assert (found["labels"][0, -1], found["scores"][0, -1]) == (-1, 0)


@pytest.mark.parametrize(
    "policy, mode, spatial",
    [
        ("mixed_bfloat16", {"run_eagerly": True}, "attention"),
        large("mixed_bfloat16", {"jit_compile": False}, "attention"),
        # XLA takes seconds to compile this, and up to minutes for the others.
        ("float32", {"jit_compile": True}, "conv"),
        large("float32", {"jit_compile": True}, "attention"),
        large("mixed_bfloat16", {"jit_compile": True}, "attention"),
    ],
)
def test_precision_and_xla(policy, mode, spatial):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        model = tiny_detector(spatial=spatial)
    finally:
        keras.config.set_dtype_policy(before)
    model.compile(keras.optimizers.SGD(0.01), **mode)
    model.optimizer.build(model.trainable_variables)
    images, labels = scenes()
    losses = model.fit(images, labels, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert model.predict(images, verbose=0)["scores"].dtype == "float32"


def test_images_without_boxes_teach_background():
    model = tiny_detector()
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    images, labels = scenes()
    labels = {
        "boxes": np.full_like(labels["boxes"], -1),
        "labels": np.full_like(labels["labels"], -1),
    }
    losses = model.fit(images, labels, epochs=3, verbose=0).history["loss"]
    assert 0 < losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["yxyx", "center_xywh"])
def test_box_formats(name):
    images, labels = scenes()
    boxes = bounding_boxes.convert_format(labels["boxes"], "xyxy", name)
    losses = []
    for options, values in (
        ({}, labels["boxes"]),
        ({"bounding_box_format": name}, keras.ops.convert_to_numpy(boxes)),
    ):
        keras.utils.set_random_seed(0)
        model = tiny_detector(**options, score_threshold=0.0)
        model.compile(run_eagerly=True)
        losses.append(
            model.evaluate(images, {**labels, "boxes": values}, verbose=0)
        )
        found = model.predict(images, verbose=0)
        converted = bounding_boxes.convert_format(
            found["boxes"], model.bounding_box_format, "xyxy"
        )
        # Rows that only fill up are no boxes.
        losses.append(
            keras.ops.convert_to_numpy(converted)[found["labels"] >= 0]
        )
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    np.testing.assert_allclose(losses[1], losses[3], atol=1e-3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"spatial": "pool"}, "`spatial` must be .*spatial='pool'"),
        ({"bounding_box_format": "xy"}, "must be one of .*'center_xywh'.*'xy'"),
        (
            {"spatial": "attention", "filters": 24},
            "`filters` must be a multiple of 16.*filters=24",
        ),
        ({"filters": 0}, "`filters` must be a positive integer.*filters=0"),
        ({"head_depth": 0}, "`head_depth` must be a positive.*head_depth=0"),
        ({"anchor_sizes": (8, 16)}, "5 sides.*anchor_sizes=\\(8, 16\\)"),
        ({"anchor_scales": ()}, "`anchor_scales` must be positive numbers"),
        ({"anchor_sizes": 32}, "`anchor_sizes` must be positive.*sizes=32"),
        ({"score_threshold": "5"}, "from 0 to 1.*score_threshold='5'"),
        ({"aspect_ratios": (1, -2)}, "aspect_ratios=\\(1, -2\\)"),
        ({"score_threshold": 5}, "from 0 to 1.*score_threshold=5"),
        ({"iou_threshold": -0.5}, "from 0 to 1.*iou_threshold=-0.5"),
        ({"implementation": "fast"}, "implementation='fast'"),
        ({"num_classes": 0}, "`num_classes` must be a positive.*num_classes=0"),
        ({"max_detections": 1001}, "at most 1000.*max_detections=1001"),
    ],
)
def test_errors(options, message):
    backbone = ResNet(
        (1, 1, 1, 1),
        width_multiplier=0.25,
        include_top=False,
        input_shape=(64, 64, 3),
    )
    with pytest.raises(ValueError, match=message):
        RetinaNet(backbone, **{"num_classes": 3, **options})
