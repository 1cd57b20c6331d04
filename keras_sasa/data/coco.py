"""COCO's JSON, checked entry by entry.

What cannot be right is a `ValueError` that names the entry as a reader finds it
in the file, for instance `annotations[12]`. What may be intended is read, and
counted in a note. Fields that detection does not use are ignored.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import reprlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from keras_sasa.data.decoding import orientation_of

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
# Threads that wait for the disk: headers are small.
_READERS = 16
# Ids are kept as int64.
_ID_LIMIT = 2**63
# More than the side of any image; areas stay finite in float32.
_PIXEL_LIMIT = 1e9
# Coordinates with two decimals, as in COCO's own files, add up to this close.
_ROUNDING = 0.05
# Pixels that a box of careless annotators may reach beyond its image.
_BEYOND = 1.0
# No annotator is as careless as this, in sides of the image.
_FAR_BEYOND = 0.25
_SHOWN_NAMES = 5

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The boxes of one image.

    Args:
        boxes: Float32 array `(num_boxes, 4)`, "xyxy" in pixels of the image.
        labels: Int64 array `(num_boxes,)`, positions in the class names.
        is_crowd: Boolean array `(num_boxes,)`.
        areas: Float32 array `(num_boxes,)`, areas of the objects.
    """

    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray


@dataclasses.dataclass(frozen=True)
class Split:
    """The content of one file, in the order of its images.

    Args:
        file_names: List of strings, paths relative to the folder of images.
        image_ids: List of integers.
        annotations: List of `Annotations`.
        class_names: List of strings, in the order of the category ids.
        notes: List of strings: what was changed or may be wrong, with counts.
    """

    file_names: list[str]
    image_ids: list[int]
    annotations: list[Annotations]
    class_names: list[str]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Args:
        width: Integer, width of the upright image in pixels.
        height: Integer, height of the upright image.
        orientation: Integer, 1 to 8: how EXIF says that the stored pixels are
            turned or mirrored. Upright is 1; 5 to 8 swap width and height.
    """

    width: int
    height: int
    orientation: int = 1


def read(path, folder):
    """Reads a file in COCO's format and the headers of its images.

    Args:
        path: `pathlib.Path` of the JSON file.
        folder: `pathlib.Path` of the folder of its images.

    Returns:
        A `Split`.

    Raises:
        ValueError: If something cannot be right; the error names the file and
            the entry.
    """
    try:
        return parse(_load(path), functools.partial(read_headers, folder))
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def parse(content, read_headers):
    """Checks the content of a file and makes arrays of it.

    Args:
        content: What `json.loads` returns.
        read_headers: Function that returns, for a list of file names, a list
            of a `Header` for each, or a string that says why there is none.

    Returns:
        A `Split`.

    Raises:
        ValueError: If something cannot be right; the error names the entry.
    """
    if not isinstance(content, dict):
        raise ValueError(
            "The file must hold an object with `images`, `annotations` and "
            f"`categories`. Received: {_short.repr(content)}."
        )
    categories = _parse_categories(content)
    images = _parse_images(content)
    notes = _check_headers(images, read_headers)
    listed, more_notes = _parse_annotations(content, images, categories)
    return Split(
        file_names=[image["file_name"] for image in images.values()],
        image_ids=list(images),
        annotations=[_to_arrays(listed[image_id]) for image_id in images],
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
    """Makes a dict; Python's own keeps the last of two equal fields."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"An entry has the field `{twice}` twice: {_short.repr(fields)}."
        )
    return fields


def _parse_categories(content):
    """Returns a dict from ids to names, in the order of the ids."""
    categories, indices, names = {}, {}, {}
    for index, entry in _entries(content, "categories"):
        with _naming("categories", index, entry):
            category_id = _unique_id(entry, "categories", index, indices)
            name = _text(entry, "name")
            if name in names:
                raise ValueError(
                    f"`name` must be unique. Received: name={name!r}, as of "
                    f"categories[{names[name]}]."
                )
            names[name] = index
            categories[category_id] = name
    if not categories:
        raise ValueError("The list `categories` is empty.")
    return dict(sorted(categories.items()))


def _parse_images(content):
    """Returns a dict from ids to entries, with their place in the file."""
    images, indices, paths = {}, {}, {}
    for index, entry in _entries(content, "images"):
        with _naming("images", index, entry):
            image_id = _unique_id(entry, "images", index, indices)
            name = _text(entry, "file_name")
            path = pathlib.PurePath(os.path.normpath(name))
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(
                    "`file_name` must be a path inside of the folder of "
                    f"images. Received: file_name={name!r}."
                )
            if path in paths:
                raise ValueError(
                    "`file_name` must be unique. Received: file_name="
                    f"{name!r}, as of images[{paths[path]}]."
                )
            paths[path] = index
            images[image_id] = {
                "index": index,
                "file_name": name,
                "width": _integer(entry, "width", 1, _PIXEL_LIMIT),
                "height": _integer(entry, "height", 1, _PIXEL_LIMIT),
            }
    if not images:
        raise ValueError("The list `images` is empty.")
    return images


def _check_headers(images, read_headers):
    """Compares sizes with those of the files; returns notes."""
    headers = read_headers([image["file_name"] for image in images.values()])
    unreadable, wrong, turned = [], [], []
    for image, header in zip(images.values(), headers, strict=True):
        where = f"images[{image['index']}] ({image['file_name']!r})"
        if isinstance(header, str):
            unreadable.append(f"{where}: {header}")
            continue
        if (image["width"], image["height"]) != (header.width, header.height):
            wrong.append(f"{where}: {_describe_difference(image, header)}")
        elif header.orientation > 1:
            turned.append(where)
    if unreadable:
        raise ValueError(
            f"{_of(unreadable, images)} image files are missing or cannot be "
            f"read. The first is {unreadable[0]}."
        )
    if wrong:
        raise ValueError(
            f"{_of(wrong, images)} images have other sizes in their files. "
            f"The first is {wrong[0]}."
        )
    if not turned:
        return []
    return [
        f"{_of(turned, images)} images are turned upright, as their EXIF data "
        "says; their boxes must refer to the upright image. "
        f"The first is {turned[0]}."
    ]


def _describe_difference(image, header):
    """Says how the size in the JSON differs from that of the file."""
    written = image["width"], image["height"]
    text = (
        f"width and height are {written[0]} x {written[1]}, those of the file "
        f"{header.width} x {header.height}"
    )
    if written != (header.height, header.width):
        return text
    if header.orientation >= 5:
        return (
            f"{text} after its EXIF orientation {header.orientation} is "
            "applied. Boxes and sizes must refer to the upright image"
        )
    return f"{text}: they are swapped"


def _parse_annotations(content, images, categories):
    """Returns lists of boxes by image id, and notes."""
    labels = {category_id: i for i, category_id in enumerate(categories)}
    listed = {image_id: [] for image_id in images}
    counts = [0] * len(labels)
    indices, cut_off, empty, too_large = {}, [], [], []
    evidence = _CornerEvidence()
    for index, entry in _entries(content, "annotations"):
        with _naming("annotations", index, entry, images):
            _unique_id(entry, "annotations", index, indices)
            image_id = _integer(entry, "image_id", 0, _ID_LIMIT)
            if image_id not in images:
                raise ValueError(
                    "`image_id` must be the `id` of one of the `images`. "
                    f"Received: image_id={image_id}."
                )
            category_id = _integer(entry, "category_id", 0, _ID_LIMIT)
            if category_id not in labels:
                raise ValueError(
                    "`category_id` must be one of "
                    f"{_short.repr(list(labels))}. "
                    f"Received: category_id={category_id}."
                )
            image = images[image_id]
            x, y, width, height = _box(entry, image)
            area = _area(entry)
            is_crowd = _flag(entry, "iscrowd")
            evidence.add(index, entry["bbox"], area, image)
            right, bottom = x + width, y + height
            left, top = max(x, 0), max(y, 0)
            right = min(right, image["width"])
            bottom = min(bottom, image["height"])
            if right <= left or bottom <= top:
                empty.append((index, image))
                continue
            if (
                max(left - x, top - y) > _ROUNDING
                or max(x + width - right, y + height - bottom) > _ROUNDING
            ):
                cut_off.append((index, image))
            if area is None:
                area = (right - left) * (bottom - top)
            elif area > (width + 1) * (height + 1):
                # Masks count whole pixels, also those that the box only cuts.
                too_large.append((index, image))
                area = (right - left) * (bottom - top)
            label = labels[category_id]
            counts[label] += not is_crowd
            listed[image_id].append(
                ((left, top, right, bottom), label, is_crowd, area)
            )
    evidence.check()
    notes = [
        f"{_of(found, indices)} boxes {what}. The first is "
        f"annotations[{found[0][0]}] of {found[0][1]['file_name']!r}."
        for found, what in (
            (cut_off, "reach beyond their image and are cut off there"),
            (empty, "have no area in their image and are left out"),
            (
                too_large,
                "are smaller than the `area` of their object; their own area "
                "is used",
            ),
        )
        if found
    ]
    unused = [
        name
        for name, count in zip(categories.values(), counts, strict=True)
        if not count
    ]
    if unused:
        shown = ", ".join(map(repr, unused[:_SHOWN_NAMES]))
        more = ", ..." if len(unused) > _SHOWN_NAMES else ""
        notes.append(
            f"{_of(unused, categories)} categories have no box (those of "
            f"crowds do not count): {shown}{more}."
        )
    return listed, notes


class _CornerEvidence:
    """Tells left, top, right, bottom from left, top, width, height.

    Right and bottom, taken for width and height, reach beyond many images, and
    most tools write the area of the box as the `area` of its object. One box
    can be as it is by chance, so nearly all evidence is of the whole file.
    """

    def __init__(self):
        self.number = 0
        self.suspects = []
        self.has_far = False
        self.only_corners = True

    def add(self, index, box, area, image):
        """Adds a box `[x, y, third, fourth]` of either format.

        Raises:
            ValueError: If this box alone gives itself away.
        """
        x, y, third, fourth = box
        width, height = image["width"], image["height"]
        if not third * fourth:
            return
        self.number += 1
        if not (
            0 <= x < third <= width + _BEYOND
            and 0 <= y < fourth <= height + _BEYOND
        ):
            self.only_corners = False
            return
        if _is_close(area, third * fourth):
            return
        beyond = max(x + third - width, y + fourth - height)
        if _is_close(area, (third - x) * (fourth - y)):
            if beyond > _BEYOND:
                raise ValueError(_corners_message(box))
        elif beyond <= _BEYOND:
            return
        self.suspects.append((index, box))
        self.has_far |= (
            x + third > (1 + _FAR_BEYOND) * width
            or y + fourth > (1 + _FAR_BEYOND) * height
        )

    def check(self):
        """Raises an error if the boxes of the whole file are corners."""
        if self.only_corners and (
            self.has_far or 2 * len(self.suspects) > self.number
        ):
            index, box = self.suspects[0]
            raise ValueError(
                f"annotations[{index}] and others: {_corners_message(box)}"
            )


def _corners_message(box):
    return (
        "`bbox` must be left, top, width and height in pixels. It seems to be "
        f"left, top, right and bottom. Received: bbox={_short.repr(box)}."
    )


def _is_close(area, other):
    # Areas are often rounded to pixels.
    return area is not None and abs(area - other) <= max(0.5, 1e-3 * other)


def _entries(content, name):
    """Returns pairs of the index and the dict of all entries of a list."""
    entries = content.get(name)
    if not isinstance(entries, list):
        raise ValueError(
            f"`{name}` must be a list of objects. Received: "
            f"{_short.repr(entries) if name in content else 'no such field'}."
        )
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(
                f"{name}[{index}] must be an object. "
                f"Received: {_short.repr(entry)}."
            )
    return enumerate(entries)


@contextlib.contextmanager
def _naming(name, index, entry, images=None):
    """Puts the place of an entry before the errors about it."""
    try:
        yield
    except ValueError as error:
        shown = [
            f"{field}={_short.repr(entry[field])}"
            for field in ("id", "image_id", "file_name", "name")
            if field in entry
        ]
        image_id = entry.get("image_id")
        if images and type(image_id) is int and image_id in images:
            shown.append(f"of {images[image_id]['file_name']!r}")
        raise ValueError(
            f"{name}[{index}] ({', '.join(shown)}): {error}"
        ) from error


def _field(entry, name):
    if name not in entry:
        raise ValueError(f"the field `{name}` is missing.")
    return entry[name]


def _integer(entry, name, low, limit):
    value = _field(entry, name)
    # True is an integer for Python, and 1.0 is equal to one.
    if type(value) is not int or not low <= value < limit:
        raise ValueError(
            f"`{name}` must be an integer from {low} to {limit - 1:.4g}. "
            f"Received: {name}={_short.repr(value)}."
        )
    return value


def _unique_id(entry, list_name, index, indices):
    """Returns the id of an entry, and notes it in `indices`."""
    value = _integer(entry, "id", 0, _ID_LIMIT)
    other = indices.setdefault(value, index)
    if other != index:
        raise ValueError(
            f"`id` must be unique. Received: id={value}, as of "
            f"{list_name}[{other}]."
        )
    return value


def _text(entry, name):
    value = _field(entry, name)
    if (
        not isinstance(value, str)
        or not value.strip()
        or "\0" in value
        or not _is_encodable(value)
    ):
        raise ValueError(
            f"`{name}` must be a text that is not empty. "
            f"Received: {name}={_short.repr(value)}."
        )
    return value


def _is_encodable(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a pair of escapes.
        return False
    return True


def _is_number(value):
    # Neither NaN nor infinity, which Python reads though JSON has none.
    return type(value) in (int, float) and abs(value) < _PIXEL_LIMIT


def _box(entry, image):
    """Returns left, top, width and height of the box of an annotation."""
    box = _field(entry, "bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(map(_is_number, box))
        or min(box[2:]) < 0
    ):
        raise ValueError(
            "`bbox` must be four finite numbers left, top, width and height, "
            "the last two not negative. "
            f"Received: bbox={_short.repr(box)}."
        )
    x, y, width, height = box
    inside = image["width"], image["height"]
    if width and height and 0 <= min(box) and max(box) <= 1 < max(inside):
        raise ValueError(
            "`bbox` must be in pixels. It seems to be relative to the image of "
            f"{inside[0]} x {inside[1]} pixels. Received: bbox={box}."
        )
    if x > inside[0] or y > inside[1] or x + width < 0 or y + height < 0:
        raise ValueError(
            f"`bbox` must lie in the image {image['file_name']!r} of "
            f"{inside[0]} x {inside[1]} pixels, at least in part. "
            f"Received: bbox={box}."
        )
    return x, y, width, height


def _area(entry):
    """Returns the area of the object, or `None` where it is not given."""
    if "area" not in entry:
        return None
    area = entry["area"]
    if type(area) not in (int, float) or not 0 <= area < _PIXEL_LIMIT**2:
        raise ValueError(
            "`area` must be a finite number that is not negative. "
            f"Received: area={_short.repr(area)}."
        )
    return area


def _flag(entry, name):
    value = entry.get(name, 0)
    if type(value) not in (int, bool) or value not in (0, 1):
        raise ValueError(
            f"`{name}` must be 0 or 1. Received: {name}={_short.repr(value)}."
        )
    return bool(value)


def _to_arrays(rows):
    columns = zip(*rows, strict=True) if rows else [()] * 4
    boxes, labels, is_crowd, areas = columns
    return Annotations(
        np.array(boxes, "float32").reshape(-1, 4),
        np.array(labels, "int64"),
        np.array(is_crowd, bool),
        np.array(areas, "float32"),
    )


def _of(found, all_of_them):
    return f"{len(found)} of {len(all_of_them)}"


def read_headers(folder, file_names):
    """Reads the headers of image files, many at a time."""
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        paths = (folder / name for name in file_names)
        return list(pool.map(_read_header, paths))


def _read_header(path):
    # `Path.is_file` raises an error for names that are too long.
    if not os.path.isfile(path):
        return "there is no such file"
    try:
        with Image.open(path, formats=_FORMATS) as image:
            orientation = 1
            # Of a PNG, Pillow would decode all pixels to find what comes last.
            if image.format != "PNG" or b"eXIf" in path.read_bytes():
                orientation = orientation_of(image)
            width, height = image.size
    except UnidentifiedImageError:
        return "it is not a JPEG, PNG, GIF, BMP or WebP"
    except Exception as error:
        # Pillow has no common type for what can be wrong in a file.
        return f"{type(error).__name__}: {error}"
    if orientation >= 5:
        width, height = height, width
    return Header(width, height, orientation)
