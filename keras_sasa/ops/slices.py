"""Slices of images that TensorFlow computes fast.

Its slices with strides, and the gradients of all slices by `[begin:end]`, are
copied number by number in one thread.
"""

from typing import Any

import keras
from keras import ops


def take_range(maps: Any, axis: int, first: int, count: Any) -> Any:
    """Returns `count` rows, columns or others of an axis, from `first` on."""
    if keras.backend.backend() != "tensorflow":
        return maps[(slice(None),) * axis + (slice(first, first + count),)]
    shape = list(ops.shape(maps))
    shape[axis] = count
    starts = [0] * len(shape)
    starts[axis] = first
    return ops.slice(maps, starts, shape)


def subsample(images: Any, rows: slice, columns: slice) -> Any:
    """Returns `images[:, rows, columns]`.

    Args:
        images: `(batch, height, width, channels)`.
        rows: The rows to take.
        columns: The columns to take.

    Returns:
        `(batch, rows, columns, channels)`.
    """
    strides = rows.step or 1, columns.step or 1
    if keras.backend.backend() != "tensorflow" or strides == (1, 1):
        return images[:, rows, columns]
    if any(part.start or part.stop is not None for part in (rows, columns)):
        images = images[:, rows.start : rows.stop, columns.start : columns.stop]
    if 0 in images.shape:  # TensorFlow pools no images without rows.
        return images[:, :: strides[0], :: strides[1]]
    # A pool of single pixels takes a sixth to a thirteenth of the time.
    return ops.average_pool(
        images, 1, strides, padding="valid", data_format="channels_last"
    )
