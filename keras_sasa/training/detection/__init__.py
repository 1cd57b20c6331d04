"""Training and evaluation of detectors."""

from keras_sasa.training.detection.coco_precision import average_precision
from keras_sasa.training.detection.detector import build_detector, fit
from keras_sasa.training.detection.evaluation import detect, evaluate
from keras_sasa.training.detection.recipes import (
    BLOOD_CELLS,
    COCO,
    DIGIT_SCENES,
    RECIPES,
)

__all__ = [
    "BLOOD_CELLS",
    "COCO",
    "DIGIT_SCENES",
    "RECIPES",
    "average_precision",
    "build_detector",
    "detect",
    "evaluate",
    "fit",
]
