"""Folders of images: which files belong to which class and which split.

Every file is accounted for: it is used, or it is counted and named in a
warning or an error. Only hidden files and the leftovers of operating systems
are skipped silently.
"""

import collections
import os
import pathlib

import tensorflow as tf

from keras_sasa._user_warnings import warn_user
from keras_sasa.data.classification.folder_splits import (
    find_roots,
    holds_splits,
    list_entries,
    list_names,
    warn_of_strays,
)
from keras_sasa.data.classification.validation_split import (
    DEFAULT_VALIDATION_SPLIT,
    split_classes,
)
from keras_sasa.data.corrupt_images import describe_corrupt, find_corrupt
from keras_sasa.data.formats import EXTENSIONS, FORMATS
from keras_sasa.data.image_data import ImageData

# Sets of at most this many bytes are decoded once before they are used, which
# takes seconds, so that a corrupt image does not end a training run.
_CHECKED_BYTES = 2**28


def load(
    folder: pathlib.Path,
    validation_split: float | None = None,
    skip_corrupt: bool = False,
) -> ImageData:
    """Loads a folder of images, see `load_data`."""
    splits = find_labelled_images(folder, validation_split, skip_corrupt)
    names = list(splits[0])

    def labelled_paths(classes):
        pairs = [
            (os.fsencode(path), label)
            for label, name in enumerate(names)
            for path in classes[name]
        ]
        paths, labels = zip(*pairs, strict=True)
        return tf.data.Dataset.from_tensor_slices(
            (tf.constant(paths), tf.constant(labels, "int64"))
        )

    return ImageData(
        *map(labelled_paths, splits), class_names=names, reads_files=True
    )


def find_labelled_images(folder, validation_split, skip_corrupt):
    """Finds the images to train and to validate with.

    Args:
        folder: `pathlib.Path`, see `load_data`.
        validation_split: See `load_data`.
        skip_corrupt: Boolean, whether to print and skip the images that
            cannot be decoded.

    Returns:
        Two dicts, of the images to train and to validate with. Each maps the
        class names in alphabetical order to lists of paths, none of which is
        empty.

    Raises:
        ValueError: If this is not a folder of images in classes, or an image
            cannot be decoded.
    """
    roots = find_roots(folder, use_own_split=not validation_split)
    splits = [_read_classes(root, skip_corrupt) for root in roots]
    for root, classes in zip(roots, splits, strict=True):
        _check_number_of_classes(root, classes)
        _warn_of_similar_names(root, classes)
    if not skip_corrupt:
        _check_readable(splits)
    if len(splits) == 2:
        _check_same_classes(roots, splits)
        return splits
    return split_classes(
        roots[0], splits[0], validation_split or DEFAULT_VALIDATION_SPLIT
    )


def _read_classes(root, skip_corrupt):
    """Returns the images of each class; reports everything else."""
    folders, strays = list_entries(root)
    warn_of_strays(root, strays)
    for path in folders:
        if holds_splits(path):
            raise ValueError(
                f"{str(root)!r} must hold the splits, and these the classes. "
                f"Received: the class {path.name!r}, which holds "
                f"{list_names(list_entries(path)[0], root)}."
            )
    files = {path.name: _walk(path) for path in folders}
    if empty := [name for name, paths in files.items() if not paths]:
        warn_user(
            f"{len(empty)} classes in {str(root)!r} are left out, because "
            f"their folders are empty: {empty}."
        )
    classes = {
        name: [path for path in paths if _is_image(path)]
        for name, paths in files.items()
        if paths
    }
    others = [
        path
        for paths in files.values()
        for path in paths
        if not _is_image(path)
    ]
    if skip_corrupt:
        classes = _skip_corrupt(root, classes, others)
    elif others:
        warn_user(
            f"{len(others)} files in {str(root)!r} are ignored, because their "
            f"names do not have an ending of {FORMATS} files: "
            f"{_list_by_ending(others, root)}."
        )
    for name, paths in classes.items():
        if not paths:
            raise ValueError(
                f"The class {name!r} in {str(root)!r} must have images that "
                f"can be decoded ({FORMATS}). Received: "
                f"{_list_by_ending(files[name], root)}."
            )
    return classes


def _walk(folder, above=()):
    """Returns the files in a folder and its subfolders."""
    real = os.path.realpath(folder)
    if real in above:
        raise ValueError(
            f"{str(folder)!r} must not be a link to a folder that contains it."
        )
    folders, files = list_entries(folder)
    for path in folders:
        files += _walk(path, (*above, real))
    return files


def _is_image(path):
    # Neither a pipe nor a broken link is a file.
    return path.suffix.lower() in EXTENSIONS and path.is_file()


def _skip_corrupt(root, classes, others):
    """Returns the images that can be decoded, and prints the others."""
    images = [str(path) for paths in classes.values() for path in paths]
    corrupt = {str(path): f"not a {FORMATS}" for path in others}
    corrupt |= find_corrupt(images)
    print(
        f"left out, not decodable: {len(corrupt)} of "
        f"{len(images) + len(others)} in {str(root)!r}"
    )
    for path, reason in corrupt.items():
        print(f"  {path!r}: {reason}")
    return {
        name: [path for path in paths if str(path) not in corrupt]
        for name, paths in classes.items()
    }


def _check_readable(splits):
    paths = [p for classes in splits for ps in classes.values() for p in ps]
    size = 0
    for path in paths:
        size += path.stat().st_size
        if size > _CHECKED_BYTES:
            return
    if corrupt := find_corrupt(map(str, paths)):
        raise ValueError(describe_corrupt(corrupt))


def _check_number_of_classes(root, classes):
    if len(classes) >= 2:
        return
    inner = [path for name in classes for path in list_entries(root / name)[0]]
    raise ValueError(
        f"{str(root)!r} must hold two classes or more, each in a folder of "
        f"its own. Received: {list(classes)}"
        + (f", which holds {list_names(inner, root)}." if inner else ".")
    )


def _warn_of_similar_names(root, classes):
    groups = collections.defaultdict(list)
    for name in classes:
        groups[name.casefold()].append(name)
    similar = [names for names in groups.values() if len(names) > 1]
    if similar:
        warn_user(
            f"{len(similar)} classes in {str(root)!r} have names that differ "
            f"only in upper and lower case: {similar}."
        )


def _check_same_classes(roots, splits):
    different = {
        str(root): sorted(set(classes) - set(other))
        for root, classes, other in zip(
            roots, splits, reversed(splits), strict=True
        )
    }
    if any(different.values()):
        raise ValueError(
            "The images to train and to validate with must have the same "
            f"classes. Received, in one of both only: {different}."
        )


def _list_by_ending(paths, root):
    """Returns, for each ending, the number of paths and the first names."""
    groups = collections.defaultdict(list)
    for path in paths:
        groups[path.suffix.lower() or "without an ending"].append(path)
    return "; ".join(
        f"{len(group)} {ending} {list_names(group, root)}"
        for ending, group in groups.items()
    )
