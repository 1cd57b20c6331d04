"""How an image of any size becomes a square of a given size.

`keras_sasa.layers.image_rescaling.RESIZINGS` lists the names:
`"central_square"` and `"central_crop"` for classifiers, `"letterbox"` for
detectors.
"""

import tensorflow as tf

from keras_sasa.data.image_data import ImageFormat

# The side of the square as a part of the shorter side of the image. 7/8 is
# usual for networks trained with resized crops.
_CENTRAL_PARTS = {"central_square": 1.0, "central_crop": 0.875}


def check_central(resizing: str) -> None:
    """Raises an error if `resizing` is not for the images of classifiers."""
    if resizing not in _CENTRAL_PARTS:
        raise ValueError(
            f"`resizing` must be one of {tuple(_CENTRAL_PARTS)} to classify "
            f"images. Received: resizing={resizing!r}."
        )


def prepare_image(image: tf.Tensor, image_format: ImageFormat) -> tf.Tensor:
    """Prepares an image as for the evaluation of a classifier.

    The middle square is resized, so that proportions stay. Its side is the
    shorter side of the image, or 7/8 of it for `"central_crop"`.

    Args:
        image: `uint8` tensor `(height, width, channels)`.
        image_format: A `Recipe`, the result of `describe_images`, or another
            object with the attributes `image_size` and `resizing`.

    Returns:
        A `uint8` tensor `(image_size, image_size, channels)`.

    Raises:
        ValueError: If `resizing` is neither `"central_square"` nor
            `"central_crop"`.
    """
    check_central(image_format.resizing)
    part = _CENTRAL_PARTS[image_format.resizing]
    side = image_format.image_size
    return resize(_central_square(image, part), (side, side))


def _central_square(image, part):
    """Cuts out the middle square; its side is a part of the shorter side."""
    height, width = image.shape[:2]
    if part == 1 and height is not None and height == width:
        return image
    shape = tf.shape(image)[:2]
    side = tf.cast(tf.reduce_min(shape), "float32") * part
    # 7/8 of one pixel is one pixel.
    side = tf.maximum(tf.cast(tf.round(side), "int32"), 1)
    top, left = tf.unstack((shape - side) // 2)
    return image[top : top + side, left : left + side]


def letterbox(image: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes an image to fit into a square, and pads it.

    Args:
        image: `(height, width, channels)`.
        side: Integer, side of the square in pixels.

    Returns:
        The square, `uint8`, with the image in its upper left corner and 0
        elsewhere, and the scale by which boxes are multiplied.
    """
    scale = side / tf.reduce_max(tf.shape(image)[:2])
    return pad_to_square(rescale(image, scale), side), tf.cast(scale, "float32")


def undo_letterbox(boxes, scale, height, width) -> tf.Tensor:
    """Moves boxes of a letterboxed image into the pixels of the original.

    Args:
        boxes: `(..., 4)` in pixels of the square.
        scale: The scale that `letterbox` returned.
        height: Height of the original in pixels.
        width: Width of the original.

    Returns:
        Boxes, clipped to the original.
    """
    sides = tf.cast(tf.stack([width, height, width, height]), "float32")
    return tf.clip_by_value(tf.convert_to_tensor(boxes) / scale, 0.0, sides)


def rescale(image: tf.Tensor, scale) -> tf.Tensor:
    """Multiplies both sides of an image by `scale`."""
    size = tf.cast(tf.shape(image)[:2], "float32") * tf.cast(scale, "float32")
    return resize(image, tf.maximum(tf.cast(tf.round(size), "int32"), 1))


def resize(image: tf.Tensor, size) -> tf.Tensor:
    """Resizes an image of bytes; averages where it gets smaller.

    Args:
        image: `uint8` tensor `(height, width, channels)`.
        size: Height and width, a pair of integers or a tensor.

    Returns:
        A `uint8` tensor.
    """
    if isinstance(size, tuple) and tuple(image.shape[:2]) == size:
        return image
    image = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), "uint8")


def pad_to_square(image: tf.Tensor, side: int) -> tf.Tensor:
    """Pads an image with zeros at the bottom and the right."""
    height, width = tf.unstack(tf.shape(image)[:2])
    channels = image.shape[-1]
    image = tf.pad(image, ((0, side - height), (0, side - width), (0, 0)))
    return tf.ensure_shape(image, (side, side, channels))
