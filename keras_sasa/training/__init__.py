"""Training by a recipe, on one device or many; runs can be resumed."""

import importlib

from keras_sasa.training.classification import build_model, fit
from keras_sasa.training.engine.devices import (
    Devices,
    check_supported,
    make_devices,
)
from keras_sasa.training.engine.recipe import (
    CIFAR10,
    DIGITS,
    IMAGENET,
    Recipe,
    recipe_for,
)
from keras_sasa.training.engine.run import Run, SaveRun, read_training
from keras_sasa.training.saved_models import (
    describe_images,
    evaluation_recipe,
    load_trained,
    prepare_images,
)

__all__ = [
    "CIFAR10",
    "DIGITS",
    "IMAGENET",
    "Devices",
    "Recipe",
    "Run",
    "SaveRun",
    "build_model",
    "check_supported",
    "describe_images",
    "evaluation_recipe",
    "fit",
    "load_trained",
    "make_devices",
    "prepare_images",
    "read_training",
    "recipe_for",
]


def __getattr__(name):
    if name == "detection":
        return importlib.import_module("keras_sasa.training.detection")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
