"""A random scale, then a random crop if the image exceeds the square."""

import tensorflow as tf

from keras_sasa.data.augmentation.augmentation import Augmentation
from keras_sasa.data.resizing import pad_to_square, rescale

# As usual for RetinaNet with jitter; the paper does not give its range.
RANGE = (0.8, 1.2)


def scale_jitter(image, boxes, side, seed):
    """Resizes an image at random, then crops or pads it to a square.

    Args:
        image: `uint8` tensor `(height, width, channels)`.
        boxes: `(num_boxes, 4)`, "xyxy" in pixels.
        side: Integer, side of the square in pixels.
        seed: Two integers.

    Returns:
        The square, `uint8`, and the boxes in it. They may reach beyond it, see
        `keras_sasa.data.detection.box_transforms.clip_to_square`.
    """
    size_seed, place_seed = tf.unstack(tf.random.split(seed, 2))
    jitter = tf.random.stateless_uniform((), size_seed, *RANGE)
    longest = tf.cast(tf.reduce_max(tf.shape(image)[:2]), "float32")
    scale = jitter * side / longest
    image = rescale(image, scale)
    room = tf.maximum(tf.shape(image)[:2] - side, 0)
    part = tf.random.stateless_uniform((2,), place_seed)
    # From 0 to `room`, both included.
    corner = tf.cast(part * tf.cast(room + 1, "float32"), "int32")
    top, left = tf.unstack(corner)
    image = image[top : top + side, left : left + side]
    moved = tf.cast(tf.stack([left, top, left, top]), "float32")
    return pad_to_square(image, side), boxes * scale - moved


SCALE_JITTER = Augmentation(scale_jitter, labels="boxes", resizing="letterbox")
