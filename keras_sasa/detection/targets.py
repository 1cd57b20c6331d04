"""Targets: what each anchor should predict.

Intersection over union and the encoding of boxes are Keras'
(`keras.utils.bounding_boxes`). The matching is written here: that of keras-hub
0.32.0 is private but for its matrix, needs known image sizes, and zeroes the
loss of a batch without boxes, from which background should be learned.
"""

from keras import ops
from keras.utils import bounding_boxes

BACKGROUND = -1
IGNORED = -2

# Lin et al., 2017 (https://arxiv.org/abs/1708.02002), section 4.
POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
# Deviations that the offsets of centres and log-sizes are divided by, as in
# Faster R-CNN (https://arxiv.org/abs/1506.01497) and its successors.
BOX_VARIANCE = (0.1, 0.1, 0.2, 0.2)
_ENCODING = "center_xywh"


def match(anchors, boxes, labels):
    """Assigns to each anchor a box, the background, or nothing.

    An anchor takes the box it overlaps most if the intersection over union is
    at least 0.5, is background below 0.4, and is ignored in between. The best
    anchor of each box takes that box in any case, so that none is lost.

    Args:
        anchors: `(num_anchors, 4)`, `"xyxy"` in pixels.
        boxes: `(batch_size, num_boxes, 4)` in the same format.
        labels: Integers `(batch_size, num_boxes)`, -1 for rows of `boxes` that
            only fill up. Boxes without area are never taken.

    Returns:
        `(indices, classes)`, integers `(batch_size, num_anchors)`: which box,
        and its label, `BACKGROUND` or `IGNORED`. The index is of use for a
        label only.
    """
    labels = ops.cast(labels, "int32")
    iou = bounding_boxes.compute_iou(anchors, boxes, "xyxy")
    # iou = (batch_size, num_anchors, num_boxes)
    iou = ops.where((labels >= 0)[:, None], iou, 0.0)
    best_of_box = ops.max(iou, axis=1, keepdims=True)
    forced = ops.logical_and(iou == best_of_box, iou > 0)
    # Above all that is not forced: intersection over union is at most one.
    preference = iou + 2 * ops.cast(forced, "float32")
    indices = ops.argmax(preference, axis=-1)
    best = ops.max(iou, axis=-1)
    positive = ops.logical_or(best >= POSITIVE_IOU, ops.any(forced, axis=-1))
    classes = ops.where(
        positive,
        ops.take_along_axis(labels, indices, axis=1),
        ops.where(best < NEGATIVE_IOU, BACKGROUND, IGNORED),
    )
    return indices, classes


def make_targets(anchors, boxes, labels):
    """Makes the targets of a batch, see `match`.

    Args:
        anchors: `(num_anchors, 4)`, `"xyxy"` in pixels.
        boxes: `(batch_size, num_boxes, 4)` in the same format.
        labels: Integers `(batch_size, num_boxes)`, -1 to fill up.

    Returns:
        `(deltas, classes)`: what the box head should predict, `(batch_size,
        num_anchors, 4)`, zeros where there is no box, and the integers
        `(batch_size, num_anchors)` of `match`.
    """
    indices, classes = match(anchors, boxes, labels)
    matched = ops.take_along_axis(boxes, indices[..., None], axis=1)
    # An anchor without a box gets itself: the logarithm of the sizes of rows
    # that only fill up is no number, which no weight of zero makes one.
    matched = ops.where((classes >= 0)[..., None], matched, anchors[None])
    deltas = bounding_boxes.encode_box_to_deltas(
        anchors,
        matched,
        anchor_format="xyxy",
        box_format="xyxy",
        encoding_format=_ENCODING,
        variance=BOX_VARIANCE,
    )
    return deltas, classes


def decode(anchors, deltas):
    """Makes boxes of what the box head predicts, `make_targets` backwards.

    Args:
        anchors: `(num_anchors, 4)`, `"xyxy"` in pixels.
        deltas: `(batch_size, num_anchors, 4)`.

    Returns:
        Boxes `(batch_size, num_anchors, 4)`, `"xyxy"` in pixels.
    """
    return bounding_boxes.decode_deltas_to_boxes(
        anchors,
        deltas,
        anchor_format="xyxy",
        box_format="xyxy",
        encoded_format=_ENCODING,
        variance=BOX_VARIANCE,
    )
