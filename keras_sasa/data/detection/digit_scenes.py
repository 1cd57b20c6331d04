"""Scenes of scikit-learn's digits on noise, made without a download."""

import numpy as np

from keras_sasa.data.classification import digits as single_digits
from keras_sasa.data.detection.box_transforms import area
from keras_sasa.data.detection.detection_data import (
    Annotations,
    DetectionData,
    make_examples,
)

_SIDE = 128
_TRAINING_SCENES = 2000
_VALIDATION_SCENES = 200
_MAX_DIGITS = 8
_DIGIT_SIDES = (20, 52)
# A digit is dropped if it overlaps with others at this many places.
_PLACES = 20


def load() -> DetectionData:
    """Makes the scenes, see `load_detection_data`."""
    digits = single_digits.load()

    def scenes(dataset, number, seed):
        pixels, labels = zip(*dataset.as_numpy_iterator(), strict=True)
        images, boxes, labels = make_scenes(
            np.stack(pixels)[..., 0], np.array(labels), number, seed
        )
        return make_examples(
            images,
            range(1, number + 1),
            [
                Annotations(b, c, np.zeros(len(c), bool), area(b))
                for b, c in zip(boxes, labels, strict=True)
            ],
        )

    return DetectionData(
        train=scenes(digits.train, _TRAINING_SCENES, 0),
        validation=scenes(digits.validation, _VALIDATION_SCENES, 1),
        class_names=digits.class_names,
        channels=1,
    )


def make_scenes(digits, labels, number, seed):
    """Makes scenes of 1 to 8 digits of different sizes on noise.

    Args:
        digits: Array `(count, 8, 8)` of 0 to 16.
        labels: Integers `(count,)`.
        number: Integer, number of scenes.
        seed: Integer.

    Returns:
        Images `(number, 128, 128, 1)` in `uint8`, and for each image a float32
        array of the boxes around the visible parts of its digits and an array
        of their labels.
    """
    random = np.random.default_rng(seed)
    shape = (number, _SIDE, _SIDE, 1)
    images = random.integers(0, 96, shape, "uint8")
    all_boxes, all_labels = [], []
    for image in images:
        boxes, classes = [], []
        for _ in range(random.integers(1, _MAX_DIGITS + 1)):
            side = int(random.integers(_DIGIT_SIDES[0], _DIGIT_SIDES[1] + 1))
            index = random.integers(len(digits))
            drawn = _enlarge(digits[index] * (255 / 16), side)
            rows, columns = np.nonzero(drawn > 64)
            inside = np.array(
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            )
            for _ in range(_PLACES):
                y, x = random.integers(0, _SIDE - side + 1, 2)
                box = inside + [x, y, x, y]
                if any(_overlap(box, other) for other in boxes):
                    continue
                part = image[y : y + side, x : x + side, 0]
                np.maximum(part, drawn.astype("uint8"), out=part)
                boxes.append(box)
                classes.append(labels[index])
                break
        all_boxes.append(np.array(boxes, "float32"))
        all_labels.append(np.array(classes, "int64"))
    return images, all_boxes, all_labels


def _overlap(box, other):
    return (
        box[0] < other[2]
        and other[0] < box[2]
        and box[1] < other[3]
        and other[1] < box[3]
    )


def _enlarge(digit, side):
    """Interpolates linearly between the centres of pixels."""
    places = (np.arange(side) + 0.5) * len(digit) / side - 0.5
    distances = np.abs(places[:, None] - np.arange(len(digit)))
    weights = np.maximum(1 - distances, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ digit @ weights.T
