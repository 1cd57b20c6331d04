"""The 1,797 handwritten digits of scikit-learn, gray and 8 x 8."""

import tensorflow as tf

from keras_sasa._optional_imports import optional_import
from keras_sasa.data.classification.validation_split import (
    DEFAULT_VALIDATION_SPLIT,
    SPLIT_SEED,
)
from keras_sasa.data.image_data import ImageData


def load(
    validation_split: float | None = None, skip_corrupt: bool = False
) -> ImageData:
    """Loads the digits, see `load_data`; none of them is corrupt."""
    optional_import("sklearn", "scikit-learn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("uint8")
    train_images, other_images, train_labels, other_labels = train_test_split(
        images,
        labels.astype("int64"),
        test_size=validation_split or DEFAULT_VALIDATION_SPLIT,
        stratify=labels,
        random_state=SPLIT_SEED,
    )
    return ImageData(
        tf.data.Dataset.from_tensor_slices((train_images, train_labels)),
        tf.data.Dataset.from_tensor_slices((other_images, other_labels)),
        class_names=[str(digit) for digit in range(10)],
        channels=1,
        max_pixel_value=16.0,
    )
