"""Images with boxes: COCO and other sets, as one kind of `tf.data` examples.

An example is a dict of `image` (a `uint8` tensor, a string of an encoded image
or the path of one), `image_id`, `boxes` `(num_boxes, 4)` ("xyxy", in pixels),
`labels`, `is_crowd` (a box of many objects that nobody counted) and `areas`
(those of the objects, by which COCO calls them small, medium or large).
"""

import dataclasses
import json
import pathlib

import numpy as np
import tensorflow as tf

from keras_sasa.detection.transforms import area
from keras_sasa.optional import needs
from keras_sasa.training.data import ImageData

# More than the 93 of COCO's fullest image.
_TFDS_MAX_BOXES = 200
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

    Args:
        max_boxes: Integer, boxes of an image at most.
        left_out: Integer, boxes without area, which are in neither set.
    """

    max_boxes: int
    left_out: int = 0


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
        its borders, and those without area are left out.

    Raises:
        ValueError: If the data cannot be found, or an annotation makes no
            sense; the error names the image and the annotation.
        ImportError: If the package that reads it is not installed.
    """
    if name == "digit_scenes":
        return _load_digits()
    if str(name).startswith("tfds:"):
        return _load_tfds(name.removeprefix("tfds:"))
    return _load_coco(pathlib.Path(name))


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
    from keras_sasa.training import data as classification

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
                _Annotations(b, c, np.zeros(len(c), bool), area(b))
                for b, c in zip(boxes, labels, strict=True)
            ],
        )

    return DetectionData(
        scenes(digits.train, _SCENES, 0),
        scenes(digits.validation, _VALIDATION_SCENES, 1),
        digits.class_names,
        max_boxes=_MOST_DIGITS,
        channels=1,
    )


def _load_coco(folder):
    if not folder.is_dir():
        raise ValueError(
            "The data must be 'digit_scenes', 'tfds:NAME' or a folder in "
            f"COCO's format. There is no folder {str(folder)!r}."
        )
    splits = []
    for start in ("train", "val"):
        found = sorted(folder.glob(f"annotations/instances_{start}*.json"))
        if len(found) != 1:
            raise ValueError(
                f"{str(folder)!r} must hold one annotations/instances_{start}"
                f"*.json. Found: {[path.name for path in found]}."
            )
        images = folder / found[0].stem.removeprefix("instances_")
        splits.append(_read_coco(found[0], images))
    (train, names, *_), (validation, other_names, *_) = splits
    if names != other_names:
        raise ValueError(
            f"Both splits of {str(folder)!r} must have the same categories. "
            f"Received: {names} and {other_names}."
        )
    return DetectionData(
        train,
        validation,
        names,
        max_boxes=max(max_boxes for *_, max_boxes, _ in splits),
        reads_files=True,
        left_out=sum(left_out for *_, left_out in splits),
    )


def _read_coco(path, folder):
    """Returns a split, its class names, most boxes, and how many left out."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda c: c["id"])
        images = {image["id"]: image for image in content["images"]}
        listed = {key: [] for key in images}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in listed:
                raise ValueError(
                    f"annotation {annotation['id']} is of image "
                    f"{annotation['image_id']}, which is not listed"
                )
            listed[annotation["image_id"]].append(annotation)
        label_of = {c["id"]: label for label, c in enumerate(categories)}
        read = {
            key: _check_annotations(images[key], listed[key], label_of)
            for key in images
        }
        paths = [folder / image["file_name"] for image in images.values()]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} is not in COCO's format: "
            f"{type(error).__name__}: {error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    if not paths:
        raise ValueError(f"{str(path)!r} lists no images.")
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise ValueError(
            f"{len(missing)} images of {path.name} are missing, the first is "
            f"{str(missing[0])!r}."
        )
    annotations = list(read.values())
    return (
        _dataset([str(path) for path in paths], list(images), annotations),
        [category["name"] for category in categories],
        max(len(each.labels) for each in annotations),
        len(content["annotations"]) - sum(len(a.labels) for a in annotations),
    )


@dataclasses.dataclass
class _Annotations:
    """The boxes of one image, as arrays."""

    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray


def _check_annotations(image, annotations, label_of):
    """Makes arrays of the annotations of an image."""
    boxes, labels, is_crowd, areas = [], [], [], []
    width, height = image["width"], image["height"]
    for annotation in annotations:
        where = f"image {image['file_name']!r}, annotation {annotation['id']}"
        category = annotation["category_id"]
        if category not in label_of:
            raise ValueError(
                f"{where}: `category_id` must be one of {sorted(label_of)}. "
                f"Received: {category!r}."
            )
        x, y, *sides = box = annotation["bbox"]
        if len(sides) != 2 or not np.isfinite(box).all() or min(sides) < 0:
            raise ValueError(
                f"{where}: `bbox` must be finite numbers x, y, width and "
                f"height, the last two not negative. Received: {box}."
            )
        if x > width or y > height or x + sides[0] < 0 or y + sides[1] < 0:
            raise ValueError(
                f"{where}: `bbox` must lie in the image of {width} x {height} "
                f"pixels, at least in part. Received: {box}."
            )
        cut = np.clip(
            [x, y, x + sides[0], y + sides[1]], 0, [width, height] * 2
        )
        if not area(cut[None])[0]:
            continue
        boxes.append(cut)
        labels.append(label_of[category])
        is_crowd.append(bool(annotation.get("iscrowd", 0)))
        areas.append(annotation.get("area", sides[0] * sides[1]))
    return _Annotations(
        np.array(boxes, "float32").reshape(-1, 4),
        np.array(labels, "int64"),
        np.array(is_crowd, bool),
        np.array(areas, "float32"),
    )


def _dataset(images, image_ids, annotations):
    """Makes examples of images and the `_Annotations` of each."""
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
    tfds = needs("tensorflow_datasets", "tensorflow-datasets")
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
        max_boxes=_TFDS_MAX_BOXES,
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
