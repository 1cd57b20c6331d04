from keras_sasa.layers.attention_stem import AttentionStem
from keras_sasa.layers.batch_normalization import BatchNormalization
from keras_sasa.layers.dense import Dense
from keras_sasa.layers.halo_attention_2d import HaloAttention2D
from keras_sasa.layers.image_rescaling import ImageRescaling
from keras_sasa.layers.layer_normalization import LayerNormalization
from keras_sasa.layers.layer_scale import LayerScale
from keras_sasa.layers.neighborhood_attention_2d import NeighborhoodAttention2D
from keras_sasa.layers.self_attention_2d import SelfAttention2D

__all__ = [
    "AttentionStem",
    "BatchNormalization",
    "Dense",
    "HaloAttention2D",
    "ImageRescaling",
    "LayerNormalization",
    "LayerScale",
    "NeighborhoodAttention2D",
    "SelfAttention2D",
]
