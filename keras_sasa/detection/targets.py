"""Targets of the predictions of all anchors.

Intersection over union and the encoding of boxes come from Keras
(`keras.utils.bounding_boxes`). The matching is written here, because keras-hub
0.32.0 keeps all of it private except for its matrix, requires known image
sizes, and sets the loss of a batch without boxes to zero, although such a batch
should teach the background.
"""

from keras import ops
from keras.utils import bounding_boxes

BACKGROUND = -1
IGNORED = -2

# Lin et al., 2017 (https://arxiv.org/abs/1708.02002), section 4.
POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
# Standard deviations of center offsets and log sizes, by which they are divided
# as in Faster R-CNN (https://arxiv.org/abs/1506.01497) and its successors.
BOX_VARIANCE = (0.1, 0.1, 0.2, 0.2)
_ENCODING = "center_xywh"

# Number of boxes that are compared with all anchors at a time.
_CHUNK = 16
# Makes an anchor prefer a box for which it is the best anchor.
_FORCED = 2.0
_ROUNDING = 1e-6


def match(anchors, boxes, labels):
    """Assigns each anchor a box or the background, or ignores it.

    An anchor takes the box that it overlaps most if the intersection over
    union is at least 0.5, is background below 0.4, and is ignored in between.
    The best anchor of each box takes that box in any case, so no box is lost.

    Boxes are compared with all anchors a few at a time. Memory therefore does
    not grow with the number of boxes in the fullest image, and padding behind
    the last box costs nothing.

    Args:
        anchors: `(num_anchors, 4)`, `"xyxy"` in pixels.
        boxes: `(batch_size, num_boxes, 4)` in the same format; `num_boxes`
            may be 0.
        labels: Integers `(batch_size, num_boxes)`, -1 for padding. Boxes
            without area are never taken.

    Returns:
        `(indices, classes)`, integers `(batch_size, num_anchors)`: the index
        of the box, and its label, `BACKGROUND` or `IGNORED`. For the latter
        two the index has no meaning.
    """
    labels = ops.cast(labels, "int32")
    boxes, labels, chunk = _whole_chunks(boxes, labels)
    batch, number = ops.shape(labels)
    # One after the last box of the fullest image.
    numbers = ops.arange(1, number + 1, dtype="int32")
    end = ops.max(ops.where(labels >= 0, numbers, 0))

    # One type for all integers; they may have 64 bits in JAX.
    zero = ops.convert_to_tensor(0, "int32")

    def compare(start, best, preference, indices, classes):
        some_boxes = ops.slice(boxes, (zero, start, zero), (batch, chunk, 4))
        some_labels = ops.slice(labels, (zero, start), (batch, chunk))
        iou = bounding_boxes.compute_iou(anchors, some_boxes, "xyxy")
        # iou = (batch_size, num_anchors, chunk)
        iou = ops.where((some_labels >= 0)[:, None], iou, 0.0)
        best_of_box = ops.max(iou, axis=1, keepdims=True)
        # Equal up to rounding, since XLA may compute the two differently.
        forced = iou > best_of_box * (1 - _ROUNDING)
        # Exceeds all unforced ones: intersection over union is at most one.
        preferences = iou + _FORCED * ops.cast(forced, "float32")
        some_preference = ops.max(preferences, axis=-1)
        some_indices = ops.argmax(preferences, axis=-1)
        some_classes = ops.take_along_axis(some_labels, some_indices, axis=1)
        # The first of equal boxes is taken.
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
    """Pads boxes to whole chunks; returns boxes, labels and the chunk size."""
    number = ops.shape(labels)[1]
    chunk = _CHUNK
    if isinstance(number, int):
        # At least one row, so that indices are valid.
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
        labels: Integers `(batch_size, num_boxes)`, -1 for padding.

    Returns:
        `(deltas, classes)`: targets of the box head `(batch_size, num_anchors,
        4)`, zeros where there is no box, and the integers `(batch_size,
        num_anchors)` of `match`.
    """
    boxes, labels, _ = _whole_chunks(boxes, labels)
    indices, classes = match(anchors, boxes, labels)
    matched = ops.take_along_axis(boxes, indices[..., None], axis=1)
    # An anchor without a box is matched with itself: log sizes of padding are
    # NaN or infinite, and would stay so if multiplied by a weight of zero.
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
    """Makes boxes from predictions of the box head; inverts `make_targets`.

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
