"""Stand-alone self-attention for vision, in Keras.

Importing this package registers all its classes with Keras, so that any saved
model can be loaded.
"""

import importlib
from typing import TYPE_CHECKING

from keras_sasa import applications, detection, fusion, layers, optimizers
from keras_sasa._version import __version__
from keras_sasa.layers import (
    AttentionStem,
    HaloAttention2D,
    NeighborhoodAttention2D,
    SelfAttention2D,
)

if TYPE_CHECKING:
    from keras_sasa import conversion, data, profile, training, visualize
    from keras_sasa.ops import local_attention

__all__ = [
    "AttentionStem",
    "HaloAttention2D",
    "NeighborhoodAttention2D",
    "SelfAttention2D",
    "__version__",
    "applications",
    "conversion",
    "data",
    "detection",
    "fusion",
    "layers",
    "local_attention",
    "optimizers",
    "profile",
    "training",
    "visualize",
]

# Imported at the first use: some import TensorFlow, under any backend.
_LAZY_MODULES = {
    "conversion": "keras_sasa.conversion",
    "data": "keras_sasa.data",
    "local_attention": "keras_sasa.ops.local_attention",
    "profile": "keras_sasa.profile",
    "training": "keras_sasa.training",
    "visualize": "keras_sasa.visualize",
}


def __getattr__(name):
    if name in _LAZY_MODULES:
        return importlib.import_module(_LAZY_MODULES[name])
    raise AttributeError(f"module 'keras_sasa' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LAZY_MODULES})
