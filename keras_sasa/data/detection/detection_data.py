"""A set of images with boxes, and the examples it consists of."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_sasa.data.image_data import ImageData


@dataclasses.dataclass(frozen=True)
class DetectionData(ImageData):
    """An `ImageData` of images with boxes.

    An example is a dict of `image` (as in `ImageData`), `image_id`, `boxes`
    `(num_boxes, 4)` ("xyxy", in pixels), `labels`, `is_crowd` (whether a box
    holds many objects that were not counted) and `areas` (of the objects; COCO
    calls them small, medium or large by their area). `class_names` has a
    string for each label of a box.
    """


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


def make_examples(
    images,
    image_ids: Iterable[int],
    annotations: Sequence[Annotations],
) -> tf.data.Dataset:
    """Makes the examples of a `DetectionData`.

    Args:
        images: List or array, one image for each example.
        image_ids: Integers.
        annotations: An `Annotations` for each image.
    """
    lengths = [len(each.labels) for each in annotations]

    def ragged(name):
        values = np.concatenate([getattr(each, name) for each in annotations])
        return tf.RaggedTensor.from_row_lengths(values, lengths)

    return tf.data.Dataset.from_tensor_slices(
        {
            "image": images,
            "image_id": tf.constant(list(image_ids), "int64"),
            "boxes": ragged("boxes"),
            "labels": ragged("labels"),
            "is_crowd": ragged("is_crowd"),
            "areas": ragged("areas"),
        }
    ).map(_set_shapes)


def _set_shapes(example):
    example["boxes"] = tf.ensure_shape(example["boxes"], (None, 4))
    for name in ("labels", "is_crowd", "areas"):
        example[name] = tf.ensure_shape(example[name], (None,))
    return example
