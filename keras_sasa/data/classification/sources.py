"""Sources of images with classes, one per file.

A new one is a file with a function, and a row in `SOURCES`.
"""

import os

from keras_sasa.data.classification import digits, image_folder, tfds_images
from keras_sasa.data.image_data import ImageData
from keras_sasa.data.sources import find_source

# Functions of `(validation_split, skip_corrupt)`, after the rest of the name
# for prefixes.
SOURCES = {"digits": digits.load, "tfds:": tfds_images.load}


def load_data(
    name: str | os.PathLike,
    validation_split: float | None = None,
    skip_corrupt: bool = False,
) -> ImageData:
    """Loads a set of labelled images.

    Args:
        name: `"digits"` (the 1,797 digits of scikit-learn), `"tfds:NAME"` (a
            classification set of TensorFlow Datasets) or the path of a folder
            with a folder of images for each class, either directly or in
            `train` and `validation` (or `val`, or `test`; other spellings such
            as `Training` and `valid` are known, too).
        validation_split: Float between 0 and 1, the fraction of the training
            images to use for validation. It replaces a validation set of the
            data. Default: the validation set of the data, or a fifth of the
            training images where there is none. Folders are split class by
            class, with one image or more of each; for TensorFlow Datasets the
            fraction is rounded to whole percents, 1 to 99.
        skip_corrupt: Boolean, for folders: whether to read all images once,
            and to skip and print those that cannot be decoded.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: If the data cannot be found, is not a set of labelled
            images, or holds images that cannot be decoded.
        ImportError: If the package that reads it is not installed.
    """
    if validation_split is not None and not 0 < validation_split < 1:
        raise ValueError(
            "`validation_split` must be a fraction between 0 and 1. "
            f"Received: validation_split={validation_split}."
        )
    load = find_source(name, SOURCES, image_folder.load, "a folder of images")
    return load(validation_split=validation_split, skip_corrupt=skip_corrupt)
