"""The loss of a detector: focal loss of classes plus Huber loss of boxes."""

import keras
from keras import ops

from keras_sasa.detection.labels import image_weights
from keras_sasa.detection.targets import IGNORED


def detection_loss(outputs, deltas, classes, sample_weight=None):
    """Computes the loss of a batch.

    The sum over all anchors is divided by the number of anchors with a box on
    all devices together. That number counts as at least one, so that images
    without boxes teach the background.

    Args:
        outputs: Dict of `"class_logits"` `(batch_size, num_anchors,
            num_classes)` and `"box_deltas"` `(batch_size, num_anchors, 4)`.
        deltas: Targets of the boxes, see `make_targets`.
        classes: Targets of the classes, see `make_targets`.
        sample_weight: A number for each image, see `image_weights`, or `None`.

    Returns:
        Scalar tensor.

    Reference:
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 3.
    """
    logits = ops.cast(outputs["class_logits"], "float32")
    num_classes = logits.shape[-1]
    positive = ops.cast(classes >= 0, "float32")
    normalizer = ops.maximum(sum_over_replicas(ops.sum(positive)), 1.0)
    # Keras' two losses are means over the last axis.
    class_loss = num_classes * keras.losses.binary_focal_crossentropy(
        ops.one_hot(classes, num_classes, dtype="float32"),
        logits,
        apply_class_balancing=True,
        alpha=0.25,
        gamma=2.0,
        from_logits=True,
    )
    class_loss *= ops.cast(classes != IGNORED, "float32")
    box_loss = 4 * keras.losses.huber(
        deltas, ops.cast(outputs["box_deltas"], "float32")
    )
    box_loss *= positive
    if sample_weight is not None:
        weights = image_weights(sample_weight)[:, None]
        class_loss, box_loss = weights * class_loss, weights * box_loss
    return (ops.sum(class_loss) + ops.sum(box_loss)) / normalizer


def sum_over_replicas(value):
    """Sums a tensor over all replicas of a `tf.distribute.Strategy`."""
    if keras.backend.backend() != "tensorflow":
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
