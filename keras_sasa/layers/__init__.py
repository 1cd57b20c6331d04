from keras_sasa.layers.attention_stem import AttentionStem
from keras_sasa.layers.image_rescaling import ImageRescaling
from keras_sasa.layers.self_attention_2d import SelfAttention2D

__all__ = ["AttentionStem", "ImageRescaling", "SelfAttention2D"]
