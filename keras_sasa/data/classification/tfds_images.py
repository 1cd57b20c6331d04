"""Classification sets of TensorFlow Datasets."""

import numpy as np

from keras_sasa._user_warnings import warn_user
from keras_sasa.data.classification.validation_split import (
    DEFAULT_VALIDATION_SPLIT,
)
from keras_sasa.data.image_data import ImageData
from keras_sasa.data.tfds import errors_in_one_line, import_tfds

# Only this many labels are checked, since encoded images are read with them.
_CHECKED_LABELS = 10_000
# Warnings list at most this many classes.
_LISTED = 5


def load(
    name: str,
    validation_split: float | None = None,
    skip_corrupt: bool = False,
) -> ImageData:
    """Loads a set by its name in TensorFlow Datasets, see `load_data`."""
    tfds = import_tfds()
    with errors_in_one_line(name):
        builder = tfds.builder(name)
        info = builder.info
        if info.supervised_keys != ("image", "label"):
            raise ValueError(
                "it is not a set of images with one label each. Its features "
                f"are {list(info.features)}"
            )
        builder.download_and_prepare()
        splits = _choose_splits(info, validation_split)
        train, validation = builder.as_dataset(
            split=splits,
            as_supervised=True,
            # Encoded images are shuffled and cached in a tenth of the memory.
            decoders={"image": tfds.decode.SkipDecoding()},
        )
    names = info.features["label"].names
    _check_labels(f"tfds:{name}", splits[1], validation, names)
    return ImageData(
        train,
        validation,
        class_names=names,
        channels=info.features["image"].shape[-1],
    )


def _choose_splits(info, validation_split):
    """Returns the names of the training and the validation split."""
    own = [name for name in ("validation", "test") if name in info.splits]
    if own and not validation_split:
        return ["train", own[0]]
    part = 1 - (validation_split or DEFAULT_VALIDATION_SPLIT)
    percent = min(max(round(100 * part), 1), 99)
    return [f"train[:{percent}%]", f"train[{percent}%:]"]


def _check_labels(name, split, validation, class_names):
    labels = validation.take(_CHECKED_LABELS).map(lambda _, label: label)
    labels = np.array(list(labels.as_numpy_iterator()), "int64")
    if (labels < 0).any():
        raise ValueError(
            f"The images in {split!r} of {name} must have labels to validate "
            f"with. Received: {(labels < 0).sum()} of {len(labels)} without."
        )
    missing = sorted(set(range(len(class_names))) - set(labels.tolist()))
    is_ours = split.startswith("train")
    if is_ours and missing and len(labels) == int(validation.cardinality()):
        listed = [class_names[label] for label in missing[:_LISTED]]
        warn_user(
            f"{len(missing)} of {len(class_names)} classes have no images in "
            f"{split!r} of {name}, the validation split: {listed}"
            + (" and others." if len(missing) > _LISTED else ".")
        )
