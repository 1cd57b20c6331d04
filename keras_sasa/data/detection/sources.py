"""Sources of images with boxes, one per file.

A new one is a file with a function, and a row in `SOURCES`.
"""

import os

from keras_sasa.data.detection import digit_scenes, tfds_boxes
from keras_sasa.data.detection.coco import folder as coco_folder
from keras_sasa.data.detection.detection_data import DetectionData
from keras_sasa.data.sources import find_source

# Functions without arguments, or of the rest of the name for prefixes.
SOURCES = {"digit_scenes": digit_scenes.load, "tfds:": tfds_boxes.load}


def load_detection_data(name: str | os.PathLike) -> DetectionData:
    """Loads a set of images with boxes.

    Args:
        name: `"digit_scenes"` (scikit-learn's digits on noise, see
            `digit_scenes.make_scenes`), `"tfds:NAME"` (a set of TensorFlow
            Datasets with `objects`, for instance `"tfds:coco/2017"`), or the
            path of a folder in COCO's format:
            `annotations/instances_SPLIT.json` and the images in `SPLIT`, for
            two splits whose names begin with `train` and `val`.

    Returns:
        A `DetectionData`. Boxes that reach beyond their image are clipped to
        it, and boxes without area are left out; warnings count both for a
        folder.

    Raises:
        ValueError: If the data cannot be found, or an entry of a JSON file
            cannot be right; the message names the file and the entry.
        ImportError: If the package that reads it is not installed.
    """
    load = find_source(
        name, SOURCES, coco_folder.load, "a folder in COCO's format"
    )
    return load()
