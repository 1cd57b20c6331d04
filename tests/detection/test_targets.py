"""Anchors and targets, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sasa.detection import targets
from keras_sasa.detection.anchors import make_anchors
from keras_sasa.detection.targets import (
    BACKGROUND,
    IGNORED,
    decode,
    make_targets,
    match,
)


def to_numpy(tensors):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, tensors)


@pytest.mark.parametrize("height, width", [(64, 64), (65, 100), (7, 640)])
def test_number_of_anchors(height, width):
    pixels = sum(
        -(-height // stride) * -(-width // stride)
        for stride in (8, 16, 32, 64, 128)
    )
    anchors = to_numpy(make_anchors(height, width))
    assert anchors.shape == (9 * pixels, 4)


def test_anchors_by_hand():
    anchors = to_numpy(make_anchors(16, 24))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    # P3: two rows of three pixels, the first row first.
    np.testing.assert_allclose(
        centres[:54:9],
        [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]],
        atol=1e-4,
    )
    # P4: one row of two; P5, P6 and P7: one pixel.
    np.testing.assert_allclose(
        centres[54::9],
        [[8, 8], [24, 8], [16, 16], [32, 32], [64, 64]],
        atol=1e-4,
    )
    widths, heights = (anchors[:9, 2:] - anchors[:9, :2]).T
    np.testing.assert_allclose(heights / widths, [0.5, 1, 2] * 3, rtol=1e-5)
    sides = np.sqrt(widths * heights)
    np.testing.assert_allclose(
        sides[::3], [32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)], rtol=1e-5
    )
    np.testing.assert_allclose(anchors[1], [-12, -12, 20, 20], rtol=1e-5)
    # The anchor of 1:2 has the area of the square.
    np.testing.assert_allclose(heights[2] * widths[2], 32 * 32, rtol=1e-5)


def test_anchors_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def anchors(images):
        _, height, width, _ = keras.ops.shape(images)
        return make_anchors(height, width)

    if keras.backend.backend() != "tensorflow":
        pytest.skip("Sizes are always known to other backends.")
    for height, width in ((64, 96), (33, 129)):
        np.testing.assert_array_equal(
            anchors(np.zeros((1, height, width, 3), "float32")),
            make_anchors(height, width),
        )


# Four anchors side by side and one far away.
ANCHORS = np.array(
    [
        [0, 0, 10, 10],
        [10, 0, 20, 10],
        [20, 0, 30, 10],
        [30, 0, 40, 10],
        [100, 100, 110, 110],
    ],
    "float32",
)
BOXES = np.array(
    [
        [
            # 80 of the 100 pixels of the first anchor, none of others.
            [0, 0, 8, 10],
            # 6 of its 9 columns are in the second anchor, 3 in the third.
            [14, 0, 23, 10],
            # Fills up; would be the last anchor.
            [100, 100, 110, 110],
        ]
    ],
    "float32",
)
LABELS = np.array([[3, 1, -1]])


def test_three_boxes_by_hand():
    indices, classes = to_numpy(match(ANCHORS, BOXES, LABELS))
    # Second anchor: 60 / (100 + 90 - 60) = 0.4615, the best of that box, so
    # it is taken though below 0.5. Third: 0.1875, background.
    assert classes.tolist() == [[3, 1, BACKGROUND, BACKGROUND, BACKGROUND]]
    assert indices[0, :2].tolist() == [0, 1]
    deltas, again = to_numpy(make_targets(ANCHORS, BOXES, LABELS))
    np.testing.assert_array_equal(again, classes)
    # Centre from 5 to 4 in anchors of 10, divided by 0.1; log(8 / 10) / 0.2.
    np.testing.assert_allclose(
        deltas[0, 0], [-1, 0, np.log(0.8) / 0.2, 0], atol=1e-5
    )
    # Centre from 15 to 18.5; log(9 / 10) / 0.2.
    np.testing.assert_allclose(
        deltas[0, 1], [3.5, 0, np.log(0.9) / 0.2, 0], atol=1e-5
    )
    np.testing.assert_allclose(deltas[0, 2:], 0, atol=1e-6)


def test_between_the_thresholds_is_ignored():
    boxes = np.array([[[0, 0, 10, 10], [3.5, 0, 13.5, 10]]], "float32")
    anchors = np.array(
        [[0, 0, 10, 10], [4, 0, 14, 10], [7, 0, 17, 10]], "float32"
    )
    # The third: 65 / 135 = 0.48 of the second box, whose best is the second.
    _, classes = to_numpy(match(anchors, boxes, np.array([[0, 1]])))
    assert classes.tolist() == [[0, 1, IGNORED]]


def test_small_box_is_not_lost():
    boxes = np.array([[[104, 104, 106, 106]]], "float32")
    _, classes = to_numpy(match(ANCHORS, boxes, np.array([[7]])))
    assert classes.tolist() == [[BACKGROUND] * 4 + [7]]


@pytest.mark.parametrize(
    "box, label",
    [([-1, -1, -1, -1], -1), ([5, 5, 5, 9], 2), ([900, 900, 910, 910], 2)],
    ids=["no box", "no area", "outside of all"],
)
def test_nothing_to_match_is_background(box, label):
    boxes = np.array([[box]], "float32")
    deltas, classes = to_numpy(
        make_targets(ANCHORS, boxes, np.array([[label]]))
    )
    assert classes.tolist() == [[BACKGROUND] * 5]
    np.testing.assert_allclose(deltas, 0, atol=1e-6)


def test_images_of_a_batch_are_apart():
    boxes = np.stack([BOXES[0], BOXES[0][::-1]])
    labels = np.array([[3, 1, -1], [-1, -1, 4]])
    _, classes = to_numpy(match(ANCHORS, boxes, labels))
    assert classes.tolist() == [[3, 1, -1, -1, -1], [4, -1, -1, -1, -1]]


def test_decode_is_the_way_back():
    anchors = to_numpy(make_anchors(64, 64))
    boxes = np.random.default_rng(0).uniform(0, 32, (2, 6, 4))
    boxes[..., 2:] += boxes[..., :2] + 1
    labels = np.tile(np.arange(6), (2, 1))
    deltas, classes = make_targets(anchors, boxes.astype("float32"), labels)
    indices, _ = to_numpy(match(anchors, boxes.astype("float32"), labels))
    decoded = to_numpy(decode(anchors, deltas))
    taken = to_numpy(classes) >= 0
    assert set(np.unique(to_numpy(classes)[0])) >= set(range(6))
    expected = np.take_along_axis(boxes, indices[..., None], axis=1)
    np.testing.assert_allclose(decoded[taken], expected[taken], atol=1e-3)


def match_by_loops(anchors, boxes, labels):
    """One anchor after the other, as the paper says it."""
    iou = to_numpy(
        keras.utils.bounding_boxes.compute_iou(anchors, boxes, "xyxy")
    )
    indices = np.zeros(iou.shape[:2], int)
    classes = np.full(iou.shape[:2], BACKGROUND)
    for image, anchor in np.ndindex(*iou.shape[:2]):
        best = candidate = -1.0
        for box, label in enumerate(labels[image]):
            if label < 0:
                continue
            overlap = iou[image, anchor, box]
            best = max(best, overlap)
            is_forced = overlap > iou[image, :, box].max() * (1 - 1e-6)
            if overlap + 2 * is_forced > candidate:
                candidate = overlap + 2 * is_forced
                indices[image, anchor] = box
        if best >= 0.5 or candidate >= 2:
            classes[image, anchor] = labels[image, indices[image, anchor]]
        elif best >= 0.4:
            classes[image, anchor] = IGNORED
    return indices, classes


@pytest.mark.parametrize("number", [0, 1, 15, 16, 17, 40])
def test_matching_in_chunks_equals_the_loops(number):
    random = np.random.default_rng(number)
    anchors = to_numpy(make_anchors(64, 64))
    # Whole numbers and boxes given twice: there are ties.
    corners = random.integers(0, 48, (2, number, 2))
    sides = random.integers(4, 60, (2, number, 2))
    boxes = np.concatenate([corners, corners + sides], axis=-1)
    boxes[:, number // 2 : number // 2 * 2] = boxes[:, : number // 2]
    boxes = boxes.astype("float32")
    # The rows that only fill up are not the last ones.
    labels = random.integers(-1, 5, (2, number))
    expected_indices, expected = match_by_loops(anchors, boxes, labels)
    indices, classes = to_numpy(match(anchors, boxes, labels))
    np.testing.assert_array_equal(classes, expected)
    taken = classes >= 0
    np.testing.assert_array_equal(indices[taken], expected_indices[taken])
    assert taken.any() == (number > 0)
    deltas, _ = to_numpy(make_targets(anchors, boxes, labels))
    assert deltas.shape == (2, len(anchors), 4)
    assert np.isfinite(deltas).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_matching_of_unknown_numbers(jit_compile):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Sizes are always known to other backends.")
    anchors = to_numpy(make_anchors(64, 32))

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, None), "int32"),
        ],
        jit_compile=jit_compile,
    )
    def compiled(boxes, labels):
        return make_targets(anchors, boxes, labels)

    random = np.random.default_rng(0)
    for number in (0, 5, 16, 35):
        boxes = random.uniform(0, 30, (2, number, 4)).astype("float32")
        boxes[..., 2:] += boxes[..., :2] + 1
        labels = random.integers(-1, 5, (2, number)).astype("int32")
        expected = to_numpy(make_targets(anchors, boxes, labels))
        actual = to_numpy(compiled(boxes, labels))
        np.testing.assert_allclose(actual[0], expected[0], atol=1e-4)
        np.testing.assert_array_equal(actual[1], expected[1])


def test_memory_does_not_grow_with_boxes(monkeypatch):
    sizes = []
    original = targets.bounding_boxes.compute_iou

    def spy(anchors, boxes, box_format):
        iou = original(anchors, boxes, box_format)
        sizes.append(iou.shape)
        return iou

    monkeypatch.setattr(targets.bounding_boxes, "compute_iou", spy)
    boxes = np.tile(BOXES[:, :1], (1, 1500, 1))
    labels = np.full((1, 1500), -1)
    labels[0, :20] = 3
    _, classes = to_numpy(match(ANCHORS, boxes, labels))
    assert classes.tolist() == [[3] + [BACKGROUND] * 4]
    assert {tuple(shape)[2] for shape in sizes} == {16}
    if keras.backend.backend() == "tensorflow":
        # Nothing is computed behind the last box.
        assert len(sizes) == 2


def test_small_boxes_have_proper_anchors():
    box = np.array([[[22, 23, 34, 35]]], "float32")
    label = np.array([[0]])
    overlaps = {}
    for sizes in ((32, 64, 128, 256, 512), (8, 16, 32, 64, 128)):
        anchors = make_anchors(64, 64, sizes)
        _, classes = to_numpy(match(anchors, box, label))
        iou = to_numpy(
            keras.utils.bounding_boxes.compute_iou(anchors, box[0], "xyxy")
        )
        overlaps[sizes[0]] = iou[classes[0] >= 0].ravel()
    # Of 12 pixels in a square of 32: 144 / 1024. Nothing but the best anchor
    # is taken, in any case.
    np.testing.assert_allclose(overlaps[32], 144 / 1024, rtol=1e-4)
    assert overlaps[8].max() > 0.5


def test_sizes_scales_and_ratios_of_anchors():
    anchors = to_numpy(make_anchors(8, 8, (8, 20, 30, 40, 50), (1, 2), (4,)))
    sides = anchors[:, 2:] - anchors[:, :2]
    # Half as wide as the square and twice as high; two scales a level.
    np.testing.assert_allclose(
        sides[::2], np.outer((8, 20, 30, 40, 50), (0.5, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(sides[1::2], 2 * sides[::2], rtol=1e-5)
