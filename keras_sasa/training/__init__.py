"""Training by a recipe, on one device or many, that can be killed and go on."""

from keras_sasa.training.data import (
    ImageData,
    evaluation_batches,
    find_corrupt,
    load_data,
    steps_per_epoch,
    training_batches,
)
from keras_sasa.training.decoding import decode_image, read_image
from keras_sasa.training.devices import Devices, check_supported, make_devices
from keras_sasa.training.fit import build_model, fit
from keras_sasa.training.recipe import CIFAR10, DIGITS, IMAGENET, Recipe
from keras_sasa.training.run import Run, SaveRun, read_training

__all__ = [
    "CIFAR10",
    "DIGITS",
    "IMAGENET",
    "Devices",
    "ImageData",
    "Recipe",
    "Run",
    "SaveRun",
    "build_model",
    "check_supported",
    "decode_image",
    "evaluation_batches",
    "find_corrupt",
    "fit",
    "load_data",
    "make_devices",
    "read_image",
    "read_training",
    "steps_per_epoch",
    "training_batches",
]
