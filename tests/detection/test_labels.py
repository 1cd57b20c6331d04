"""Labels of detectors: whatever is given is right, or refused by name."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sasa.detection import label_checks, labels
from keras_sasa.detection.checked_data import CheckedData
from tests.support.detectors import tiny_detector, tiny_scenes
from tests.support.parameters import large

IMAGES, LABELS = tiny_scenes()
BOXES, CLASSES = LABELS["boxes"], LABELS["labels"]
NONE = np.full((2, 1, 4), -1.0)


def prepare(boxes=BOXES, classes=CLASSES, box_format="xyxy"):
    y = {"boxes": boxes, "labels": classes}
    return labels.prepare_arrays(IMAGES, y, 3, box_format)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"classes": CLASSES + 1},
            r"`labels` must be integers from 0 to 2.*labels\[1, 0\]=3 \(image "
            "1, and 0 more",
        ),
        ({"classes": CLASSES - 2}, r"labels\[0, 0\]=-2 "),
        ({"classes": CLASSES + 0.5}, r"labels\[0, 0\]=0.5 .* and 1 more"),
        ({"classes": CLASSES * np.nan}, r"labels\[0, 0\]=nan"),
        ({"classes": [["a"], ["b"]]}, "`labels` must be numbers"),
        ({"boxes": BOXES * np.nan}, r"`boxes` must be finite.*boxes\[0, 0\]"),
        ({"boxes": BOXES / 64}, "`boxes` must be in pixels.*from 0 to 1"),
        ({"boxes": BOXES[..., [2, 3, 0, 1]]}, "'xyxy' and have an area"),
        ({"boxes": NONE}, "or the label -1 for padding"),
        ({"boxes": BOXES + 64}, "reach into the image, here of 64x64 pixels"),
        ({"boxes": BOXES - 60}, "reach into the image"),
        (
            {"boxes": BOXES / [[[64.0]], [[1.0]]]},
            r"from 0 to 1.*\(image 0, and 0 more",
        ),
        ({"boxes": BOXES[0]}, r"\(batch_size, num_boxes, 4\).*\(1, 4\)"),
        ({"boxes": BOXES[..., :3]}, r"boxes of shape \(2, 1, 3\)"),
        ({"classes": CLASSES[..., None]}, r"labels of shape \(2, 1, 1\)"),
        ({"classes": np.eye(3)[CLASSES[:, 0]]}, r"labels of shape \(2, 3\)"),
        (
            {
                "boxes": [BOXES[0], BOXES[1, :0]],
                "classes": list(CLASSES),
            },
            "one of `labels` for each of `boxes`.*0 boxes and 1 labels in "
            "image 1",
        ),
        ({"boxes": [BOXES[0], BOXES[1, 0]]}, r"`boxes`.*shape \(4,\) in image"),
        ({"boxes": BOXES[:1], "classes": CLASSES[:1]}, "2 images and boxes"),
    ],
)
def test_wrong_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare(
            **{
                name: list(value) if isinstance(value, list) else value
                for name, value in arguments.items()
            }
        )


@pytest.mark.parametrize(
    "y, message",
    [
        (None, "dict of 'boxes'.*type NoneType"),
        ((BOXES, CLASSES), "type tuple"),
        ({"boxes": BOXES}, r"keys \['boxes'\]"),
        ({**LABELS, "classes": CLASSES}, r"keys \['boxes', 'classes', 'labels"),
        ({**LABELS, "areas": CLASSES}, r"keys \['areas', "),
    ],
)
def test_wrong_structure(y, message):
    with pytest.raises(ValueError, match=message):
        labels.prepare_arrays(IMAGES, y, 3, "xyxy")


@pytest.mark.parametrize(
    "box_format, box",
    [
        ("xyxy", [8, 10, 40, 30]),
        ("yxyx", [10, 8, 30, 40]),
        ("xywh", [8, 10, 32, 20]),
        ("center_xywh", [24, 20, 32, 20]),
        ("center_yxhw", [20, 24, 20, 32]),
    ],
)
def test_formats_have_the_sides_that_keras_gives_them(box_format, box):
    sides = label_checks._sides(np.array([[box]], "float32"), box_format)
    converted = keras.utils.bounding_boxes.convert_format(
        np.array([[box]], "float32"), box_format, "xyxy"
    )
    assert np.stack(sides, axis=-1).tolist() == [[[8, 10, 40, 30]]]
    np.testing.assert_array_equal(converted, [[[8, 10, 40, 30]]])


@pytest.mark.parametrize(
    "boxes, classes",
    [
        ([BOXES[0], BOXES[1, :0]], [CLASSES[0], CLASSES[1, :0]]),
        ([BOXES[0].tolist(), []], [[0], []]),
        (
            tf.RaggedTensor.from_row_lengths(BOXES[0], [1, 0]),
            tf.RaggedTensor.from_row_lengths([0], [1, 0]),
        ),
        (
            tf.ragged.constant([BOXES[0].tolist(), []], ragged_rank=2),
            tf.ragged.constant([[0], []]),
        ),
    ],
    ids=["arrays", "lists", "ragged", "ragged in both axes"],
)
def test_ragged_labels_are_filled_up(boxes, classes):
    if isinstance(boxes, tf.RaggedTensor) and boxes.ragged_rank == 2:
        boxes = tf.RaggedTensor.from_nested_row_lengths(
            BOXES[0, 0], [[1, 0], [4]]
        )
    filled = prepare(boxes, classes)
    np.testing.assert_array_equal(filled["boxes"], [BOXES[0], NONE[0]])
    np.testing.assert_array_equal(filled["labels"], [[0], [-1]])


def test_rows_that_fill_up_may_be_anything():
    boxes = np.concatenate([BOXES, BOXES * np.nan], axis=1)
    classes = np.concatenate([CLASSES, NONE[..., 0]], axis=1)
    assert prepare(boxes, classes)["boxes"].shape == (2, 2, 4)
    # Parts of objects may lie outside.
    prepare(BOXES + 20)
    # As may all rows.
    assert prepare(BOXES[:, :0], CLASSES[:, :0])["labels"].shape == (2, 0)


@pytest.mark.parametrize(
    "weights",
    [np.ones((2, 1, 1)), np.array([1, np.nan]), {"boxes": np.ones(2)}],
)
def test_wrong_weights(weights):
    with pytest.raises(ValueError, match="`sample_weight` must be one finite"):
        labels.prepare_weights(weights)


class Batches(keras.utils.PyDataset):
    """The two images, as lists of what each of them has."""

    def __init__(self, y, weights):
        super().__init__()
        self.batch = (IMAGES, y, weights)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


@pytest.fixture(scope="module", params=[True, large(False)])
def detector(request):
    model = tiny_detector()
    # It learns nothing, so that every loss is the same.
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=request.param)
    return model


def forms(y, weights):
    """Yields the data in every form that Keras takes."""
    arrays = (IMAGES, y, weights)
    yield "generator", ((x for x in [arrays]),), {"steps": 1}
    yield "PyDataset", (Batches(y, weights),), {}
    dataset = tf.data.Dataset.from_tensors(arrays)
    yield "tf.data", (dataset,), {}
    ragged = {
        name: tf.RaggedTensor.from_tensor(value) for name, value in y.items()
    }
    dataset = tf.data.Dataset.from_tensors((IMAGES, ragged, weights))
    yield "ragged tf.data", (dataset,), {}


def test_every_form_of_data_has_the_same_loss(detector):
    y = {"boxes": BOXES.astype("float32"), "labels": CLASSES}
    weights = np.array([1.0, 0.25], "float32")
    expected = detector.test_on_batch(IMAGES, y, weights)
    options = {"verbose": 0}
    losses = {
        "arrays": detector.evaluate(
            IMAGES, y, sample_weight=weights[:, None], **options
        ),
        "keras-cv": detector.evaluate(
            IMAGES,
            {"boxes": list(BOXES), "classes": list(CLASSES)},
            sample_weight=weights,
            **options,
        ),
        "fit": detector.fit(
            IMAGES,
            y,
            sample_weight=weights,
            validation_data=(IMAGES, y, weights),
            shuffle=False,
            **options,
        ).history["val_loss"][0],
        **{
            name: detector.evaluate(*arguments, **more, **options)
            for name, arguments, more in forms(y, weights)
        },
    }
    for name, loss in losses.items():
        assert loss == pytest.approx(expected, rel=1e-5), name
    # The weight of an image weighs its part.
    other = detector.test_on_batch(IMAGES, y, np.array([1.0, 1.25]))
    first = detector.test_on_batch(IMAGES, y, np.array([1.0, 0.0]))
    assert other - expected == pytest.approx((expected - first) * 4, rel=1e-3)


# Keras on JAX loses the weights of a model whose data fail.
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a detector is spoiled"
)


@on_tensorflow
def test_every_form_of_data_is_checked(detector):
    y = {"boxes": BOXES.astype("float32"), "labels": CLASSES + 1}
    message = r"`labels` must be integers from 0 to 2.*labels\[1, 0\]=3"
    for _, arguments, more in forms(y, np.ones(2, "float32")):
        with pytest.raises(ValueError, match=message):
            detector.evaluate(*arguments, **more, verbose=0)
    arrays = (IMAGES, y)
    for call in (
        lambda: detector.fit(*arrays, verbose=0),
        lambda: detector.evaluate(*arrays, verbose=0),
        lambda: detector.train_on_batch(*arrays),
        lambda: detector.test_on_batch(*arrays),
        lambda: detector.fit(IMAGES, LABELS, validation_data=arrays, verbose=0),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@on_tensorflow
def test_later_batches_of_a_dataset_are_checked(detector):
    right, wrong = CLASSES, CLASSES + 1
    dataset = tf.data.Dataset.from_tensor_slices(
        (
            np.concatenate([IMAGES, IMAGES]),
            {
                "boxes": np.concatenate([BOXES, BOXES]),
                "labels": np.concatenate([right, wrong]),
            },
        )
    ).batch(2)
    with pytest.raises(ValueError, match=r"labels\[1, 0\]=3"):
        detector.evaluate(dataset, verbose=0)


@pytest.mark.parametrize(
    "element, message",
    [
        (IMAGES, "type NoneType"),
        ((IMAGES, {"boxes": BOXES}), r"keys \['boxes'\]"),
        ((IMAGES, {**LABELS, "boxes": BOXES[0]}), r"boxes of shape \(1, 4\)"),
        ((IMAGES, {**LABELS, "labels": [["a"], ["b"]]}), "of type string"),
        ((IMAGES, LABELS, {"boxes": [1, 1]}), "`sample_weight`.*a dict"),
    ],
)
def test_datasets_of_wrong_structure(element, message):
    dataset = tf.data.Dataset.from_tensors(element)
    with pytest.raises(ValueError, match=message):
        CheckedData(3, "xyxy").wrap(dataset)


def test_losses_of_others_are_refused():
    model = tiny_detector()
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="without `loss`.*loss='mse'"):
        model.fit(IMAGES, LABELS, verbose=0)


def ragged(values, lengths):
    return tf.RaggedTensor.from_row_lengths(values, lengths)


@pytest.mark.parametrize(
    "element, message",
    [
        ((IMAGES, LABELS, [1, np.nan]), "`sample_weight` must be one finite"),
        ((IMAGES, LABELS, np.ones((2, 3))), "sample_weight of shape"),
        *(
            (
                (
                    IMAGES,
                    {
                        "boxes": ragged(BOXES[:, 0], [1, 1]),
                        "labels": ragged([1] * sum(lengths), lengths),
                    },
                ),
                f"one of `labels` for each.*1 boxes and {lengths[1]} labels",
            )
            for lengths in ([1, 0], [1, 2])
        ),
    ],
)
def test_batches_of_datasets_that_do_not_fit(detector, element, message):
    dataset = tf.data.Dataset.from_tensors(element)
    with pytest.raises(ValueError, match=message):
        detector.evaluate(dataset, verbose=0)


def test_dataset_of_boxes_ragged_in_all_axes(detector):
    boxes = [BOXES[0].astype("float32").tolist(), []]
    y = {
        "boxes": tf.ragged.constant(boxes, "float32"),
        "labels": tf.ragged.constant([[1], []], "int32"),
    }
    # The second batch has no boxes.
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, y)).batch(1)
    y = {"boxes": boxes, "labels": [[1], []]}
    assert detector.evaluate(dataset, verbose=0) == pytest.approx(
        detector.evaluate(IMAGES, y, batch_size=1, verbose=0)
    )


def test_a_generator_is_not_consumed():
    taken = []

    def batches():
        for index in range(3):
            taken.append(index)
            yield IMAGES, LABELS

    wrapped, _, _ = CheckedData(3, "xyxy").wrap(batches())
    assert isinstance(wrapped, types.GeneratorType) and not taken
    assert len(list(wrapped)) == 3


def test_batches_without_boxes_teach_background(detector):
    nothing = {"boxes": np.zeros((2, 0, 4)), "labels": np.zeros((2, 0), int)}
    filled = {"boxes": NONE, "labels": np.full((2, 1), -1)}
    loss = detector.test_on_batch(IMAGES, nothing)
    assert loss > 0
    assert loss == pytest.approx(detector.test_on_batch(IMAGES, filled))
    assert detector.train_on_batch(IMAGES, nothing) == pytest.approx(
        loss, rel=0.5
    )
