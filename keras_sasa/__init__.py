"""Stand-alone self-attention for vision, in Keras."""

import importlib

from keras_sasa import applications, optimizers
from keras_sasa._version import __version__

# Its classes are registered here, for Keras to load any file.
from keras_sasa.detection.retinanet import RetinaNet as _RetinaNet  # noqa: F401
from keras_sasa.layers import AttentionStem, SelfAttention2D

__all__ = [
    "AttentionStem",
    "SelfAttention2D",
    "__version__",
    "applications",
    "optimizers",
]

# Loaded when touched, because they import TensorFlow or much else.
_SUBPACKAGES = {
    "conversion": "conversion",
    "data": "data",
    "detection": "detection",
    "local_attention": "ops.local_attention",
    "profile": "profile",
    "training": "training",
    "visualize": "visualize",
}


def __getattr__(name):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"keras_sasa.{_SUBPACKAGES[name]}")
    raise AttributeError(f"module 'keras_sasa' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_SUBPACKAGES})
