"""Detection sets of TensorFlow Datasets."""

import tensorflow as tf

from keras_sasa.data.detection.box_transforms import area
from keras_sasa.data.detection.detection_data import DetectionData
from keras_sasa.data.tfds import errors_in_one_line, import_tfds


def load(name: str) -> DetectionData:
    """Loads a set by its name in TensorFlow Datasets.

    See `load_detection_data`.
    """
    tfds = import_tfds()
    with errors_in_one_line(name):
        builder = tfds.builder(name)
        info = builder.info
        objects = info.features["objects"] if "objects" in info.features else ()
        if "bbox" not in objects or "label" not in objects:
            raise ValueError(
                "it is not a set of images with `objects` that have `bbox` and "
                f"`label`. Its features are {list(info.features)}"
            )
        builder.download_and_prepare()
        own = [s for s in ("validation", "test") if s in info.splits]
        if not own:
            raise ValueError("it has no validation images")
        train, validation = (
            # Numbered, for sets whose images have no integer ids.
            split.enumerate(1).map(_make_example)
            for split in builder.as_dataset(split=["train", own[0]])
        )
    return DetectionData(
        train=train,
        validation=validation,
        class_names=info.features["objects"].feature["label"].names,
    )


def _make_example(number, example):
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
