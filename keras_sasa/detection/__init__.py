"""A RetinaNet whose 3x3 convolutions can be attention."""

from keras_sasa.detection.configurations import DETECTORS
from keras_sasa.detection.feature_pyramid import feature_pyramid
from keras_sasa.detection.prediction_head import prediction_head
from keras_sasa.detection.retinanet import RetinaNet

__all__ = [
    "DETECTORS",
    "RetinaNet",
    "feature_pyramid",
    "prediction_head",
]
