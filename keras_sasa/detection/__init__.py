"""A RetinaNet whose 3x3 convolutions can be attention."""

from keras_sasa.detection.configurations import DETECTORS
from keras_sasa.detection.data import DetectionData, load_data
from keras_sasa.detection.evaluation import detect, evaluate
from keras_sasa.detection.feature_pyramid import feature_pyramid
from keras_sasa.detection.fit import build_detector, fit
from keras_sasa.detection.prediction_head import prediction_head
from keras_sasa.detection.recipes import BLOOD_CELLS, COCO, DIGIT_SCENES
from keras_sasa.detection.retinanet import RetinaNet

__all__ = [
    "BLOOD_CELLS",
    "COCO",
    "DETECTORS",
    "DIGIT_SCENES",
    "DetectionData",
    "RetinaNet",
    "build_detector",
    "detect",
    "evaluate",
    "feature_pyramid",
    "fit",
    "load_data",
    "prediction_head",
]
