"""The implementations of local attention, fastest first."""

from keras_sasa.ops.dispatch import by_name
from keras_sasa.ops.local_attention.native import NativeAttention
from keras_sasa.ops.local_attention.patches import PatchesAttention
from keras_sasa.ops.local_attention.tiled import TiledAttention

_TILED = TiledAttention()

IMPLEMENTATIONS = by_name(
    NativeAttention(recompute=_TILED),
    _TILED,
    PatchesAttention(),
)
