from keras_sasa.layers.attention_stem import AttentionStem
from keras_sasa.layers.batch_normalization import BatchNormalization
from keras_sasa.layers.halo_attention_2d import HaloAttention2D
from keras_sasa.layers.image_rescaling import ImageRescaling
from keras_sasa.layers.layer_scale import LayerScale
from keras_sasa.layers.neighborhood_attention_2d import NeighborhoodAttention2D
from keras_sasa.layers.self_attention_2d import SelfAttention2D

__all__ = [
    "AttentionStem",
    "BatchNormalization",
    "HaloAttention2D",
    "ImageRescaling",
    "LayerScale",
    "NeighborhoodAttention2D",
    "SelfAttention2D",
]
