"""Preprocessing and class names of ImageNet."""

from typing import Any

import keras


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Scales RGB pixels from [0, 255] to ImageNet's mean 0 and deviation 1.

    Args:
        x: Array or tensor of images, `(..., height, width, 3)` or
            `(..., 3, height, width)`.
        data_format: `"channels_last"`, `"channels_first"` or `None` for
            Keras' configuration.

    Returns:
        Images of the same shape. A float array may be changed in place.
    """
    return keras.applications.imagenet_utils.preprocess_input(
        x, data_format=data_format, mode="torch"
    )


def decode_predictions(
    predictions: Any, top: int = 5
) -> list[list[tuple[str, str, float]]]:
    """Names the ImageNet classes of predictions.

    Downloads the list of class names at the first call.

    Args:
        predictions: Array `(batch, 1000)`.
        top: Integer, number of classes to return.

    Returns:
        For each image a list of `(class_id, name, score)`, best first.
    """
    return keras.applications.imagenet_utils.decode_predictions(
        predictions, top=top
    )
