"""The list `images` of a COCO file, compared with the image files."""

import os
import pathlib

from keras_sasa.data.detection.coco.counts import count_of
from keras_sasa.data.detection.coco.fields import (
    PIXEL_LIMIT,
    list_entries,
    locate_errors,
    read_integer,
    read_text,
    read_unique_id,
)


def parse_images(content):
    """Returns a dict from ids to entries, with their index in the list."""
    images, indices, paths = {}, {}, {}
    for index, entry in list_entries(content, "images"):
        with locate_errors("images", index, entry):
            image_id = read_unique_id(entry, "images", index, indices)
            name = read_text(entry, "file_name")
            path = pathlib.PurePath(os.path.normpath(name))
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(
                    "`file_name` must be a path inside the folder of "
                    f"images. Received: file_name={name!r}."
                )
            if path in paths:
                raise ValueError(
                    "`file_name` must be unique. Received: file_name="
                    f"{name!r}, also in images[{paths[path]}]."
                )
            paths[path] = index
            images[image_id] = {
                "index": index,
                "file_name": name,
                "width": read_integer(entry, "width", 1, PIXEL_LIMIT),
                "height": read_integer(entry, "height", 1, PIXEL_LIMIT),
            }
    if not images:
        raise ValueError("The list `images` is empty.")
    return images


def check_headers(images, read_headers):
    """Compares the sizes of images with their files; returns notes."""
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
            f"{count_of(unreadable, images)} image files are missing or "
            f"cannot be read. The first is {unreadable[0]}."
        )
    if wrong:
        raise ValueError(
            f"{count_of(wrong, images)} images have other sizes in their "
            f"files. The first is {wrong[0]}."
        )
    if not turned:
        return []
    return [
        f"{count_of(turned, images)} images are turned upright according to "
        "their EXIF data; their boxes must refer to the upright image. "
        f"The first is {turned[0]}."
    ]


def _describe_difference(image, header):
    """Says how the size in the JSON differs from the size of the file."""
    written = image["width"], image["height"]
    text = (
        f"width and height are {written[0]} x {written[1]}, but the file has "
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
