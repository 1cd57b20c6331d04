"""What a detector learns from: boxes and labels, checked and filled up.

Data of users come as arrays, ragged tensors or lists, for all images at once or
batch by batch. Here they become dense arrays, and whatever cannot be meant is
an error that says which box of which image it is.
"""

import keras
import numpy as np

NOTHING = -1

# Where each format has the left, top, right and bottom side; or the first two
# numbers of the box, its width and height.
_CORNERS = {"xyxy": (0, 1, 2, 3), "yxyx": (1, 0, 3, 2)}
_SIDES = {
    "xywh": (0, 1, 2, 3),
    "center_xywh": (0, 1, 2, 3),
    "center_yxhw": (1, 0, 3, 2),
}


def split(y):
    """Returns the boxes and the labels of what `fit` is given as `y`.

    Args:
        y: Dict of `"boxes"` and `"labels"`, or `"classes"` as keras-cv calls
            them.

    Returns:
        `(boxes, labels)`, as they are.

    Raises:
        ValueError: If it is anything else.
    """
    advice = (
        "Labels of a `RetinaNet` must be a dict of 'boxes' (batch_size, "
        "num_boxes, 4) and 'labels' (batch_size, num_boxes)"
    )
    if not isinstance(y, dict):
        raise ValueError(f"{advice}. Received: y of type {type(y).__name__}.")
    names = set(y)
    if names == {"boxes", "classes"}:
        return y["boxes"], y["classes"]
    if names != {"boxes", "labels"}:
        raise ValueError(f"{advice}. Received: y with keys {sorted(y)}.")
    return y["boxes"], y["labels"]


def dense(y):
    """Makes dense tensors of labels, within a graph or not.

    Args:
        y: Dict as of `split`, of tensors or `tf.RaggedTensor`s.

    Returns:
        `(boxes, labels)`: `(batch_size, num_boxes, 4)` and `(batch_size,
        num_boxes)`.

    Raises:
        ValueError: If they have other shapes.
    """
    boxes, labels = (
        values.to_tensor(NOTHING) if _is_ragged(values) else values
        for values in split(y)
    )
    check_shapes(boxes.shape, labels.shape)
    return boxes, labels


def check_shapes(boxes, labels):
    """Raises `ValueError` unless shapes, maybe unknown, are those of boxes."""
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
    """Raises `ValueError` if numbers cannot be boxes in pixels and classes.

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

    def refuse(is_wrong, values, name, rule):
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
    refuse(
        ~((is_class & (labels == np.round(labels))) | (labels == NOTHING)),
        labels,
        "labels",
        f"`labels` must be integers from 0 to {num_classes - 1}, or "
        f"{NOTHING} where a row only fills up.",
    )
    refuse(
        is_class & ~np.isfinite(boxes).all(axis=-1),
        boxes,
        "boxes",
        "`boxes` must be finite numbers.",
    )
    # Rows that only fill up may be anything.
    boxes = np.where(is_class[..., None], boxes, 0)
    left, top, right, bottom = _sides(boxes, bounding_box_format)
    refuse(
        is_class & ((right <= left) | (bottom <= top)),
        boxes,
        "boxes",
        f"`boxes` must be {bounding_box_format!r} and have an area, or the "
        f"label {NOTHING} where they only fill up.",
    )
    is_tiny = (right - left <= 1) & (bottom - top <= 1)
    # Or all of one image are in its first pixel.
    is_first = (left >= 0) & (top >= 0) & (right <= 1) & (bottom <= 1)
    is_relative = (is_tiny | ~is_class).all() | (
        (is_first | ~is_class).all(axis=1, keepdims=True)
    )
    refuse(
        is_class & is_relative,
        boxes,
        "boxes",
        "`boxes` must be in pixels, and none of these is larger than one "
        "pixel; multiply those from 0 to 1 by the size of the image.",
    )
    height, width = image_shape[1:3]
    refuse(
        is_class
        & ((right <= 0) | (bottom <= 0) | (left >= width) | (top >= height)),
        boxes,
        "boxes",
        f"`boxes` must be {bounding_box_format!r} in pixels and reach into "
        f"the image, here of {height}x{width} pixels.",
    )


def prepare_arrays(x, y, num_classes, bounding_box_format):
    """Checks labels that are at hand, and fills them up.

    Args:
        x: Images, an array or tensor.
        y: Dict as of `split`, of arrays, tensors, `tf.RaggedTensor`s or lists
            of an array for each image.
        num_classes: Integer.
        bounding_box_format: Format of the boxes, see `RetinaNet`.

    Returns:
        Dict of NumPy arrays: `"boxes"`, `(batch_size, num_boxes, 4)` in
        float32, and `"labels"`, `(batch_size, num_boxes)` in int32.

    Raises:
        ValueError: See `check_values`.
    """
    boxes, labels = split(y)
    boxes, box_counts = _fill_up(boxes, "boxes", (4,))
    labels, label_counts = _fill_up(labels, "labels", ())
    if box_counts is not None and label_counts is not None:
        check_counts(box_counts, label_counts)
    check_shapes(boxes.shape, labels.shape)
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 4:
        raise ValueError(
            "Images must be an array (batch_size, height, width, channels). "
            f"Received: {type(x).__name__} of shape {shape}."
        )
    check_values(boxes, labels, shape, num_classes, bounding_box_format)
    return {
        "boxes": boxes.astype("float32"),
        "labels": labels.astype("int32"),
    }


def prepare_weights(sample_weight):
    """Returns an array of a number for each image, or `None` for `None`.

    Raises:
        ValueError: If it is anything else.
    """
    if sample_weight is None:
        return None
    rule = "`sample_weight` must be one finite number for each image."
    if isinstance(sample_weight, dict):
        raise ValueError(
            f"{rule} Received: a dict with keys {sorted(sample_weight)}."
        )
    weights = np.asarray(keras.ops.convert_to_numpy(sample_weight), "float32")
    if weights.ndim == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.ndim != 1 or not np.isfinite(weights).all():
        raise ValueError(
            f"{rule} Received: sample_weight of shape {weights.shape}, "
            f"{weights}."
        )
    return weights


def image_weights(sample_weight):
    """Returns weights `(batch_size,)` within a graph.

    Args:
        sample_weight: `(batch_size,)` or `(batch_size, 1)`; or a dict of it
            for each of the labels, which Keras makes of an array.

    Raises:
        ValueError: If it has another shape.
    """
    if isinstance(sample_weight, dict):
        sample_weight = next(iter(sample_weight.values()))
    weights = keras.ops.cast(sample_weight, "float32")
    if len(weights.shape) == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if len(weights.shape) != 1:
        raise ValueError(
            "`sample_weight` must be one number for each image. Received: "
            f"sample_weight of shape {tuple(weights.shape)}."
        )
    return weights


def _is_ragged(values):
    # Without TensorFlow, which is not loaded under JAX.
    return hasattr(values, "to_tensor") and hasattr(values, "row_lengths")


def _fill_up(values, name, shape):
    """Returns a dense array, and the number of rows of each image.

    The number is `None` for values that were dense.
    """
    if _is_ragged(values):
        values = [keras.ops.convert_to_numpy(row) for row in _rows(values)]
    is_list = isinstance(values, (list, tuple)) or (
        isinstance(values, np.ndarray) and values.dtype == object
    )
    try:
        if not is_list:
            return _numbers(keras.ops.convert_to_numpy(values)), None
        rows = [
            _numbers(np.asarray(keras.ops.convert_to_numpy(row)))
            for row in values
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be numbers: an array, a ragged tensor, or a list "
            f"of an array for each image. Received: {values!r}."
        ) from error
    # Of a list without boxes NumPy knows no shape.
    rows = [row if row.size else np.zeros((0, *shape)) for row in rows]
    for index, row in enumerate(rows):
        if row.ndim != 1 + len(shape) or row.shape[1:] != shape:
            expected = ", ".join(["num_boxes", *map(str, shape)])
            raise ValueError(
                f"`{name}` of an image must have the shape ({expected}). "
                f"Received: shape {row.shape} in image {index}."
            )
    counts = [len(row) for row in rows]
    filled = np.full(
        (len(rows), max(counts, default=0), *shape), NOTHING, "float64"
    )
    for row, place in zip(rows, filled, strict=True):
        place[: len(row)] = row
    return filled, counts


def _rows(ragged):
    for index in range(ragged.shape[0]):
        row = ragged[index]
        yield row.to_tensor(NOTHING) if _is_ragged(row) else row


def _numbers(array):
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise TypeError(array.dtype)
    return array


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
