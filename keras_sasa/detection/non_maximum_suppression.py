"""Non-maximum suppression on any backend, with XLA and any number of images.

It is written here because the `NonMaxSuppression` of keras-hub 0.32.0 must know
the number of images (`predict` fails if the last batch is smaller), and because
keras-cv 0.9.0 and `tf.image.combined_non_max_suppression` require TensorFlow,
the latter without XLA.
"""

from keras import ops
from keras.utils import bounding_boxes


def suppress(boxes, scores, labels, iou_threshold, max_detections):
    """Keeps the best of overlapping boxes of the same class.

    A box is suppressed if it overlaps a box of the same class that is kept and
    has a higher score. All boxes are decided together: each pass suppresses the
    boxes that overlap a box kept by the previous pass, until nothing changes.
    After `n` passes the `n` best boxes are final, so the usual loop has the
    same result; in most cases a few passes are enough.

    Args:
        boxes: `(batch_size, num_boxes, 4)`, `"xyxy"`, best score first.
        scores: `(batch_size, num_boxes)`, in descending order, 0 for no box.
        labels: Integers `(batch_size, num_boxes)`.
        iou_threshold: Float, intersection over union above which boxes
            overlap.
        max_detections: Integer, number of boxes to return for each image.

    Returns:
        `(boxes, scores, labels)` of `max_detections` boxes, best first, padded
        with boxes of -1, scores of 0 and labels of -1.
    """
    overlap = bounding_boxes.compute_iou(boxes, boxes, "xyxy") > iou_threshold
    same_class = labels[:, :, None] == labels[:, None, :]
    number = ops.arange(ops.shape(boxes)[1], dtype="int32")
    better = number[:, None] < number[None, :]
    # suppresses[b, i, j]: whether box i suppresses box j, if i is kept.
    suppresses = ops.cast(
        ops.logical_and(ops.logical_and(overlap, same_class), better[None]),
        "float32",
    )
    valid = ops.cast(scores > 0, "float32")

    def one_pass(kept, _):
        suppressed = ops.matmul(kept[:, None], suppresses)[:, 0] > 0
        now_kept = ops.where(suppressed, 0.0, valid)
        return now_kept, ops.any(now_kept != kept)

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
