"""Which subfolders of a data set hold its training and validation images."""

import collections
import operator
import pathlib
import re

from keras_sasa._user_warnings import warn_user

_SPLIT_NAME = re.compile(
    "(train|training|val|valid|validation|test|testing)"
    "([-_ ]?(set|data|images))?",
    re.IGNORECASE,
)
# The first two letters of the names of splits.
_TRAIN, _VALIDATION, _TEST = "tr", "va", "te"
_LEFT_BEHIND = ("__macosx", "desktop.ini", "thumbs.db")
# Messages list at most this many names.
_LISTED = 5


def find_roots(folder: pathlib.Path, use_own_split: bool) -> list[pathlib.Path]:
    """Returns the folders that hold a folder of images for each class.

    Args:
        folder: The folder of the data set.
        use_own_split: Boolean, whether to use a validation set of the data.

    Returns:
        A list of the folder of the training images and, if there is one that
        is to be used, the folder of the validation images.

    Raises:
        ValueError: If there is no folder of training images.
    """
    folders, files = list_entries(folder)
    splits = _find_splits(folders)
    if not splits:
        return [folder]
    for paths in splits.values():
        if len(paths) > 1:
            raise ValueError(
                f"{str(folder)!r} must hold one folder for each split. "
                f"Received: {list_names(paths, folder)}."
            )
    # Test images often have no labels and are not in folders of classes.
    usable = {
        kind: path for kind, (path,) in splits.items() if list_entries(path)[0]
    }
    if _TRAIN not in usable:
        raise ValueError(
            f"{str(folder)!r} must hold folders of classes, or splits: "
            "'train', and 'validation' or 'test', which hold them. Names of "
            "splits are never taken for classes. Received: "
            f"{list_names(folders, folder)}."
        )
    roots = [usable[_TRAIN]]
    if use_own_split and _has_validation(usable):
        roots.append(usable.get(_VALIDATION) or usable[_TEST])
    how = "a part of each class of " if len(roots) == 1 else ""
    print(f"validated on: {how}{str(roots[-1])!r}")
    all_splits = [path for paths in splits.values() for path in paths]
    if unused := [path for path in all_splits if path not in roots]:
        print(f"not used: {list_names(unused, folder)}")
    others = [path for path in folders if path not in all_splits]
    warn_of_strays(folder, others + files)
    return roots


def holds_splits(folder: pathlib.Path) -> bool:
    """Returns whether a folder holds splits rather than classes."""
    return _has_validation(_find_splits(list_entries(folder)[0]))


def _find_splits(folders):
    """Returns the folders of each split; none if all are classes."""
    splits = _splits_by_name(folders, lambda name: [name])
    if _has_validation(splits):
        return splits
    # "train2017" and "seg_train" are splits; but "bus", "express train" and
    # "crash test" are classes.
    words = _splits_by_name(folders, re.compile("[^A-Za-z]+").split)
    found = [path for paths in words.values() for path in paths]
    if _has_validation(words) and (
        len(found) == len(folders)
        or any(list_entries(path)[0] for path in words[_TRAIN])
    ):
        return words
    return splits


def _splits_by_name(folders, parts):
    splits = collections.defaultdict(list)
    for path in folders:
        matches = map(_SPLIT_NAME.fullmatch, parts(path.name))
        if match := next(filter(None, matches), None):
            splits[match[1][:2].lower()].append(path)
    return splits


def _has_validation(splits):
    return _TRAIN in splits and (_VALIDATION in splits or _TEST in splits)


def list_entries(
    folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Returns the folders and the files in a folder, without hidden ones."""
    paths = sorted(
        (
            path
            for path in folder.iterdir()
            if not path.name.startswith(".")
            and path.name.lower() not in _LEFT_BEHIND
        ),
        key=operator.attrgetter("name"),
    )
    folders = [path for path in paths if path.is_dir()]
    return folders, [path for path in paths if not path.is_dir()]


def warn_of_strays(root, paths):
    """Warns of files or folders that belong to no class."""
    if paths:
        warn_user(
            f"{len(paths)} files or folders in {str(root)!r} are ignored, "
            "because they do not belong to the folder of a class: "
            f"{list_names(paths, root)}."
        )


def list_names(paths, root):
    """Returns the first names in a folder and the number of the others."""
    names = [str(path.relative_to(root)) for path in paths]
    more = f" and {len(names) - _LISTED} more" * (len(names) > _LISTED)
    return f"{names[:_LISTED]}{more}"
