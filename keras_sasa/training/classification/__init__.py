"""Training of classifiers."""

from keras_sasa.training.classification.classifier import build_model, fit
from keras_sasa.training.classification.recipes import (
    CIFAR10,
    DIGITS,
    IMAGENET,
    RECIPES,
    recipe_for,
)

__all__ = [
    "CIFAR10",
    "DIGITS",
    "IMAGENET",
    "RECIPES",
    "build_model",
    "fit",
    "recipe_for",
]
