from keras_sasa.fusion.fused_model import FusedModel

__all__ = ["FusedModel"]
