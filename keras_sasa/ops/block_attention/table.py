"""The implementations of block attention, fastest first."""

from keras_sasa.ops.block_attention.definition import BlockDefinition
from keras_sasa.ops.block_attention.native import NativeBlockAttention
from keras_sasa.ops.dispatch import by_name

IMPLEMENTATIONS = by_name(NativeBlockAttention(), BlockDefinition())
