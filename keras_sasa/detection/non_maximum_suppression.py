"""Non-maximum suppression on any backend, with XLA and any number of images.

Written here because `NonMaxSuppression` of keras-hub 0.32.0 needs to know the
number of images (`predict` fails with a last batch that is smaller) and that of
keras-cv 0.9.0 and `tf.image.combined_non_max_suppression` need TensorFlow, the
latter without XLA.
"""

from keras import ops
from keras.utils import bounding_boxes


def suppress(boxes, scores, labels, iou_threshold, max_detections):
    """Keeps the best of boxes of one class that overlap.

    A box goes if it overlaps one of the same class that stays and has a higher
    score. That is solved for all boxes together: a pass decides what stays
    given what stayed in the pass before, until nothing changes. After `n`
    passes the `n` best are decided, so that the end is that of the usual loop;
    mostly a few passes do.

    Args:
        boxes: `(batch_size, num_boxes, 4)`, `"xyxy"`, best score first.
        scores: `(batch_size, num_boxes)`, falling, 0 for no box.
        labels: Integers `(batch_size, num_boxes)`.
        iou_threshold: Float, intersection over union above which boxes
            overlap.
        max_detections: Integer, boxes to return of each image.

    Returns:
        `(boxes, scores, labels)` of `max_detections` boxes, best first, filled
        up with boxes of -1, scores of 0 and labels of -1.
    """
    overlap = bounding_boxes.compute_iou(boxes, boxes, "xyxy") > iou_threshold
    same_class = labels[:, :, None] == labels[:, None, :]
    number = ops.arange(ops.shape(boxes)[1], dtype="int32")
    better = number[:, None] < number[None, :]
    # suppresses[b, i, j]: whether box j goes if box i stays.
    suppresses = ops.cast(
        ops.logical_and(ops.logical_and(overlap, same_class), better[None]),
        "float32",
    )
    valid = ops.cast(scores > 0, "float32")

    def one_pass(kept, _):
        suppressed = ops.matmul(kept[:, None], suppresses)[:, 0] > 0
        again = ops.where(suppressed, 0.0, valid)
        return again, ops.any(again != kept)

    kept, _ = ops.while_loop(
        lambda kept, changed: changed,
        one_pass,
        (valid, ops.convert_to_tensor(True)),
    )
    scores, best = ops.top_k(kept * scores, max_detections)
    found = scores > 0
    boxes = ops.take_along_axis(boxes, best[..., None], axis=1)
    labels = ops.take_along_axis(labels, best, axis=1)
    return (
        ops.where(found[..., None], boxes, -1.0),
        scores,
        ops.where(found, labels, -1),
    )
