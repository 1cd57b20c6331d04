"""Splits off validation images where the data does not bring its own."""

import numpy as np

from keras_sasa._user_warnings import warn_user

# The fraction of images to validate with.
DEFAULT_VALIDATION_SPLIT = 0.2
# The split never depends on the seed of a run.
SPLIT_SEED = 0


def split_classes(root, classes, validation_split):
    """Takes the same part of each class, but never all or nothing of it.

    Args:
        root: The folder of the classes, for messages.
        classes: Dict from names to lists of paths.
        validation_split: Float between 0 and 1.

    Returns:
        Two dicts like `classes`, to train and to validate with.

    Raises:
        ValueError: If every class has a single image.
    """
    train, validation, single = {}, {}, []
    for name, paths in classes.items():
        if len(paths) == 1:
            single.append(name)
        number = int(np.floor(validation_split * len(paths) + 0.5))
        number = int(np.clip(number, 1, len(paths) - 1))
        # This generator yields the same numbers in all versions of NumPy.
        order = np.random.RandomState(SPLIT_SEED).permutation(len(paths))
        train[name] = [paths[i] for i in sorted(order[number:])]
        validation[name] = [paths[i] for i in sorted(order[:number])]
    if len(single) == len(classes):
        raise ValueError(
            f"{str(root)!r} must hold two images or more of a class, one to "
            f"train and one to validate with. Received: one of each class."
        )
    if single:
        warn_user(
            f"{len(single)} classes in {str(root)!r} have a single image, "
            f"which is used for training; none is left to validate: {single}."
        )
    return train, validation
