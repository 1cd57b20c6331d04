"""Boxes and labels for training, made dense and checked.

Users pass arrays, ragged tensors or lists, for all images at once or batch by
batch.
"""

import keras
import numpy as np

from keras_sasa.detection.label_checks import (
    PADDING,
    check_counts,
    check_shapes,
    check_values,
)


def split(y):
    """Returns the boxes and the labels in the argument `y` of `fit`.

    Args:
        y: Dict of `"boxes"` and `"labels"`, which keras-cv calls
            `"classes"`.

    Returns:
        `(boxes, labels)`, unchanged.

    Raises:
        ValueError: If `y` is anything else.
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
    """Makes labels dense tensors, inside or outside of a graph.

    Args:
        y: Dict as for `split`, of tensors or `tf.RaggedTensor`s.

    Returns:
        `(boxes, labels)`: `(batch_size, num_boxes, 4)` and `(batch_size,
        num_boxes)`.

    Raises:
        ValueError: If `y` has other shapes.
    """
    boxes, labels = (
        values.to_tensor(PADDING) if _is_ragged(values) else values
        for values in split(y)
    )
    check_shapes(boxes.shape, labels.shape)
    return boxes, labels


def prepare_arrays(x, y, num_classes, bounding_box_format):
    """Checks labels in memory, and pads them.

    Args:
        x: Images, an array or tensor.
        y: Dict as for `split`, of arrays, tensors, `tf.RaggedTensor`s or
            lists of an array for each image.
        num_classes: Integer.
        bounding_box_format: Format of the boxes, see `RetinaNet`.

    Returns:
        Dict of NumPy arrays: `"boxes"`, `(batch_size, num_boxes, 4)` in
        float32, and `"labels"`, `(batch_size, num_boxes)` in int32.

    Raises:
        ValueError: See `check_values`.
    """
    boxes, labels = split(y)
    boxes, box_counts = _pad(boxes, "boxes", (4,))
    labels, label_counts = _pad(labels, "labels", ())
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
    """Returns an array with a number for each image, or `None` for `None`.

    Raises:
        ValueError: If `sample_weight` is anything else.
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
    """Returns weights `(batch_size,)` inside a graph.

    Args:
        sample_weight: `(batch_size,)` or `(batch_size, 1)`, or a dict that
            repeats it for each key of the labels; Keras makes such dicts.

    Raises:
        ValueError: If `sample_weight` has another shape.
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
    # Not by its type, since TensorFlow is not imported under JAX.
    return hasattr(values, "to_tensor") and hasattr(values, "row_lengths")


def _pad(values, name, shape):
    """Returns a dense array, and the number of rows of each image.

    The number is `None` if the values were dense.
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
    # NumPy does not know the shape of an empty list.
    rows = [row if row.size else np.zeros((0, *shape)) for row in rows]
    for index, row in enumerate(rows):
        if row.ndim != 1 + len(shape) or row.shape[1:] != shape:
            expected = ", ".join(["num_boxes", *map(str, shape)])
            raise ValueError(
                f"`{name}` of an image must have the shape ({expected}). "
                f"Received: shape {row.shape} in image {index}."
            )
    counts = [len(row) for row in rows]
    padded = np.full(
        (len(rows), max(counts, default=0), *shape), PADDING, "float64"
    )
    for row, place in zip(rows, padded, strict=True):
        place[: len(row)] = row
    return padded, counts


def _rows(ragged):
    for index in range(ragged.shape[0]):
        row = ragged[index]
        yield row.to_tensor(PADDING) if _is_ragged(row) else row


def _numbers(array):
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise TypeError(array.dtype)
    return array
