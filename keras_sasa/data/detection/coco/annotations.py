"""The list `annotations` of a COCO file: boxes, clipped and counted."""

import collections

import numpy as np

from keras_sasa.data.detection.coco.corner_boxes import CornerEvidence
from keras_sasa.data.detection.coco.counts import count_of
from keras_sasa.data.detection.coco.fields import (
    ID_LIMIT,
    list_entries,
    locate_errors,
    read_area,
    read_box,
    read_flag,
    read_integer,
    read_unique_id,
    short_repr,
)
from keras_sasa.data.detection.detection_data import Annotations

# Coordinates with two decimals, as in COCO's own files, add up this closely.
_TOLERANCE = 0.05
# Notes list at most this many names.
_LISTED = 5

_CUT_OFF = "reach beyond their image and are cut off there"
_EMPTY = "have no area in their image and are left out"
_TOO_LARGE = (
    "are smaller than the `area` of their object; their own area is used"
)


def parse_annotations(content, images, categories):
    """Reads the boxes of all images.

    Args:
        content: Dict, the content of the file.
        images: Result of `parse_images`.
        categories: Dict from ids to names.

    Returns:
        Dict from image ids to `Annotations`, and a list of notes.
    """
    labels = {category_id: i for i, category_id in enumerate(categories)}
    rows = {image_id: [] for image_id in images}
    counts = [0] * len(labels)
    indices = {}
    # Dict from a remark to the indices and the images of the boxes.
    unusual = collections.defaultdict(list)
    evidence = CornerEvidence()
    for index, entry in list_entries(content, "annotations"):
        with locate_errors("annotations", index, entry, images):
            read_unique_id(entry, "annotations", index, indices)
            image_id = _read_image_id(entry, images)
            label = _read_label(entry, labels)
            image = images[image_id]
            box = read_box(entry, image)
            area = read_area(entry)
            is_crowd = read_flag(entry, "iscrowd")
            evidence.add(index, entry["bbox"], area, image)
            corners, area, remarks = _clip(box, area, image)
            for remark in remarks:
                unusual[remark].append((index, image))
            if corners is None:
                continue
            counts[label] += not is_crowd
            rows[image_id].append((corners, label, is_crowd, area))
    evidence.check()
    notes = [
        f"{count_of(unusual[remark], indices)} boxes {remark}. The first is "
        f"annotations[{unusual[remark][0][0]}] of "
        f"{unusual[remark][0][1]['file_name']!r}."
        for remark in (_CUT_OFF, _EMPTY, _TOO_LARGE)
        if unusual[remark]
    ]
    notes += _note_unused(categories, counts)
    return {key: _to_arrays(value) for key, value in rows.items()}, notes


def _read_image_id(entry, images):
    image_id = read_integer(entry, "image_id", 0, ID_LIMIT)
    if image_id not in images:
        raise ValueError(
            "`image_id` must be the `id` of one of the `images`. "
            f"Received: image_id={image_id}."
        )
    return image_id


def _read_label(entry, labels):
    category_id = read_integer(entry, "category_id", 0, ID_LIMIT)
    if category_id not in labels:
        raise ValueError(
            f"`category_id` must be one of {short_repr(list(labels))}. "
            f"Received: category_id={category_id}."
        )
    return labels[category_id]


def _clip(box, area, image):
    """Clips a box to its image.

    Returns:
        Left, top, right and bottom, or `None` if nothing is left; the area of
        the object; and a list of remarks.
    """
    x, y, width, height = box
    right, bottom = x + width, y + height
    left, top = max(x, 0), max(y, 0)
    right = min(right, image["width"])
    bottom = min(bottom, image["height"])
    if right <= left or bottom <= top:
        return None, area, [_EMPTY]
    remarks = []
    if (
        max(left - x, top - y) > _TOLERANCE
        or max(x + width - right, y + height - bottom) > _TOLERANCE
    ):
        remarks.append(_CUT_OFF)
    # Masks count whole pixels, including pixels that the box only touches.
    is_too_large = area is not None and area > (width + 1) * (height + 1)
    if is_too_large:
        remarks.append(_TOO_LARGE)
    if area is None or is_too_large:
        area = (right - left) * (bottom - top)
    return (left, top, right, bottom), area, remarks


def _note_unused(categories, counts):
    unused = [
        name
        for name, count in zip(categories.values(), counts, strict=True)
        if not count
    ]
    if not unused:
        return []
    shown = ", ".join(map(repr, unused[:_LISTED]))
    more = ", ..." if len(unused) > _LISTED else ""
    return [
        f"{count_of(unused, categories)} categories have no box (boxes of "
        f"crowds do not count): {shown}{more}."
    ]


def _to_arrays(rows):
    columns = zip(*rows, strict=True) if rows else [()] * 4
    boxes, labels, is_crowd, areas = columns
    return Annotations(
        np.array(boxes, "float32").reshape(-1, 4),
        np.array(labels, "int64"),
        np.array(is_crowd, bool),
        np.array(areas, "float32"),
    )
