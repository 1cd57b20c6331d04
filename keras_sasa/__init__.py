"""Stand-alone self-attention for vision, in Keras."""

from keras_sasa import applications, optimizers
from keras_sasa._version import __version__
from keras_sasa.layers import AttentionStem, SelfAttention2D

__all__ = [
    "AttentionStem",
    "SelfAttention2D",
    "__version__",
    "applications",
    "optimizers",
]
