"""Images with boxes: COCO and other sets, as one kind of `tf.data` examples.

An example is a dict of `image` (a `uint8` tensor, a string of an encoded image
or the path of one), `image_id`, `boxes` `(num_boxes, 4)` ("xyxy", in pixels),
`labels`, `is_crowd` (a box of many objects that nobody counted) and `areas`
(those of the objects, by which COCO calls them small, medium or large).
"""

import dataclasses
import warnings

import numpy as np
import tensorflow as tf

from keras_sasa._optional_imports import optional_import
from keras_sasa._paths import local_path
from keras_sasa.data import coco
from keras_sasa.data.box_transforms import area
from keras_sasa.data.images import ImageData

_SCENE_SIDE = 128
_SCENES = 2000
_VALIDATION_SCENES = 200
_MOST_DIGITS = 8
_DIGIT_SIDES = (20, 52)
# A digit that finds no place without an overlap in so many is left away.
_PLACES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionData(ImageData):
    """An `ImageData` of images with boxes.

    Its examples are those of the head of this module, and `class_names` has a
    string for each label of a box.
    """


def load_data(name):
    """Finds a set of images with boxes.

    Args:
        name: `"digit_scenes"` (scenes of scikit-learn's digits on noise, see
            `digit_scenes`), `"tfds:NAME"` (a set of TensorFlow Datasets with
            `objects`, for instance `"tfds:coco/2017"`), or the path of a folder
            in COCO's format: `annotations/instances_SPLIT.json` and the images
            in `SPLIT`, for two splits whose names begin with `train` and
            `val`.

    Returns:
        A `DetectionData`. Boxes that reach beyond their image are cut off at
        its borders, and those without area are left out; for a folder,
        warnings say how many.

    Raises:
        ValueError: If the data cannot be found, or an entry of a JSON file
            cannot be right; the error names the file and the entry.
        ImportError: If the package that reads it is not installed.
    """
    if name == "digit_scenes":
        return _load_digits()
    if str(name).startswith("tfds:"):
        return _load_tfds(name.removeprefix("tfds:"))
    return _load_coco(local_path(name, "name"))


def digit_scenes(digits, labels, number, seed):
    """Makes scenes of 1 to 8 digits of different sizes on noise.

    Args:
        digits: Array `(count, 8, 8)` of 0 to 16.
        labels: Integers `(count,)`.
        number: Integer, scenes to make.
        seed: Integer.

    Returns:
        Images `(number, 128, 128, 1)` in `uint8`, and for each a float32 array
        of the boxes around what is drawn of its digits, and one of their
        labels.
    """
    random = np.random.default_rng(seed)
    shape = (number, _SCENE_SIDE, _SCENE_SIDE, 1)
    images = random.integers(0, 96, shape, "uint8")
    all_boxes, all_labels = [], []
    for image in images:
        boxes, classes = [], []
        for _ in range(random.integers(1, _MOST_DIGITS + 1)):
            side = int(random.integers(_DIGIT_SIDES[0], _DIGIT_SIDES[1] + 1))
            index = random.integers(len(digits))
            drawn = _enlarge(digits[index] * (255 / 16), side)
            rows, columns = np.nonzero(drawn > 64)
            inside = np.array(
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            )
            for _ in range(_PLACES):
                y, x = random.integers(0, _SCENE_SIDE - side + 1, 2)
                box = inside + [x, y, x, y]
                if any(_overlap(box, other) for other in boxes):
                    continue
                part = image[y : y + side, x : x + side, 0]
                np.maximum(part, drawn.astype("uint8"), out=part)
                boxes.append(box)
                classes.append(labels[index])
                break
        all_boxes.append(np.array(boxes, "float32"))
        all_labels.append(np.array(classes, "int64"))
    return images, all_boxes, all_labels


def _overlap(box, other):
    return (
        box[0] < other[2]
        and other[0] < box[2]
        and box[1] < other[3]
        and other[1] < box[3]
    )


def _enlarge(digit, side):
    """Interpolates linearly between the centres of pixels."""
    places = (np.arange(side) + 0.5) * len(digit) / side - 0.5
    distances = np.abs(places[:, None] - np.arange(len(digit)))
    weights = np.maximum(1 - distances, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ digit @ weights.T


def _load_digits():
    from keras_sasa.data import images as classification

    digits = classification.load_data("digits")

    def scenes(dataset, number, seed):
        pixels, labels = zip(*dataset.as_numpy_iterator(), strict=True)
        images, boxes, labels = digit_scenes(
            np.stack(pixels)[..., 0], np.array(labels), number, seed
        )
        return _dataset(
            images,
            range(1, number + 1),
            [
                coco.Annotations(b, c, np.zeros(len(c), bool), area(b))
                for b, c in zip(boxes, labels, strict=True)
            ],
        )

    return DetectionData(
        scenes(digits.train, _SCENES, 0),
        scenes(digits.validation, _VALIDATION_SCENES, 1),
        digits.class_names,
        channels=1,
    )


def _load_coco(folder):
    if not folder.is_dir():
        raise ValueError(
            "The data must be 'digit_scenes', 'tfds:NAME' or a folder in "
            f"COCO's format. There is no folder {str(folder)!r}."
        )
    splits = {}
    for start in ("train", "val"):
        found = sorted(
            path
            for path in folder.glob(f"annotations/instances_{start}*.json")
            if path.is_file()
        )
        if len(found) != 1:
            raise ValueError(
                f"{str(folder)!r} must hold one annotations/instances_{start}"
                f"*.json. Found: {[path.name for path in found]}."
            )
        (path,) = found
        images = folder / path.stem.removeprefix("instances_")
        split = coco.read(path, images)
        for note in split.notes:
            warnings.warn(f"{str(path)!r}: {note}", stacklevel=3)
        splits[path.name] = split, images
    class_names = {
        name: split.class_names for name, (split, _) in splits.items()
    }
    names, other_names = class_names.values()
    if names != other_names:
        raise ValueError(
            f"Both splits of {str(folder)!r} must have the same categories, in "
            "the same order of their ids. Received: "
            f"{_describe_difference(class_names)}."
        )
    train, validation = (
        _dataset(
            [str(images / name) for name in split.file_names],
            split.image_ids,
            split.annotations,
        )
        for split, images in splits.values()
    )
    return DetectionData(train, validation, names, reads_files=True)


def _describe_difference(class_names):
    """Says which of two lists, by the names of their files, has what alone."""
    one, other = map(set, class_names.values())
    only = [
        f"{sorted(alone)} only in {name}"
        for name, alone in zip(
            class_names, (one - other, other - one), strict=True
        )
        if alone
    ]
    # Or they differ in their order.
    return " and ".join(only) or str(class_names)


def _dataset(images, image_ids, annotations):
    """Makes examples of images and the `coco.Annotations` of each."""
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


def _load_tfds(name):
    tfds = optional_import("tensorflow_datasets", "tensorflow-datasets")
    try:
        builder = tfds.builder(name)
        info = builder.info
        objects = info.features["objects"] if "objects" in info.features else ()
        if "bbox" not in objects or "label" not in objects:
            raise ValueError(
                "it is not a set of images with `objects` that have `bbox` and "
                f"`label`, but of {list(info.features)}"
            )
        builder.download_and_prepare()
        held_out = [s for s in ("validation", "test") if s in info.splits]
        if not held_out:
            raise ValueError("it has no images held out")
        train, validation = (
            # Numbered, for sets that do not name their images by numbers.
            split.enumerate(1).map(_from_tfds)
            for split in builder.as_dataset(split=["train", held_out[0]])
        )
    except Exception as error:
        # What can go wrong in a download has no common type. Only the first
        # line: the others list every known data set.
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"tfds:{name} cannot be loaded: {reason}") from error
    return DetectionData(
        train,
        validation,
        class_names=info.features["objects"].feature["label"].names,
    )


def _from_tfds(number, example):
    objects = example["objects"]
    height, width = tf.unstack(tf.shape(example["image"])[:2])
    sides = tf.cast(tf.stack([width, height, width, height]), "float32")
    # TensorFlow Datasets has (ymin, xmin, ymax, xmax) from 0 to 1.
    boxes = tf.gather(objects["bbox"], [1, 0, 3, 2], axis=1)
    boxes = tf.clip_by_value(boxes, 0.0, 1.0) * sides
    box_areas = area(boxes)
    read = {
        "boxes": boxes,
        "labels": objects["label"],
        "is_crowd": objects.get("is_crowd", tf.zeros_like(box_areas, bool)),
        "areas": tf.cast(objects.get("area", box_areas), "float32"),
    }
    return {
        "image": example["image"],
        "image_id": example.get("image/id", number),
        **{key: value[box_areas > 0] for key, value in read.items()},
    }
