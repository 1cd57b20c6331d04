"""Checks of boxes and labels: shapes, numbers of boxes, values.

Each error names the box and the image that are wrong.
"""

import numpy as np

# Label of a row that only pads a batch.
PADDING = -1

# Indices of the left, top, right and bottom sides in each format; or of the
# first two numbers of the box, its width and its height.
_CORNERS = {"xyxy": (0, 1, 2, 3), "yxyx": (1, 0, 3, 2)}
_SIDES = {
    "xywh": (0, 1, 2, 3),
    "center_xywh": (0, 1, 2, 3),
    "center_yxhw": (1, 0, 3, 2),
}


def check_shapes(boxes, labels):
    """Raises `ValueError` if shapes do not fit boxes; `None` is unknown."""
    right = (
        len(boxes) == 3
        and len(labels) == 2
        and boxes[-1] in (4, None)
        and all(
            None in sizes or sizes[0] == sizes[1]
            for sizes in zip(boxes[:2], labels, strict=True)
        )
    )
    if not right:
        raise ValueError(
            "`boxes` must have the shape (batch_size, num_boxes, 4) and "
            "`labels` (batch_size, num_boxes). Received: boxes of shape "
            f"{tuple(boxes)} and labels of shape {tuple(labels)}."
        )


def check_counts(boxes, labels):
    """Raises `ValueError` unless images have as many boxes as labels."""
    for index, counts in enumerate(zip(boxes, labels, strict=False)):
        if counts[0] != counts[1]:
            raise ValueError(
                "There must be one of `labels` for each of `boxes`. Received: "
                f"{counts[0]} boxes and {counts[1]} labels in image {index}."
            )


def check_values(boxes, labels, image_shape, num_classes, bounding_box_format):
    """Raises `ValueError` unless numbers are boxes in pixels and classes.

    Args:
        boxes: Array `(batch_size, num_boxes, 4)`.
        labels: Array `(batch_size, num_boxes)`.
        image_shape: Shape of the images, `(batch_size, height, width,
            channels)`.
        num_classes: Integer.
        bounding_box_format: Format of the boxes, see `RetinaNet`.
    """
    check_shapes(boxes.shape, labels.shape)
    if len(boxes) != image_shape[0]:
        raise ValueError(
            "There must be `boxes` and `labels` for each image. Received: "
            f"{image_shape[0]} images and boxes of shape {boxes.shape}."
        )

    def reject(is_wrong, values, name, rule):
        if is_wrong.any():
            index = tuple(int(i) for i in np.argwhere(is_wrong)[0])
            value = values[index].tolist()
            place = ", ".join(map(str, index))
            raise ValueError(
                f"{rule} Received: {name}[{place}]={value}"
                f" (image {index[0]}, and "
                f"{int(is_wrong.sum()) - 1} more)."
            )

    is_class = (labels >= 0) & (labels < num_classes)
    reject(
        ~((is_class & (labels == np.round(labels))) | (labels == PADDING)),
        labels,
        "labels",
        f"`labels` must be integers from 0 to {num_classes - 1}, or "
        f"{PADDING} for padding.",
    )
    reject(
        is_class & ~np.isfinite(boxes).all(axis=-1),
        boxes,
        "boxes",
        "`boxes` must be finite numbers.",
    )
    # Padding may have any values.
    boxes = np.where(is_class[..., None], boxes, 0)
    left, top, right, bottom = _sides(boxes, bounding_box_format)
    reject(
        is_class & ((right <= left) | (bottom <= top)),
        boxes,
        "boxes",
        f"`boxes` must be {bounding_box_format!r} and have an area, or the "
        f"label {PADDING} for padding.",
    )
    is_tiny = (right - left <= 1) & (bottom - top <= 1)
    # Or all boxes of an image are in its first pixel.
    is_first = (left >= 0) & (top >= 0) & (right <= 1) & (bottom <= 1)
    is_relative = (is_tiny | ~is_class).all() | (
        (is_first | ~is_class).all(axis=1, keepdims=True)
    )
    reject(
        is_class & is_relative,
        boxes,
        "boxes",
        "`boxes` must be in pixels, but none of these is larger than a pixel; "
        "multiply coordinates from 0 to 1 by the size of the image.",
    )
    height, width = image_shape[1:3]
    reject(
        is_class
        & ((right <= 0) | (bottom <= 0) | (left >= width) | (top >= height)),
        boxes,
        "boxes",
        f"`boxes` must be {bounding_box_format!r} in pixels and reach into "
        f"the image, here of {height}x{width} pixels.",
    )


def _sides(boxes, bounding_box_format):
    """Returns the left, top, right and bottom sides of boxes."""
    if bounding_box_format in _CORNERS:
        order = _CORNERS[bounding_box_format]
        return tuple(boxes[..., index] for index in order)
    x, y, width, height = (
        boxes[..., index] for index in _SIDES[bounding_box_format]
    )
    if bounding_box_format.startswith("center"):
        x, y = x - width / 2, y - height / 2
    return x, y, x + width, y + height
