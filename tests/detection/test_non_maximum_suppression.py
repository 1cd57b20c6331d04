"""Non-maximum suppression against the usual loop."""

import keras
import numpy as np
import pytest

from keras_sasa.detection.non_maximum_suppression import suppress


def to_numpy(tensors):
    return [keras.ops.convert_to_numpy(tensor) for tensor in tensors]


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return common / (sum(areas) - common)


def loop(boxes, scores, labels, iou_threshold, max_detections):
    kept = []
    for i, box in enumerate(boxes):
        if scores[i] > 0 and not any(
            labels[i] == labels[j] and overlap(box, boxes[j]) > iou_threshold
            for j in kept
        ):
            kept.append(i)
    return kept[:max_detections]


@pytest.mark.parametrize("max_detections", [5, 60])
@pytest.mark.parametrize("iou_threshold", [0.2, 0.5])
def test_equals_the_loop(iou_threshold, max_detections):
    random = np.random.default_rng(0)
    boxes = random.uniform(0, 20, (3, 80, 4)).astype("float32")
    boxes[..., 2:] = boxes[..., :2] + 10 + boxes[..., 2:] / 2
    scores = np.sort(random.uniform(0, 1, (3, 80)))[:, ::-1].astype("float32")
    scores[0, 60:] = 0
    labels = random.integers(0, 2, (3, 80))
    found = to_numpy(
        suppress(boxes, scores.copy(), labels, iou_threshold, max_detections)
    )
    for image in range(3):
        kept = loop(
            boxes[image],
            scores[image],
            labels[image],
            iou_threshold,
            max_detections,
        )
        assert 5 <= len(kept) < 60
        for actual, values in zip(found, (boxes, scores, labels), strict=True):
            np.testing.assert_array_equal(
                actual[image, : len(kept)], values[image, kept]
            )
        assert (found[0][image, len(kept) :] == -1).all()
        assert (found[1][image, len(kept) :] == 0).all()
        assert (found[2][image, len(kept) :] == -1).all()


def test_a_chain():
    # The first suppresses the second, which would have suppressed the third.
    boxes = np.array(
        [[[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]], "float32"
    )
    scores = np.array([[0.9, 0.8, 0.7]], "float32")
    labels = np.zeros((1, 3), "int32")
    _, kept, _ = to_numpy(suppress(boxes, scores, labels, 0.4, 3))
    np.testing.assert_allclose(kept, [[0.9, 0.7, 0]])


def test_no_box():
    boxes, scores, labels = to_numpy(
        suppress(
            np.zeros((2, 4, 4), "float32"),
            np.zeros((2, 4), "float32"),
            np.zeros((2, 4), "int32"),
            0.5,
            3,
        )
    )
    assert (boxes == -1).all() and (scores == 0).all() and (labels == -1).all()
