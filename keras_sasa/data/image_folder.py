"""Folders of images: which files belong to which class and which split.

Every file is accounted for: it is used, or it is counted and named in a
warning or an error. Only hidden files, and those that operating systems leave
behind, are passed over.
"""

import collections
import operator
import os
import re
import warnings

import numpy as np

from keras_sasa.data.decoding import (
    EXTENSIONS,
    FORMATS,
    describe_corrupt,
    find_corrupt,
)

# Which images are held out never depends on the seed of a training.
_SPLIT_SEED = 0
_SPLIT_NAME = re.compile(
    "(train|training|val|valid|validation|test|testing)"
    "([-_ ]?(set|data|images))?",
    re.IGNORECASE,
)
# A folder of images to train with, and those of which some are validated on.
_TRAIN, _VALIDATION, _TEST = "tr", "va", "te"
_LEFT_BEHIND = ("__macosx", "desktop.ini", "thumbs.db")
# Images of no more than this many bytes in all are decoded once before they
# are used, which takes seconds, so that a corrupt one does not end a training.
_CHECKED_BYTES = 2**28
# So many of a kind are named one by one.
_NAMED = 5


def find_labelled_images(folder, held_out, default_part, skip_corrupt):
    """Finds the images to train and to validate with.

    Args:
        folder: `pathlib.Path`, see `keras_sasa.data.load_data`.
        held_out: Fraction of the images to train with that is validated on, in
            place of a split that the folder may have, or `None`.
        default_part: That fraction if there is no such split.
        skip_corrupt: Boolean, whether to print and leave out the images that
            cannot be decoded.

    Returns:
        Two dicts, of the images to train and to validate with: for each class
        in alphabetical order a list of paths, of which none is empty.

    Raises:
        ValueError: If this is not a folder of images in classes, or an image
            cannot be decoded.
    """
    roots = _find_roots(folder, held_out)
    splits = [_read_classes(root, skip_corrupt) for root in roots]
    for root, classes in zip(roots, splits, strict=True):
        if len(classes) < 2:
            inner = [p for name in classes for p in _entries(root / name)[0]]
            raise ValueError(
                f"{str(root)!r} must hold two classes or more, each in a "
                f"folder of its own. Received: {list(classes)}"
                + (f", which holds {_listed(inner, root)}." if inner else ".")
            )
        _warn_of_similar_names(root, classes)
    if not skip_corrupt:
        _check_readable(splits)
    if len(splits) == 2:
        _check_same_classes(roots, splits)
        return splits
    return _hold_out(roots[0], splits[0], held_out or default_part)


def _find_roots(folder, held_out):
    """Returns the folders that hold a folder of images for each class."""
    if not folder.is_dir():
        raise ValueError(
            "The data must be 'digits', 'tfds:NAME' or a folder of images. "
            f"There is no folder {str(folder)!r}."
        )
    folders, files = _entries(folder)
    splits = _find_splits(folders)
    if not splits:
        return [folder]
    for paths in splits.values():
        if len(paths) > 1:
            raise ValueError(
                f"{str(folder)!r} must hold one folder for each split. "
                f"Received: {_listed(paths, folder)}."
            )
    # Images to test often have no labels, and lie in no folders of classes.
    usable = {
        kind: path for kind, (path,) in splits.items() if _entries(path)[0]
    }
    if _TRAIN not in usable:
        raise ValueError(
            f"{str(folder)!r} must hold folders of classes, or splits: "
            "'train', and 'validation' or 'test', which hold them. Names of "
            "splits are never taken for classes. Received: "
            f"{_listed(folders, folder)}."
        )
    roots = [usable[_TRAIN]]
    if not held_out and _is_divided(usable):
        roots.append(usable.get(_VALIDATION) or usable[_TEST])
    how = "a part of each class of " if len(roots) == 1 else ""
    print(f"validated on: {how}{str(roots[-1])!r}")
    all_splits = [path for paths in splits.values() for path in paths]
    if unused := [path for path in all_splits if path not in roots]:
        print(f"not used: {_listed(unused, folder)}")
    _warn_of_strays(folder, [p for p in folders if p not in all_splits] + files)
    return roots


def _find_splits(folders):
    """Returns the folders of each split, none if these are all classes."""
    splits = _splits_by_name(folders, lambda name: [name])
    if _is_divided(splits):
        return splits
    # Such as "train2017" and "seg_train"; but "bus", "express train" and
    # "crash test" are classes.
    words = _splits_by_name(folders, re.compile("[^A-Za-z]+").split)
    found = [path for paths in words.values() for path in paths]
    if _is_divided(words) and (
        len(found) == len(folders)
        or any(_entries(path)[0] for path in words[_TRAIN])
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


def _is_divided(splits):
    return _TRAIN in splits and (_VALIDATION in splits or _TEST in splits)


def _read_classes(root, skip_corrupt):
    """Returns the images of each class; says what else there is."""
    folders, strays = _entries(root)
    _warn_of_strays(root, strays)
    for path in folders:
        if _is_divided(_find_splits(_entries(path)[0])):
            raise ValueError(
                f"{str(root)!r} must hold the splits, and these the classes. "
                f"Received: the class {path.name!r}, which holds "
                f"{_listed(_entries(path)[0], root)}."
            )
    files = {path.name: _walk(path) for path in folders}
    if empty := [name for name, paths in files.items() if not paths]:
        warnings.warn(
            f"{len(empty)} classes in {str(root)!r} are left out, because "
            f"their folders are empty: {empty}.",
            stacklevel=5,
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
        classes = _leave_out_corrupt(root, classes, others)
    elif others:
        warnings.warn(
            f"{len(others)} files in {str(root)!r} are ignored, because their "
            f"names do not end as those of {FORMATS} files do: "
            f"{_counted(others, root)}.",
            stacklevel=5,
        )
    for name, paths in classes.items():
        if not paths:
            raise ValueError(
                f"The class {name!r} in {str(root)!r} must have images that "
                f"can be decoded ({FORMATS}). Received: "
                f"{_counted(files[name], root)}."
            )
    return classes


def _warn_of_strays(root, paths):
    if paths:
        warnings.warn(
            f"{len(paths)} files or folders in {str(root)!r} are ignored, "
            "because they do not belong to the folder of a class: "
            f"{_listed(paths, root)}.",
            stacklevel=6,
        )


def _entries(folder):
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


def _walk(folder, above=()):
    """Returns the files in a folder and in all those in it."""
    real = os.path.realpath(folder)
    if real in above:
        raise ValueError(
            f"{str(folder)!r} must not be a link to a folder that holds it."
        )
    folders, files = _entries(folder)
    for path in folders:
        files += _walk(path, (*above, real))
    return files


def _is_image(path):
    # A pipe is no file, nor is a link to one that is gone.
    return path.suffix.lower() in EXTENSIONS and path.is_file()


def _leave_out_corrupt(root, classes, others):
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


def _warn_of_similar_names(root, classes):
    groups = collections.defaultdict(list)
    for name in classes:
        groups[name.casefold()].append(name)
    similar = [names for names in groups.values() if len(names) > 1]
    if similar:
        warnings.warn(
            f"{len(similar)} classes in {str(root)!r} have names that differ "
            f"only in upper and lower case: {similar}.",
            stacklevel=4,
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
            f"classes. Received, only in one of both: {different}."
        )


def _hold_out(root, classes, part):
    """Takes the same part of each class, but never all or nothing of it."""
    train, validation, single = {}, {}, []
    for name, paths in classes.items():
        if len(paths) == 1:
            single.append(name)
        number = int(
            np.clip(np.floor(part * len(paths) + 0.5), 1, len(paths) - 1)
        )
        # The numbers of this generator are the same in all versions of NumPy.
        order = np.random.RandomState(_SPLIT_SEED).permutation(len(paths))
        train[name] = [paths[i] for i in sorted(order[number:])]
        validation[name] = [paths[i] for i in sorted(order[:number])]
    if len(single) == len(classes):
        raise ValueError(
            f"{str(root)!r} must hold two images or more of a class, one to "
            f"train and one to validate with. Received: one of each class."
        )
    if single:
        warnings.warn(
            f"{len(single)} classes in {str(root)!r} have one image, which is "
            f"trained with; nothing is left to validate them: {single}.",
            stacklevel=4,
        )
    return train, validation


def _listed(paths, root):
    """Returns the first names in a folder, and how many there are more."""
    names = [str(path.relative_to(root)) for path in paths]
    more = f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
    return f"{names[:_NAMED]}{more}"


def _counted(paths, root):
    """Returns how many paths there are of each ending, and the first names."""
    groups = collections.defaultdict(list)
    for path in paths:
        groups[path.suffix.lower() or "without an ending"].append(path)
    return "; ".join(
        f"{len(group)} {ending} {_listed(group, root)}"
        for ending, group in groups.items()
    )
