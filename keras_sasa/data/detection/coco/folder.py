"""Folders in COCO's format: two JSON files and the images they describe."""

import pathlib

from keras_sasa._user_warnings import warn_user
from keras_sasa.data.detection.coco import file as coco_file
from keras_sasa.data.detection.detection_data import (
    DetectionData,
    make_examples,
)


def load(folder: pathlib.Path) -> DetectionData:
    """Loads a folder in COCO's format, see `load_detection_data`."""
    splits = {}
    for start in ("train", "val"):
        path = _find_file(folder, start)
        images = folder / path.stem.removeprefix("instances_")
        split = coco_file.read(path, images)
        for note in split.notes:
            warn_user(f"{str(path)!r}: {note}")
        splits[path.name] = split, images
    class_names = {
        name: split.class_names for name, (split, _) in splits.items()
    }
    names, other_names = class_names.values()
    if names != other_names:
        raise ValueError(
            f"Both splits of {str(folder)!r} must have the same categories, in "
            "the same order of their ids. Received: "
            f"{_describe_difference(class_names)}."
        )
    train, validation = (
        make_examples(
            [str(images / name) for name in split.file_names],
            split.image_ids,
            split.annotations,
        )
        for split, images in splits.values()
    )
    return DetectionData(
        train=train, validation=validation, class_names=names, reads_files=True
    )


def _find_file(folder, start):
    found = sorted(
        path
        for path in folder.glob(f"annotations/instances_{start}*.json")
        if path.is_file()
    )
    if len(found) != 1:
        raise ValueError(
            f"{str(folder)!r} must hold one annotations/instances_{start}"
            f"*.json. Found: {[path.name for path in found]}."
        )
    return found[0]


def _describe_difference(class_names):
    """Says which names only one of two files has."""
    one, other = map(set, class_names.values())
    only = [
        f"{sorted(alone)} only in {name}"
        for name, alone in zip(
            class_names, (one - other, other - one), strict=True
        )
        if alone
    ]
    # Or they differ in their order.
    return " and ".join(only) or str(class_names)
