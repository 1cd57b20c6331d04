"""The one function that turns an image file into pixels.

Training, evaluation, detection and the examples all read image files with it.
TensorFlow decodes JPEG and PNG. It reads some other files wrongly (palettes in
BMP) and others not at all (WebP with alpha or several frames, anything but
JPEG and PNG as gray), so Pillow decodes those.
"""

import io
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_sasa.data.formats import FORMATS
from keras_sasa.data.orientation import (
    is_png,
    orientation_of,
    read_orientation,
    stored_window,
    turn_upright,
    upright_size,
)

_PILLOW_FORMATS = ("BMP", "GIF", "WEBP")
_PILLOW_MODES = {1: "L", 3: "RGB"}


@tf.autograph.experimental.do_not_convert
def decode_image(contents, channels: int) -> tf.Tensor:
    """Decodes an image file and applies its EXIF orientation.

    Works eagerly, in a `tf.function` and in a `tf.data` pipeline.

    Args:
        contents: String tensor, the contents of a JPEG, PNG, GIF, BMP or WebP
            file. Only the first of several frames is decoded, and transparency
            is ignored.
        channels: Integer, 1 (gray) or 3 (RGB).

    Returns:
        A `uint8` tensor `(height, width, channels)`, upright.

    Raises:
        tf.errors.InvalidArgumentError: If the image cannot be decoded.

    Example:

    ```python
    image = decode_image(tf.io.read_file("photo.jpg"), channels=3)
    ```
    """
    if channels not in _PILLOW_MODES:
        raise ValueError(
            "`channels` must be 1 (gray) or 3 (RGB). "
            f"Received: channels={channels!r}."
        )
    contents = tf.convert_to_tensor(contents, "string")
    image = tf.cond(
        _suits_tensorflow(contents, channels),
        lambda: turn_upright(
            tf.io.decode_image(contents, channels, expand_animations=False),
            read_orientation(contents),
        ),
        lambda: _decode_with_pillow(contents, channels),
    )
    return tf.ensure_shape(image, (None, None, channels))


@tf.autograph.experimental.do_not_convert
def decode_part(
    contents: tf.Tensor,
    channels: int,
    choose: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Decodes a rectangular part of an image file.

    The result equals that part of `decode_image(contents, channels)`. Only
    this part of a JPEG is decoded.

    Args:
        contents: See `decode_image`.
        channels: See `decode_image`.
        choose: Function of the shape `(height, width, channels)` of the upright
            image that returns `(top, left, height, width)` of the part, four
            integers in one tensor.

    Returns:
        A `uint8` tensor `(height, width, channels)`.
    """

    def from_jpeg():
        orientation = read_orientation(contents)
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(contents))
        height, width = upright_size(height, width, orientation)
        window = choose(tf.stack([height, width, channels]))
        window = stored_window(window, height, width, orientation)
        part = tf.io.decode_and_crop_jpeg(contents, window, channels)
        return turn_upright(part, orientation)

    def from_image():
        image = decode_image(contents, channels)
        window = choose(tf.shape(image))
        begin = tf.concat([window[:2], [0]], axis=0)
        size = tf.concat([window[2:], [channels]], axis=0)
        return tf.slice(image, begin, size)

    part = tf.cond(
        tf.logical_and(
            tf.io.is_jpeg(contents), _suits_tensorflow(contents, channels)
        ),
        from_jpeg,
        from_image,
    )
    return tf.ensure_shape(part, (None, None, channels))


def read_image(path: str | os.PathLike, channels: int) -> np.ndarray:
    """Reads an image file.

    Args:
        path: Path of the file.
        channels: See `decode_image`.

    Returns:
        A `uint8` array `(height, width, channels)`, upright.

    Raises:
        ValueError: If it is not an image that can be decoded; the message
            names the file.
    """
    try:
        return decode_image(tf.io.read_file(str(path)), channels).numpy()
    except tf.errors.OpError as error:
        raise ValueError(
            f"{str(path)!r} is not a readable image: {reason_of(error)}"
        ) from error


def reason_of(error: tf.errors.OpError) -> str:
    """Returns why an image cannot be decoded.

    Args:
        error: The `tf.errors.OpError` of `decode_image`.

    Returns:
        The message of the error, without operations and tracebacks.
    """
    message = error.message.rpartition("}} ")[2]
    message = message.partition(" [Op:")[0].removeprefix("ValueError: ")
    return message.partition("\n")[0]


def _suits_tensorflow(contents, channels):
    is_jpeg = tf.io.is_jpeg(contents)
    if channels == 1:
        # TensorFlow does not convert CMYK to gray.
        is_jpeg = tf.cond(
            is_jpeg,
            lambda: tf.io.extract_jpeg_shape(contents)[2] != 4,
            lambda: False,
        )
    return tf.logical_or(is_jpeg, is_png(contents))


def _decode_with_pillow(contents, channels):
    def decode(contents):
        contents = contents.numpy()
        formats = _PILLOW_FORMATS
        if contents.startswith(b"\xff\xd8\xff"):
            formats = ("JPEG", "MPO")
        try:
            with Image.open(io.BytesIO(contents), formats=formats) as image:
                orientation = orientation_of(image)
                pixels = image.convert(_PILLOW_MODES[channels])
        except Image.UnidentifiedImageError as error:
            raise ValueError(f"not a {FORMATS}") from error
        except Exception as error:
            # TensorFlow has no names for the many types that Pillow raises.
            raise ValueError(str(error)) from error
        height, width = pixels.height, pixels.width
        array = np.asarray(pixels, "uint8").reshape(height, width, channels)
        return array, orientation

    image, orientation = tf.py_function(decode, [contents], ["uint8", "int32"])
    image = tf.ensure_shape(image, (None, None, channels))
    return turn_upright(image, tf.ensure_shape(orientation, ()))
