"""Random changes of training images, one way per file.

A new one is a file with an `Augmentation` and a row in `AUGMENTATIONS`.
"""

from keras_sasa.data.augmentation.augmentation import Augmentation
from keras_sasa.data.augmentation.resized_crop import RESIZED_CROP
from keras_sasa.data.augmentation.scale_jitter import SCALE_JITTER
from keras_sasa.data.augmentation.shift import SHIFT

AUGMENTATIONS = {
    "shift": SHIFT,
    "resized_crop": RESIZED_CROP,
    "scale_jitter": SCALE_JITTER,
}

__all__ = ["AUGMENTATIONS", "Augmentation", "find_augmentation"]


def find_augmentation(name: str, labels: str) -> Augmentation:
    """Returns an augmentation by its name.

    Args:
        name: A key of `AUGMENTATIONS`.
        labels: `"class"` or `"boxes"`, the labels of the images.

    Raises:
        ValueError: If it does not suit images with such labels.
    """
    suitable = [n for n, a in AUGMENTATIONS.items() if a.labels == labels]
    if name not in suitable:
        purpose = {
            "class": "classify images",
            "boxes": "train a detector",
        }[labels]
        raise ValueError(
            f"`augmentation` must be {' or '.join(map(repr, suitable))} to "
            f"{purpose}. Received: augmentation={name!r}."
        )
    return AUGMENTATIONS[name]
