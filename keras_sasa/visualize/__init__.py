"""Attention weights and the evidence behind predictions, in two steps.

Some functions compute arrays, others draw them.
"""

from keras_sasa.visualize.attention_pictures import plot_attention
from keras_sasa.visualize.attention_weights import (
    PixelAttention,
    attention_maps,
    pixel_attention,
    window_in_image,
)
from keras_sasa.visualize.detection_pictures import plot_detections
from keras_sasa.visualize.evidence import class_evidence
from keras_sasa.visualize.evidence_pictures import plot_class_evidence
from keras_sasa.visualize.head_pictures import (
    plot_attention_statistics,
    plot_position_logits,
)
from keras_sasa.visualize.head_statistics import (
    AttentionStatistics,
    attention_statistics,
    position_logits,
)
from keras_sasa.visualize.training_pictures import plot_confusion, plot_history

__all__ = [
    "AttentionStatistics",
    "PixelAttention",
    "attention_maps",
    "attention_statistics",
    "class_evidence",
    "pixel_attention",
    "plot_attention",
    "plot_attention_statistics",
    "plot_class_evidence",
    "plot_confusion",
    "plot_detections",
    "plot_history",
    "plot_position_logits",
    "position_logits",
    "window_in_image",
]
