"""A set of labelled images: where its pixels and labels come from."""

import dataclasses
import os
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_sasa.data.decoding import decode_image
from keras_sasa.data.image_headers import read_size

# The median of this many images is the typical side of a set.
_SAMPLE = 100


class ImageFormat(Protocol):
    """How images of any size become squares.

    A `keras_sasa.training.Recipe` has these attributes, and so has what
    `keras_sasa.training.describe_images` returns for a trained model.
    """

    @property
    def image_size(self) -> int:
        """The side of the squares in pixels."""

    @property
    def resizing(self) -> str:
        """One of `keras_sasa.layers.image_rescaling.RESIZINGS`."""


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A set of labelled images, not yet decoded, resized or batched.

    Args:
        train: `tf.data.Dataset` of pairs of an image and an integer label. The
            image is a `uint8` tensor `(height, width, channels)`, a string
            that holds a JPEG, PNG, GIF, BMP or WebP file, or, with
            `reads_files`, the path of such a file.
        validation: The same for the validation images.
        class_names: List of strings, one for each label.
        channels: Integer, 1 or 3.
        max_pixel_value: Number, the brightest value of a pixel.
        reads_files: Boolean, whether the images are paths.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    class_names: list[str]
    channels: int = 3
    max_pixel_value: float = 255.0
    reads_files: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        return int(self.train.cardinality())

    @property
    def num_validation(self) -> int:
        return int(self.validation.cardinality())

    def identity(self) -> dict[str, Any]:
        """Returns JSON values that must not change between resumed runs."""
        return {
            "images": [self.num_train, self.num_validation],
            "classes": self.class_names,
        }

    def read(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the pixels or the encoded contents of an image.

        Args:
            image: The image of an example.
        """
        return tf.io.read_file(image) if self.reads_files else image

    def decode(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the pixels of an image, `uint8`.

        Args:
            image: The image of an example.
        """
        image = self.read(image)
        if image.dtype == tf.string:
            return decode_image(image, self.channels)
        image.set_shape((None, None, self.channels))
        return image


def typical_side(data: ImageData) -> float:
    """Returns the median of the shorter sides of a sample of images.

    Args:
        data: An `ImageData`.

    Returns:
        A number of pixels.
    """
    # Files are sorted by class. Skipping encoded images would read them all.
    step = max(data.num_train // _SAMPLE, 1) if data.reads_files else 1
    sample = data.train.shard(step, 0).take(_SAMPLE)
    sides = []
    for image, _ in sample.as_numpy_iterator():
        if isinstance(image, bytes):
            source = os.fsdecode(image) if data.reads_files else image
            sides.append(min(read_size(source)))
        else:
            sides.append(min(image.shape[:2]))
    return float(np.median(sides))
