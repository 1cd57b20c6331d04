"""A JSON file in COCO's format.

Entries that cannot be right raise a `ValueError` that names the entry as a
reader finds it in the file, for instance `annotations[12]`. Entries that may be
intended are read, and counted in a note. Fields that detection does not use
are ignored.
"""

import dataclasses
import functools
import json
import pathlib

from keras_sasa.data.detection.coco.annotations import parse_annotations
from keras_sasa.data.detection.coco.fields import (
    list_entries,
    locate_errors,
    read_text,
    read_unique_id,
    short_repr,
)
from keras_sasa.data.detection.coco.images import check_headers, parse_images
from keras_sasa.data.detection.detection_data import Annotations
from keras_sasa.data.image_headers import read_headers


@dataclasses.dataclass(frozen=True)
class Split:
    """The content of one file, in the order of its images.

    Args:
        file_names: List of strings, paths relative to the folder of images.
        image_ids: List of integers.
        annotations: List of `Annotations`.
        class_names: List of strings, in the order of the category ids.
        notes: List of strings about changed and doubtful entries, with counts.
    """

    file_names: list[str]
    image_ids: list[int]
    annotations: list[Annotations]
    class_names: list[str]
    notes: list[str]


def read(path: pathlib.Path, folder: pathlib.Path) -> Split:
    """Reads a file in COCO's format and the headers of its images.

    Args:
        path: `pathlib.Path` of the JSON file.
        folder: `pathlib.Path` of the folder of its images.

    Returns:
        A `Split`.

    Raises:
        ValueError: If an entry cannot be right; the message names the file
            and the entry.
    """
    try:
        return parse(_load(path), functools.partial(read_headers, folder))
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def parse(content, read_headers):
    """Checks the content of a file and converts it to arrays.

    Args:
        content: Result of `json.loads`.
        read_headers: Function of a list of file names that returns a list with
            a `Header` for each, or a string that says why there is none.

    Returns:
        A `Split`.

    Raises:
        ValueError: If an entry cannot be right; the message names it.
    """
    if not isinstance(content, dict):
        raise ValueError(
            "The file must hold an object with `images`, `annotations` and "
            f"`categories`. Received: {short_repr(content)}."
        )
    categories = _parse_categories(content)
    images = parse_images(content)
    notes = check_headers(images, read_headers)
    annotations, more_notes = parse_annotations(content, images, categories)
    return Split(
        file_names=[image["file_name"] for image in images.values()],
        image_ids=list(images),
        annotations=list(annotations.values()),
        class_names=list(categories.values()),
        notes=notes + more_notes,
    )


def _load(path):
    try:
        # Editors on Windows write a byte order mark, which is not JSON.
        text = path.read_bytes().decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"The file is not JSON in UTF-8: {error}") from error


def _without_duplicates(pairs):
    """Makes a dict; by default Python keeps the last of two equal fields."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"An entry has the field `{twice}` twice: {short_repr(fields)}."
        )
    return fields


def _parse_categories(content):
    """Returns a dict from ids to names, in the order of the ids."""
    categories, indices, names = {}, {}, {}
    for index, entry in list_entries(content, "categories"):
        with locate_errors("categories", index, entry):
            category_id = read_unique_id(entry, "categories", index, indices)
            name = read_text(entry, "name")
            if name in names:
                raise ValueError(
                    f"`name` must be unique. Received: name={name!r}, also in "
                    f"categories[{names[name]}]."
                )
            names[name] = index
            categories[category_id] = name
    if not categories:
        raise ValueError("The list `categories` is empty.")
    return dict(sorted(categories.items()))
