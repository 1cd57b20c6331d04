"""Training by a recipe, on one device or many; runs can be resumed."""

from keras_sasa.training import classification, detection
from keras_sasa.training.classification import (
    CIFAR10,
    DIGITS,
    IMAGENET,
    build_model,
    fit,
    recipe_for,
)
from keras_sasa.training.engine.callbacks import SaveRun
from keras_sasa.training.engine.devices import (
    Devices,
    check_supported,
    make_devices,
)
from keras_sasa.training.engine.recipe import Recipe
from keras_sasa.training.engine.run import Run
from keras_sasa.training.saved_models import (
    describe_images,
    load_trained,
    prepare_images,
    read_training,
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
    "classification",
    "describe_images",
    "detection",
    "fit",
    "load_trained",
    "make_devices",
    "prepare_images",
    "read_training",
    "recipe_for",
]
