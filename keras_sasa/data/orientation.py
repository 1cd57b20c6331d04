"""EXIF orientation: how the stored pixels of a photo become upright."""

import io

import tensorflow as tf
from PIL import Image

_EXIF_ORIENTATION = 0x0112
# Pillow falls back to XMP where EXIF has no orientation. Viewers do not.
_XMP = ("xmp", "XML:com.adobe.xmp")


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation of an opened Pillow image, 1 to 8."""
    for name in _XMP:
        image.info.pop(name, None)
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        # Viewers, too, show an image with a damaged EXIF as it is stored.
        value = 1
    return int(value) if value in range(1, 9) else 1


def read_orientation(contents: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a JPEG or PNG, 1 to 8.

    Args:
        contents: String tensor, the contents of the file.
    """
    # Most files have none and should not wait for Python.
    name = tf.where(is_png(contents), b"eXIf", b"Exif")
    parts = tf.raw_ops.StringSplitV2(input=[contents], sep=name, maxsplit=1)
    return tf.cond(
        parts.shape[1] > 1,
        lambda: tf.ensure_shape(
            tf.py_function(_orientation_in, [contents], "int32"), ()
        ),
        lambda: 1,
    )


def _orientation_in(contents):
    try:
        with Image.open(io.BytesIO(contents.numpy())) as image:
            return orientation_of(image)
    except Exception:
        # The decoder reports files that cannot be read.
        return 1


def is_png(contents: tf.Tensor) -> tf.Tensor:
    """Returns whether the contents of a file are a PNG."""
    return tf.strings.substr(contents, 0, 4) == b"\x89PNG"


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Applies an EXIF orientation.

    Args:
        image: `(height, width, channels)`, as stored.
        orientation: Integer tensor, 1 to 8.

    Returns:
        The upright image.
    """

    def upright():
        # Rows become columns for 5 to 8; then rows or columns are reversed.
        # `tf.reverse` takes a tenth of the time of a slice with step -1.
        turned = tf.cond(
            orientation >= 5,
            lambda: tf.transpose(image, (1, 0, 2)),
            lambda: image,
        )
        turned = tf.cond(
            _is_upside_down(orientation),
            lambda: tf.reverse(turned, [0]),
            lambda: turned,
        )
        return tf.cond(
            _is_mirrored(orientation),
            lambda: tf.reverse(turned, [1]),
            lambda: turned,
        )

    return tf.cond(orientation == 1, lambda: image, upright)


def upright_size(height, width, orientation):
    """Returns height and width of the upright image."""
    is_transposed = orientation >= 5
    return (
        tf.where(is_transposed, width, height),
        tf.where(is_transposed, height, width),
    )


def stored_window(window, height, width, orientation):
    """Finds a part of the upright image among the stored pixels.

    Args:
        window: Integer tensor `(top, left, rows, columns)`.
        height: Integer, height of the upright image.
        width: Integer, width of the upright image.
        orientation: Integer tensor, 1 to 8.

    Returns:
        A window like `window`.
    """
    # The steps of `turn_upright`, reversed.
    top, left, rows, columns = tf.unstack(window)
    top = tf.where(_is_upside_down(orientation), height - top - rows, top)
    left = tf.where(_is_mirrored(orientation), width - left - columns, left)
    return tf.where(
        orientation >= 5,
        tf.stack([left, top, columns, rows]),
        tf.stack([top, left, rows, columns]),
    )


def _is_upside_down(orientation):
    return tf.reduce_any(orientation == [3, 4, 7, 8])


def _is_mirrored(orientation):
    return tf.reduce_any(orientation == [2, 3, 6, 7])
