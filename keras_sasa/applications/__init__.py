"""Attention ResNets, their convolutional twins, NAT and DiNAT, and HaloNets."""

from keras_sasa.applications.configurations import CONFIGURATIONS
from keras_sasa.applications.imagenet import (
    decode_predictions,
    preprocess_input,
)
from keras_sasa.applications.named_halonets import (
    ECAHaloNeXt26TS,
    HaloNet26T,
    HaloNet50TS,
    SEHaloNet33TS,
)
from keras_sasa.applications.named_nat import (
    DiNATBase,
    DiNATLarge,
    DiNATMini,
    DiNATSmall,
    DiNATTiny,
    NATBase,
    NATMini,
    NATSmall,
    NATTiny,
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
    "NATMini",
    "NATTiny",
    "NATSmall",
    "NATBase",
    "DiNATMini",
    "DiNATTiny",
    "DiNATSmall",
    "DiNATBase",
    "DiNATLarge",
    "HaloNet26T",
    "HaloNet50TS",
    "SEHaloNet33TS",
    "ECAHaloNeXt26TS",
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
