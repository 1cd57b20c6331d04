"""A RetinaNet whose 3x3 convolutions can be attention."""

import importlib
import sys
import types

from keras_sasa.detection.configurations import DETECTORS
from keras_sasa.detection.feature_pyramid import feature_pyramid
from keras_sasa.detection.prediction_head import prediction_head
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

# `import keras_sasa` loads this package to register its classes. The modules
# below need TensorFlow, which JAX does not, and are loaded when touched.
_MODULES = {
    "BLOOD_CELLS": "recipes",
    "COCO": "recipes",
    "DIGIT_SCENES": "recipes",
    "DetectionData": "data",
    "build_detector": "fit",
    "detect": "evaluation",
    "evaluate": "evaluation",
    "fit": "fit",
    "load_data": "data",
}


class _Package(types.ModuleType):
    def __getattr__(self, name):
        if name not in _MODULES:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}"
            )
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        value = getattr(module, name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name, value):
        # Python sets a submodule once it is loaded; the function has its name.
        if name == "fit" and isinstance(value, types.ModuleType):
            value = value.fit
        super().__setattr__(name, value)

    def __dir__(self):
        return sorted({*super().__dir__(), *_MODULES})


sys.modules[__name__].__class__ = _Package
