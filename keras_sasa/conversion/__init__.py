"""Attention in place of the convolutions of an existing model."""

from keras_sasa.conversion.replacement import replace_convolutions
from keras_sasa.conversion.report import Conversion

__all__ = ["Conversion", "replace_convolutions"]
