"""Geometry of boxes, "xyxy" in pixels, as pure functions."""

import tensorflow as tf

# A box keeps its object if at least this part of its area is visible.
MIN_VISIBLE = 0.25


def clip_to_square(boxes, side):
    """Clips boxes to a square.

    Args:
        boxes: `(num_boxes, 4)`, which may reach beyond the square.
        side: Integer, side of the square in pixels.

    Returns:
        The clipped boxes, and booleans `(num_boxes,)`, whether at least a
        quarter of the area is visible.
    """
    inside = tf.clip_by_value(boxes, 0.0, float(side))
    whole = area(boxes)
    is_visible = tf.logical_and(whole > 0, area(inside) >= MIN_VISIBLE * whole)
    return inside, is_visible


def random_flip(image, boxes, seed):
    """Mirrors an image and its boxes with a probability of one half.

    Args:
        image: `(height, width, channels)`.
        boxes: `(num_boxes, 4)`.
        seed: Two integers.

    Returns:
        Image and boxes.
    """
    width = tf.cast(tf.shape(image)[1], "float32")
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    mirrored = tf.stack([width - x2, y1, width - x1, y2], axis=-1)
    is_flipped = tf.random.stateless_uniform((), seed) < 0.5
    return (
        tf.where(is_flipped, tf.reverse(image, [1]), image),
        tf.where(is_flipped, mirrored, boxes),
    )


def area(boxes):
    """Returns the areas `(num_boxes,)` of boxes, arrays or tensors."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
