"""Training of classifiers."""

from keras_sasa.training.classification.classifier import build_model, fit

__all__ = ["build_model", "fit"]
