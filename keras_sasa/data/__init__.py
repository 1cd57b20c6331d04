"""Labelled images and the `tf.data` pipelines that feed training.

This package knows nothing about training runs: its functions take values, or
objects of which they read the attributes that their docstrings name.
"""

from keras_sasa.data.classification.batches import (
    evaluation_batches,
    training_batches,
)
from keras_sasa.data.classification.sources import load_data
from keras_sasa.data.corrupt_images import find_corrupt
from keras_sasa.data.decoding import decode_image, read_image
from keras_sasa.data.detection.detection_data import DetectionData
from keras_sasa.data.detection.sources import load_detection_data
from keras_sasa.data.epochs import steps_per_epoch
from keras_sasa.data.image_data import ImageData, typical_side
from keras_sasa.data.resizing import prepare_image

__all__ = [
    "DetectionData",
    "ImageData",
    "decode_image",
    "evaluation_batches",
    "find_corrupt",
    "load_data",
    "load_detection_data",
    "prepare_image",
    "read_image",
    "steps_per_epoch",
    "training_batches",
    "typical_side",
]
