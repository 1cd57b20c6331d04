"""The interface of augmentations."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A way to turn an image of any size into a square at random.

    Args:
        apply: Pure function that returns a `uint8` tensor
            `(side, side, channels)`. For images with a class its arguments are
            `(image, data, side, seed)`: the image of an example, its
            `ImageData`, the side of the square in pixels, and a seed for the
            stateless random numbers of TensorFlow. For images with boxes they
            are `(image, boxes, side, seed)`, with the pixels of the image, and
            it returns the boxes as well.
        labels: `"class"` or `"boxes"`, the labels of the images.
        resizing: How images are resized for the evaluation of a network that
            was trained with this augmentation, see
            `keras_sasa.layers.ImageRescaling`.
        takes_prepared: Boolean, whether `apply` takes images as prepared for
            evaluation. They can then be cached.
    """

    apply: Callable
    labels: str
    resizing: str
    takes_prepared: bool = False
