"""Training by a recipe, on one device or many, that can be killed and go on."""

from keras_sasa.training.data import (
    ImageData,
    evaluation_batches,
    load_data,
    prepare_image,
    steps_per_epoch,
    training_batches,
    typical_side,
)
from keras_sasa.training.decoding import (
    decode_image,
    find_corrupt,
    read_image,
)
from keras_sasa.training.devices import Devices, check_supported, make_devices
from keras_sasa.training.fit import build_model, fit
from keras_sasa.training.recipe import (
    CIFAR10,
    DIGITS,
    IMAGENET,
    Recipe,
    recipe_for,
)
from keras_sasa.training.run import Run, SaveRun, read_training
from keras_sasa.training.trained import (
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
    "ImageData",
    "Recipe",
    "Run",
    "SaveRun",
    "build_model",
    "check_supported",
    "decode_image",
    "describe_images",
    "evaluation_batches",
    "evaluation_recipe",
    "find_corrupt",
    "fit",
    "load_data",
    "load_trained",
    "make_devices",
    "prepare_image",
    "prepare_images",
    "read_image",
    "read_training",
    "recipe_for",
    "steps_per_epoch",
    "training_batches",
    "typical_side",
]
