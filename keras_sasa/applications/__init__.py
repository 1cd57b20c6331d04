"""Attention ResNets and their convolutional twins."""

from keras_sasa.applications.configurations import CONFIGURATIONS
from keras_sasa.applications.imagenet import (
    decode_predictions,
    preprocess_input,
)
from keras_sasa.applications.named_networks import (
    ConvResNet26,
    ConvResNet38,
    ConvResNet50,
    SASAResNet26,
    SASAResNet38,
    SASAResNet50,
)
from keras_sasa.applications.resnet import GROUP_OUTPUTS, NUM_BLOCKS, ResNet

__all__ = [
    "CONFIGURATIONS",
    "GROUP_OUTPUTS",
    "NUM_BLOCKS",
    "ConvResNet26",
    "ConvResNet38",
    "ConvResNet50",
    "ResNet",
    "SASAResNet26",
    "SASAResNet38",
    "SASAResNet50",
    "decode_predictions",
    "preprocess_input",
]
