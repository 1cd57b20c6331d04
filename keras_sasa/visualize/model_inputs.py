"""Inputs of models: checked, and a few images at a time."""

import keras
import numpy as np
from keras import ops

from keras_sasa._keras_graphs import check_graph

# Images that are computed together where the result is small.
_IMAGES_AT_A_TIME = 8


def as_batch(model, images):
    """Returns the inputs of a model, with lists of numbers as arrays.

    Args:
        model: A functional or built sequential `keras.Model`.
        images: Inputs in any form that the model takes.

    Returns:
        The same inputs, as arrays.

    Raises:
        ValueError: If there is no image, or the inputs differ in their number
            of images.
    """
    check_graph(model)
    if len(model.inputs) == 1 and isinstance(images, (list, tuple)):
        try:
            images = np.asarray(images)
        except ValueError as error:
            raise ValueError(
                f"`images` must be an array, or lists of equal lengths: {error}"
            ) from error
        # Keras also takes a list of its single input.
        if images.ndim > len(model.inputs[0].shape) and len(images) == 1:
            (images,) = images
    # `None` stands for an optional input.
    shapes = [
        tuple(np.shape(array))
        for array in keras.tree.flatten(images)
        if array is not None
    ]
    batches = {shape[:1] for shape in shapes}
    if len(batches) != 1 or batches & {(), (0,)}:
        raise ValueError(
            "`images` must be at least one image, and the same number in each "
            f"input of {model.name!r}. Received: shapes {shapes}."
        )
    return images


def in_parts(model, images):
    """Yields the inputs of a model, a few images at a time."""
    inputs = as_batch(model, images)
    arrays = [each for each in keras.tree.flatten(inputs) if each is not None]
    for first in range(0, len(arrays[0]), _IMAGES_AT_A_TIME):
        part = slice(first, first + _IMAGES_AT_A_TIME)
        yield keras.tree.map_structure(
            lambda array, at=part: None if array is None else array[at], inputs
        )


def first_argument(arguments, options):
    """Returns the inputs of a call, positional or by name."""
    return arguments[0] if arguments else options["inputs"]


def to_numpy(tensor):
    """Returns a float32 array."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))
