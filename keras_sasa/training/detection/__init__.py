"""Training and evaluation of detectors."""

from keras_sasa.training.detection.detector import build_detector, fit
from keras_sasa.training.detection.evaluation import detect, evaluate
from keras_sasa.training.detection.recipes import (
    BLOOD_CELLS,
    COCO,
    DIGIT_SCENES,
)

__all__ = [
    "BLOOD_CELLS",
    "COCO",
    "DIGIT_SCENES",
    "build_detector",
    "detect",
    "evaluate",
    "fit",
]
