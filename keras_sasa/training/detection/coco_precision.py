"""COCO's average precisions, computed by pycocotools.

Lin et al., 2014 (https://arxiv.org/abs/1405.0312).
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sasa._optional_imports import optional_import

# In the order of `pycocotools.cocoeval.COCOeval.stats`.
METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def average_precision(
    truths: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    num_classes: int,
) -> dict[str, float]:
    """Computes COCO's average precisions.

    Args:
        truths: List with a dict for each image: `"image_id"`, `"boxes"`
            `(num_boxes, 4)` in "xyxy", `"labels"`, `"areas"` and `"is_crowd"`.
        detections: List with a dict for each image: `"image_id"`, `"boxes"`,
            `"labels"` and `"scores"`.
        num_classes: Integer.

    Returns:
        Dict from the names in `METRICS` to floats from 0 to 1, or NaN if there
        is no object of that size.

    Raises:
        ValueError: If `truths` have no boxes, or boxes of crowds only.
        ImportError: If pycocotools is missing.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.training.detection.coco_precision import (
    ...     average_precision,
    ... )
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
    # pycocotools reports its progress on the standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        measured = COCOeval(
            _coco(truths, num_classes), _coco(detections, num_classes), "bbox"
        )
        measured.params.imgIds = [truth["image_id"] for truth in truths]
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return {
        # pycocotools returns -1 if there is no object.
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(METRICS, measured.stats, strict=False)
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
                # pycocotools ignores annotations with the id 0.
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
