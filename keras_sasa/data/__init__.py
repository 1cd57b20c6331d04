"""Labelled images and the `tf.data` pipelines that feed a training."""

from keras_sasa.data.decoding import decode_image, find_corrupt, read_image
from keras_sasa.data.detection_sources import DetectionData
from keras_sasa.data.detection_sources import load_data as load_detection_data
from keras_sasa.data.images import (
    ImageData,
    evaluation_batches,
    load_data,
    prepare_image,
    steps_per_epoch,
    training_batches,
    typical_side,
)

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
