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

# Boxes that are compared with all anchors at a time.
_CHUNK = 16
# What makes an anchor prefer the box whose best it is to all others.
_FORCED = 2.0
_ROUNDING = 1e-6


def match(anchors, boxes, labels):
    """Assigns to each anchor a box, the background, or nothing.

    An anchor takes the box it overlaps most if the intersection over union is
    at least 0.5, is background below 0.4, and is ignored in between. The best
    anchor of each box takes that box in any case, so that none is lost.

    Boxes are compared with all anchors a few at a time, so that memory does
    not grow with the boxes of the fullest image, and rows that only fill up
    behind the last box cost nothing.

    Args:
        anchors: `(num_anchors, 4)`, `"xyxy"` in pixels.
        boxes: `(batch_size, num_boxes, 4)` in the same format. There may be
            none.
        labels: Integers `(batch_size, num_boxes)`, -1 for rows of `boxes` that
            only fill up. Boxes without area are never taken.

    Returns:
        `(indices, classes)`, integers `(batch_size, num_anchors)`: which box,
        and its label, `BACKGROUND` or `IGNORED`. The index is of use for a
        label only.
    """
    labels = ops.cast(labels, "int32")
    boxes, labels, chunk = _whole_chunks(boxes, labels)
    batch, number = ops.shape(labels)
    # One behind the last box of the fullest image.
    numbers = ops.arange(1, number + 1, dtype="int32")
    end = ops.max(ops.where(labels >= 0, numbers, 0))

    # Of one type for JAX, whose integers may have 64 bits.
    zero = ops.convert_to_tensor(0, "int32")

    def compare(start, best, preference, indices, classes):
        some_boxes = ops.slice(boxes, (zero, start, zero), (batch, chunk, 4))
        some_labels = ops.slice(labels, (zero, start), (batch, chunk))
        iou = bounding_boxes.compute_iou(anchors, some_boxes, "xyxy")
        # iou = (batch_size, num_anchors, chunk)
        iou = ops.where((some_labels >= 0)[:, None], iou, 0.0)
        best_of_box = ops.max(iou, axis=1, keepdims=True)
        # Equal up to rounding: XLA may compute the two in different ways.
        forced = iou > best_of_box * (1 - _ROUNDING)
        # Above all that is not forced: intersection over union is at most one.
        preferences = iou + _FORCED * ops.cast(forced, "float32")
        some_preference = ops.max(preferences, axis=-1)
        some_indices = ops.argmax(preferences, axis=-1)
        some_classes = ops.take_along_axis(some_labels, some_indices, axis=1)
        # Of equal boxes the first is taken.
        is_better = some_preference > preference
        return (
            start + chunk,
            ops.maximum(best, ops.max(iou, axis=-1)),
            ops.where(is_better, some_preference, preference),
            ops.where(
                is_better, start + ops.cast(some_indices, "int32"), indices
            ),
            ops.where(is_better, some_classes, classes),
        )

    shape = (batch, ops.shape(anchors)[0])
    _, best, preference, indices, classes = ops.while_loop(
        lambda start, *_: start < end,
        compare,
        (
            zero,
            ops.zeros(shape, "float32"),
            ops.full(shape, -1.0, "float32"),
            ops.zeros(shape, "int32"),
            ops.full(shape, BACKGROUND, "int32"),
        ),
    )
    positive = ops.logical_or(best >= POSITIVE_IOU, preference >= _FORCED)
    classes = ops.where(
        positive,
        classes,
        ops.where(best < NEGATIVE_IOU, BACKGROUND, IGNORED),
    )
    return indices, classes


def _whole_chunks(boxes, labels):
    """Fills boxes up to whole chunks; returns boxes, labels and the chunk."""
    number = ops.shape(labels)[1]
    chunk = _CHUNK
    if isinstance(number, int):
        # One row at least, for there to be something to index.
        chunk = max(min(number, chunk), 1)
        filling = max(number, 1) + -max(number, 1) % chunk - number
    else:
        filling = ops.maximum(number, 1) + -ops.maximum(number, 1) % chunk
        filling -= number
    boxes = ops.pad(boxes, ((0, 0), (0, filling), (0, 0)))
    labels = ops.pad(labels, ((0, 0), (0, filling)), constant_values=-1)
    return boxes, labels, chunk


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
    boxes, labels, _ = _whole_chunks(boxes, labels)
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
