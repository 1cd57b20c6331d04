"""Runs detectors on images of any size, and measures their precision."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras.utils import bounding_boxes

from keras_sasa.data.detection.batches import PADDING, letterboxed_batches
from keras_sasa.data.detection.detection_data import DetectionData
from keras_sasa.data.resizing import letterbox, undo_letterbox
from keras_sasa.training.detection.coco_precision import average_precision
from keras_sasa.training.engine.recipe import Recipe


def detect(
    model: keras.Model,
    images: Sequence[np.ndarray],
    image_size: int,
    min_score: float = 0.0,
) -> list[dict[str, np.ndarray]]:
    """Finds the objects in images of any size.

    Args:
        model: A `RetinaNet` for images of bytes, such as `fit` trains.
        images: List of `uint8` arrays `(height, width, channels)`.
        image_size: Integer, side of the square to which images are
            letterboxed, as in training.
        min_score: Float. Boxes with a lower score are omitted.

    Returns:
        A list with a dict for each image, best box first: `"boxes"`
        `(num_boxes, 4)`, "xyxy" in the pixels of that image, `"scores"` and
        `"labels"`.
    """
    squares, scales = zip(
        *(letterbox(tf.constant(i), image_size) for i in images),
        strict=True,
    )
    found = model.predict_on_batch(np.stack(squares))
    all_found = []
    for index, (scale, image) in enumerate(zip(scales, images, strict=True)):
        one = _in_original(model, found, index, scale, *image.shape[:2])
        kept = one["scores"] >= min_score
        all_found.append({name: values[kept] for name, values in one.items()})
    return all_found


def evaluate(
    model: keras.Model,
    data: DetectionData,
    recipe: Recipe,
    dataset: tf.data.Dataset | None = None,
) -> dict[str, float]:
    """Measures the average precision on all validation images.

    Args:
        model: A `RetinaNet` for images of bytes, such as `fit` trains.
        data: A `DetectionData`.
        recipe: A `Recipe`, of which batch size and image size are used.
        dataset: `data.train` to measure on the training images. Default:
            `data.validation`.

    Returns:
        Dict, see `average_precision`.

    Raises:
        ValueError: If there are no images, or no boxes other than of crowds.
        ImportError: If pycocotools is missing.
    """
    check_has_boxes(data.validation if dataset is None else dataset)
    truths, detections = [], []
    batches = letterboxed_batches(
        data, recipe.image_size, recipe.batch_size, dataset
    )
    for images, examples in batches.as_numpy_iterator():
        found = model.predict_on_batch(images)
        for index, image_id in enumerate(examples["image_id"]):
            if image_id == PADDING:
                continue
            one = {name: value[index] for name, value in examples.items()}
            real = one["labels"] != PADDING
            truths.append(
                {
                    "image_id": image_id,
                    **{
                        name: one[name][real]
                        for name in ("boxes", "labels", "areas", "is_crowd")
                    },
                }
            )
            detection = _in_original(
                model, found, index, one["scale"], one["height"], one["width"]
            )
            detections.append({"image_id": image_id, **detection})
    return average_precision(truths, detections, data.num_classes)


def check_has_boxes(
    dataset: tf.data.Dataset, purpose: str = "to measure detections by"
) -> None:
    """Checks that a data set has an object to learn or to find.

    Args:
        dataset: `tf.data.Dataset` of a `DetectionData`.
        purpose: String, what the boxes are for.

    Raises:
        ValueError: If there are no images, or no boxes other than of crowds.
    """
    images = crowds = 0
    for is_crowd in dataset.map(lambda example: example["is_crowd"]):
        if not np.all(is_crowd):
            return
        images += 1
        crowds += len(is_crowd)
    raise ValueError(
        f"There must be a box {purpose}, other than of a crowd. Received: "
        f"{images} images with {crowds} boxes, all of crowds."
        if crowds
        else f"There must be a box {purpose}. Received: {images} images "
        "without any."
    )


def _in_original(model, found, index, scale, height, width):
    """Returns the boxes of one image of a batch, in the pixels of the image."""
    number = int(np.sum(found["labels"][index] != PADDING))
    boxes = bounding_boxes.convert_format(
        found["boxes"][index, :number], model.bounding_box_format, "xyxy"
    )
    boxes = undo_letterbox(
        keras.ops.convert_to_numpy(boxes), scale, height, width
    )
    return {
        "boxes": boxes.numpy(),
        "scores": found["scores"][index, :number],
        "labels": found["labels"][index, :number],
    }
