"""Checks of data and images against a model and against each other."""

import os
import pathlib
from collections.abc import Sequence

from keras_sasa.data.image_data import ImageData
from keras_sasa.layers import ImageRescaling


def check_fits(data: ImageData, images: ImageRescaling) -> None:
    """Raises an error if images do not suit a trained model.

    Args:
        data: An `ImageData`.
        images: The description that `load_trained` returned with the model.
    """
    for what, needed, received in (
        ("classes", images.class_names, data.class_names),
        ("number of channels", images.channels, data.channels),
        ("brightest pixel value", images.max_pixel_value, data.max_pixel_value),
    ):
        if received != needed:
            raise ValueError(
                f"--data must have the {what} of the model's training, "
                f"{needed}. Received: {received}."
            )


def check_distinct_names(paths: Sequence[str | os.PathLike]) -> None:
    """Raises an error if pictures of images would overwrite each other."""
    names = [pathlib.Path(path).stem for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            "Images must have distinct names, because pictures are named after "
            f"them. Received more than once: {twice}."
        )
