"""Geometry of images with boxes: resized, cut, mirrored, and back.

Boxes are "xyxy" in pixels. Everything is a function of its arguments and of
stateless random numbers, so that `tf.data` may call it in any order.
"""

import tensorflow as tf

# As usual for RetinaNet with jitter; the paper does not give its range.
SCALE_JITTER = (0.8, 1.2)
# A box of which less than this part of the area is left has lost its object.
MIN_VISIBLE = 0.25


def letterbox(image, side):
    """Resizes an image so that it just fits into a square, and fills that up.

    Args:
        image: `(height, width, channels)`.
        side: Integer, side of the square in pixels.

    Returns:
        The square, `uint8`, with the image in its upper left corner and 0
        elsewhere, and the scale by which boxes are multiplied.
    """
    scale = side / tf.reduce_max(tf.shape(image)[:2])
    resized = _resize(image, scale)
    return _fill_up(resized, side), tf.cast(scale, "float32")


def undo_letterbox(boxes, scale, height, width):
    """Moves boxes of a letterboxed image into the pixels of the original.

    Args:
        boxes: `(..., 4)` in pixels of the square.
        scale: What `letterbox` returned.
        height: Height of the original in pixels.
        width: Width of the original.

    Returns:
        Boxes, cut off at the borders of the original.
    """
    sides = tf.cast(tf.stack([width, height, width, height]), "float32")
    return tf.clip_by_value(tf.convert_to_tensor(boxes) / scale, 0.0, sides)


def scale_jitter(image, boxes, side, seed):
    """Resizes an image at random, and cuts out a square or fills it up.

    Args:
        image: `(height, width, channels)`.
        boxes: `(num_boxes, 4)`.
        side: Integer, side of the square in pixels.
        seed: Two integers.

    Returns:
        The square, `uint8`, and the boxes in it, which are to be given to
        `visible`.
    """
    size_seed, place_seed = tf.unstack(tf.random.split(seed, 2))
    jitter = tf.random.stateless_uniform((), size_seed, *SCALE_JITTER)
    longest = tf.cast(tf.reduce_max(tf.shape(image)[:2]), "float32")
    scale = jitter * side / longest
    image = _resize(image, scale)
    room = tf.maximum(tf.shape(image)[:2] - side, 0)
    part = tf.random.stateless_uniform((2,), place_seed)
    # From 0 to room, both included.
    corner = tf.cast(part * tf.cast(room + 1, "float32"), "int32")
    top, left = tf.unstack(corner)
    image = image[top : top + side, left : left + side]
    moved = tf.cast(tf.stack([left, top, left, top]), "float32")
    return _fill_up(image, side), boxes * scale - moved


def visible(boxes, side):
    """Cuts boxes off at the borders of a square.

    Args:
        boxes: `(num_boxes, 4)`, of which parts may lie outside.
        side: Integer, side of the square in pixels.

    Returns:
        The boxes inside, and booleans `(num_boxes,)`, whether at least a
        quarter of the area is left.
    """
    inside = tf.clip_by_value(boxes, 0.0, float(side))
    whole = area(boxes)
    is_visible = tf.logical_and(whole > 0, area(inside) >= MIN_VISIBLE * whole)
    return inside, is_visible


def random_flip(image, boxes, seed):
    """Mirrors every second image and its boxes.

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


def _resize(image, scale):
    size = tf.cast(tf.shape(image)[:2], "float32") * tf.cast(scale, "float32")
    size = tf.maximum(tf.cast(tf.round(size), "int32"), 1)
    # Averages where pixels become fewer.
    resized = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), "uint8")


def _fill_up(image, side):
    height, width = tf.unstack(tf.shape(image)[:2])
    channels = image.shape[-1]
    image = tf.pad(image, ((0, side - height), (0, side - width), (0, 0)))
    return tf.ensure_shape(image, (side, side, channels))


def area(boxes):
    """Returns the areas `(num_boxes,)` of boxes, arrays or tensors."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
