"""The one function that turns an image file into pixels.

Everything that reads image files calls it: training, evaluation, detection and
the examples. TensorFlow decodes JPEG and PNG. It reads some other files wrongly
(palettes in BMP) and others not at all (WebP with alpha or several frames,
anything but JPEG and PNG as gray), so Pillow decodes those.
"""

import io
import os

import numpy as np
import tensorflow as tf
from PIL import Image

# What a name must end with, in lower case, and what Pillow may decode.
EXTENSIONS = (
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".webp",
)
FORMATS = "JPEG, PNG, GIF, BMP or WebP"
_PILLOW_FORMATS = ("BMP", "GIF", "WEBP")
_PILLOW_MODES = {1: "L", 3: "RGB"}
# So many corrupt files are named one by one.
_NAMED = 20
# Below this, to make a pipeline takes longer than it saves.
_READ_ONE_BY_ONE = 20
_ADVICE = "; repair them, or leave them out (skip_corrupt, --skip-corrupt)"
_EXIF_ORIENTATION = 0x0112
# Pillow's names of what it takes where EXIF has no orientation, as viewers
# do not.
_XMP = ("xmp", "XML:com.adobe.xmp")


@tf.autograph.experimental.do_not_convert
def decode_image(contents, channels):
    """Decodes an image file and applies its EXIF orientation.

    Works eagerly, in a `tf.function` and in a `tf.data` pipeline.

    Args:
        contents: String tensor, the contents of a JPEG, PNG, GIF, BMP or WebP
            file. Of several frames the first is decoded, and transparency is
            ignored.
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
        lambda: _orient(
            tf.io.decode_image(contents, channels, expand_animations=False),
            _orientation(contents),
        ),
        lambda: _decode_with_pillow(contents, channels),
    )
    return tf.ensure_shape(image, (None, None, channels))


def read_image(path, channels):
    """Reads an image file.

    Args:
        path: Path of the file.
        channels: As for `decode_image`.

    Returns:
        A `uint8` array `(height, width, channels)`, upright.

    Raises:
        ValueError: If it is not an image that can be decoded; the error names
            the file.
    """
    try:
        return decode_image(tf.io.read_file(str(path)), channels).numpy()
    except tf.errors.OpError as error:
        raise ValueError(
            f"{str(path)!r} is not a readable image: {reason_of(error)}"
        ) from error


def find_corrupt(paths):
    """Returns, by path, why an image file cannot be decoded.

    Args:
        paths: Strings.

    Returns:
        Dict of a string for each file that cannot be decoded, in the order of
        `paths`.
    """
    paths = [os.fsencode(path) for path in paths]
    readable = set()
    if len(paths) > _READ_ONE_BY_ONE:
        readable = _find_readable(paths)
    reasons = {}
    for path in paths:
        if path not in readable:
            try:
                decode_image(tf.io.read_file(path), channels=3)
            except tf.errors.OpError as error:
                reasons[os.fsdecode(path)] = reason_of(error)
    return reasons


def _find_readable(paths):
    """Returns those that a pipeline decodes, whose errors name no file."""
    decoded = tf.data.Dataset.from_tensor_slices(paths).map(
        lambda path: (path, tf.size(decode_image(tf.io.read_file(path), 3))),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return {path for path, _ in decoded.ignore_errors().as_numpy_iterator()}


def describe_corrupt(corrupt, advice=_ADVICE):
    """Returns the text of an error about what `find_corrupt` returned.

    Args:
        corrupt: Dict of a reason for each path.
        advice: String, what can be done.
    """
    listed = [
        f"{path!r}: {reason}" for path, reason in list(corrupt.items())[:_NAMED]
    ]
    if len(corrupt) > _NAMED:
        listed.append(f"and {len(corrupt) - _NAMED} more")
    return f"{len(corrupt)} images cannot be decoded{advice}: " + "; ".join(
        listed
    )


def read_size(source):
    """Reads how large an image is, without decoding it.

    Args:
        source: Path of an image file, or its contents as bytes.

    Returns:
        Width and height in pixels, as they are stored.

    Raises:
        ValueError: If it is not an image; the error names the file.
    """
    is_contents = isinstance(source, bytes)
    try:
        with Image.open(io.BytesIO(source) if is_contents else source) as image:
            return image.size
    except OSError as error:
        name = "An image" if is_contents else repr(str(source))
        raise ValueError(f"{name} is not a readable image: {error}") from error


def reason_of(error):
    """Returns why an image cannot be decoded.

    Args:
        error: The `tf.errors.OpError` of `decode_image`.

    Returns:
        What the error says, without operations and tracebacks.
    """
    message = error.message.rpartition("}} ")[2]
    message = message.partition(" [Op:")[0].removeprefix("ValueError: ")
    return message.partition("\n")[0]


@tf.autograph.experimental.do_not_convert
def decode_part(contents, channels, choose):
    """Decodes a rectangular part of an image file.

    Equal to that part of what `decode_image` returns; of a JPEG, no more than
    the part is decoded.

    Args:
        contents: As for `decode_image`.
        channels: As for `decode_image`.
        choose: Function of the shape `(height, width, channels)` of the upright
            image that returns `(top, left, height, width)` of the part, four
            integers in one tensor.

    Returns:
        A `uint8` tensor `(height, width, channels)`.
    """

    def from_jpeg():
        orientation = _orientation(contents)
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(contents))
        is_transposed = orientation >= 5
        height, width = (
            tf.where(is_transposed, width, height),
            tf.where(is_transposed, height, width),
        )
        window = choose(tf.stack([height, width, channels]))
        # Back to where the file has it: the steps of `_orient`, reversed.
        top, left, rows, columns = tf.unstack(window)
        top = tf.where(_is_upside_down(orientation), height - top - rows, top)
        left = tf.where(_is_mirrored(orientation), width - left - columns, left)
        window = tf.where(
            is_transposed,
            tf.stack([left, top, columns, rows]),
            tf.stack([top, left, rows, columns]),
        )
        part = tf.io.decode_and_crop_jpeg(contents, window, channels)
        return _orient(part, orientation)

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


def _suits_tensorflow(contents, channels):
    is_jpeg = tf.io.is_jpeg(contents)
    if channels == 1:
        # TensorFlow does not convert CMYK to gray.
        is_jpeg = tf.cond(
            is_jpeg,
            lambda: tf.io.extract_jpeg_shape(contents)[2] != 4,
            lambda: False,
        )
    return tf.logical_or(is_jpeg, _is_png(contents))


def _is_png(contents):
    return tf.strings.substr(contents, 0, 4) == b"\x89PNG"


def _orientation(contents):
    """Returns the EXIF orientation of a JPEG or PNG, 1 to 8."""
    # Most files have none, and are not to wait for Python.
    name = tf.where(_is_png(contents), b"eXIf", b"Exif")
    parts = tf.raw_ops.StringSplitV2(input=[contents], sep=name, maxsplit=1)
    return tf.cond(
        parts.shape[1] > 1,
        lambda: tf.ensure_shape(
            tf.py_function(_read_orientation, [contents], "int32"), ()
        ),
        lambda: 1,
    )


def _read_orientation(contents):
    try:
        with Image.open(io.BytesIO(contents.numpy())) as image:
            return orientation_of(image)
    except Exception:
        # Whether the image can be read says the decoder.
        return 1


def orientation_of(image):
    """Returns the EXIF orientation of an opened Pillow image, 1 to 8."""
    for name in _XMP:
        image.info.pop(name, None)
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        # Viewers, too, show an image with a damaged EXIF as it is.
        value = 1
    return int(value) if value in range(1, 9) else 1


def _orient(image, orientation):
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


def _is_upside_down(orientation):
    return tf.reduce_any(orientation == [3, 4, 7, 8])


def _is_mirrored(orientation):
    return tf.reduce_any(orientation == [2, 3, 6, 7])


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
            # Of many types, for which TensorFlow has no name.
            raise ValueError(str(error)) from error
        height, width = pixels.height, pixels.width
        array = np.asarray(pixels, "uint8").reshape(height, width, channels)
        return array, orientation

    image, orientation = tf.py_function(decode, [contents], ["uint8", "int32"])
    image = tf.ensure_shape(image, (None, None, channels))
    return _orient(image, tf.ensure_shape(orientation, ()))
