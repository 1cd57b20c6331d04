"""Sizes and orientations of image files, read without decoding pixels."""

import concurrent.futures
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterable

from PIL import Image, UnidentifiedImageError

from keras_sasa.data.formats import FORMATS
from keras_sasa.data.orientation import orientation_of

_PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
# Threads that wait for the disk: headers are small.
_READERS = 16


@dataclasses.dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Args:
        width: Integer, width of the upright image in pixels.
        height: Integer, height of the upright image.
        orientation: Integer, 1 to 8: how the stored pixels are turned or
            mirrored according to EXIF. Upright is 1; 5 to 8 swap width and
            height.
    """

    width: int
    height: int
    orientation: int = 1


def read_headers(
    folder: pathlib.Path, file_names: Iterable[str]
) -> list[Header | str]:
    """Reads the headers of image files, many at a time.

    Args:
        folder: `pathlib.Path`.
        file_names: Paths relative to `folder`.

    Returns:
        A list with a `Header` for each file, or a string that says why there
        is none.
    """
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        paths = (folder / name for name in file_names)
        return list(pool.map(_read_header, paths))


def _read_header(path):
    # `Path.is_file` raises an error for names that are too long.
    if not os.path.isfile(path):
        return "there is no such file"
    try:
        with Image.open(path, formats=_PILLOW_FORMATS) as image:
            orientation = 1
            # To find the last chunks of a PNG, Pillow would decode all pixels.
            if image.format != "PNG" or b"eXIf" in path.read_bytes():
                orientation = orientation_of(image)
            width, height = image.size
    except UnidentifiedImageError:
        return f"it is not a {FORMATS}"
    except Exception as error:
        # Pillow raises errors of many types for damaged files.
        return f"{type(error).__name__}: {error}"
    if orientation >= 5:
        width, height = height, width
    return Header(width, height, orientation)


def read_size(source: str | os.PathLike | bytes) -> tuple[int, int]:
    """Reads the size of an image.

    Args:
        source: Path of an image file, or its contents as bytes.

    Returns:
        Width and height in pixels, as they are stored.

    Raises:
        ValueError: If it is not an image; the message names the file.
    """
    is_contents = isinstance(source, bytes)
    try:
        with Image.open(io.BytesIO(source) if is_contents else source) as image:
            return image.size
    except OSError as error:
        name = "An image" if is_contents else repr(str(source))
        raise ValueError(f"{name} is not a readable image: {error}") from error
