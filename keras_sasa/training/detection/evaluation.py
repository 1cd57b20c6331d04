"""Boxes in the pixels of original images, and their precision by pycocotools.

Lin et al., 2014 (https://arxiv.org/abs/1405.0312) for the measure.
"""

import contextlib
import io

import keras
import numpy as np
import tensorflow as tf
from keras.utils import bounding_boxes

from keras_sasa._optional_imports import optional_import
from keras_sasa.data import box_transforms
from keras_sasa.data.detection_batches import NOTHING, letterboxed_batches

# In the order of `pycocotools.cocoeval.COCOeval.stats`.
METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def detect(model, images, image_size, min_score=0.0):
    """Finds the objects in images of any size.

    Args:
        model: A `RetinaNet` that takes bytes, as `fit` trains it.
        images: List of `uint8` arrays `(height, width, channels)`.
        image_size: Integer, side of the square that each is letterboxed to:
            that of the training.
        min_score: Float, score below which a box is left out.

    Returns:
        A list of a dict for each image, best box first: `"boxes"`
        `(num_boxes, 4)`, "xyxy" in the pixels of that image, `"scores"` and
        `"labels"`.
    """
    squares, scales = zip(
        *(box_transforms.letterbox(tf.constant(i), image_size) for i in images),
        strict=True,
    )
    found = model.predict_on_batch(np.stack(squares))
    all_found = []
    for index, (scale, image) in enumerate(zip(scales, images, strict=True)):
        one = _in_original(model, found, index, scale, *image.shape[:2])
        kept = one["scores"] >= min_score
        all_found.append({name: values[kept] for name, values in one.items()})
    return all_found


def evaluate(model, data, recipe, dataset=None):
    """Measures the average precision over all images held out.

    Args:
        model: A `RetinaNet` that takes bytes, as `fit` trains it.
        data: A `DetectionData`.
        recipe: A `Recipe`: batch size and image size.
        dataset: `data.train` to measure on those. Default: `data.validation`.

    Returns:
        Dict as of `average_precision`.

    Raises:
        ValueError: If there are no images, or no boxes in them but of crowds.
        ImportError: If pycocotools is missing.
    """
    check_has_boxes(data.validation if dataset is None else dataset)
    truths, detections = [], []
    batches = letterboxed_batches(data, recipe, dataset)
    for images, examples in batches.as_numpy_iterator():
        found = model.predict_on_batch(images)
        for index, image_id in enumerate(examples["image_id"]):
            if image_id == NOTHING:
                continue
            one = {name: value[index] for name, value in examples.items()}
            real = one["labels"] != NOTHING
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


def check_has_boxes(dataset, purpose="to measure detections by"):
    """Checks that there is an object that can be learned or found.

    Args:
        dataset: `tf.data.Dataset`, as of a `DetectionData`.
        purpose: String, what the boxes are for.

    Raises:
        ValueError: If there are no images, or no boxes in them but of crowds.
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


def average_precision(truths, detections, num_classes):
    """Computes COCO's average precisions.

    Args:
        truths: List of a dict for each image: `"image_id"`, `"boxes"`
            `(num_boxes, 4)` in "xyxy", `"labels"`, `"areas"` and `"is_crowd"`.
        detections: List of a dict for each image: `"image_id"`, `"boxes"`,
            `"labels"` and `"scores"`.
        num_classes: Integer.

    Returns:
        Dict from the names in `METRICS` to floats from 0 to 1, or nan where
        there is no object of that size.

    Raises:
        ValueError: If there is no box in `truths` but of crowds.
        ImportError: If pycocotools is missing.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.training.detection.evaluation import average_precision
    >>> box = {"image_id": 7, "boxes": np.array([[10, 10, 60, 50]]),
    ...        "labels": np.array([0])}
    >>> truth = {**box, "areas": [2000], "is_crowd": [0]}
    >>> found = {**box, "scores": [0.9]}
    >>> round(average_precision([truth], [found], 1)["AP"], 6)
    1.0
    """
    optional_import("pycocotools")
    from pycocotools.cocoeval import COCOeval

    if all(np.all(truth["is_crowd"]) for truth in truths):
        raise ValueError(
            "`truths` must have a box, other than of a crowd, to compare "
            f"detections with. Received: {len(truths)} images without any."
        )
    # pycocotools prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        measured = COCOeval(
            _coco(truths, num_classes), _coco(detections, num_classes), "bbox"
        )
        measured.params.imgIds = [truth["image_id"] for truth in truths]
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return {
        # Its -1 stands for no object.
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(METRICS, measured.stats, strict=False)
    }


def _in_original(model, found, index, scale, height, width):
    """Returns the boxes of one image of a batch in its own pixels."""
    number = int(np.sum(found["labels"][index] != NOTHING))
    boxes = bounding_boxes.convert_format(
        found["boxes"][index, :number], model.bounding_box_format, "xyxy"
    )
    boxes = box_transforms.undo_letterbox(
        keras.ops.convert_to_numpy(boxes), scale, height, width
    )
    return {
        "boxes": boxes.numpy(),
        "scores": found["scores"][index, :number],
        "labels": found["labels"][index, :number],
    }


def _coco(images, num_classes):
    """Makes a `pycocotools.coco.COCO` of truths or detections."""
    from pycocotools.coco import COCO

    annotations = []
    for image in images:
        boxes = np.asarray(image["boxes"], "float64")
        sides = boxes[:, 2:] - boxes[:, :2]
        for index, label in enumerate(image["labels"]):
            annotation = {
                # Of 0 it thinks that it is no annotation.
                "id": len(annotations) + 1,
                "image_id": image["image_id"],
                "category_id": int(label),
                "bbox": [*boxes[index, :2], *sides[index]],
                "area": float(sides[index].prod()),
                "iscrowd": 0,
            }
            if "scores" in image:
                annotation["score"] = float(image["scores"][index])
            else:
                annotation["area"] = float(image["areas"][index])
                annotation["iscrowd"] = int(image["is_crowd"][index])
            annotations.append(annotation)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image["image_id"]} for image in images],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
