"""Boxes in pixels from raw outputs: decoding, scores and suppression."""

import keras
import numpy as np
from keras import layers, ops
from keras.utils import bounding_boxes

from keras_sasa._argument_checks import (
    check_choice,
    fraction,
    positive_integer,
    positive_numbers,
)
from keras_sasa.detection.anchors import (
    ASPECT_RATIOS,
    SCALES,
    SIZES,
    make_anchors,
)
from keras_sasa.detection.feature_pyramid import LEVELS
from keras_sasa.detection.non_maximum_suppression import suppress
from keras_sasa.detection.targets import decode

BOUNDING_BOX_FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw")

# Pairs of an anchor and a class that enter suppression, best first (Lin et al.,
# 2017, https://arxiv.org/abs/1708.02002, section 4: 1,000 of each level).
_CANDIDATES = 1000


@keras.saving.register_keras_serializable(package="keras_sasa")
class Detections(layers.Layer):
    """Turns the raw outputs of a `RetinaNet` into boxes in pixels.

    Args:
        bounding_box_format: Format of the boxes, see `RetinaNet`.
        max_detections: Integer up to 1000, number of boxes of each image.
        score_threshold: Float, minimum score of a box.
        iou_threshold: Float, overlap (intersection over union) above which
            the lower-scoring of two boxes of a class is suppressed.
        anchor_sizes: Sides of the square anchors, see `RetinaNet`.
        anchor_scales: Factors of these sides.
        aspect_ratios: Heights of the anchors divided by their widths.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: `(batch_size, height, width, channels)`; only the size
            matters.
        outputs: Dict that a call of a `RetinaNet` returns.

    Returns:
        Dict of `"boxes"` `(batch_size, max_detections, 4)`, `"scores"` and
        `"labels"` `(batch_size, max_detections)`, best first, padded with -1,
        0 and -1.

    Raises:
        ValueError: If an argument has a value that is not allowed above.
    """

    def __init__(
        self,
        bounding_box_format="xyxy",
        max_detections=100,
        score_threshold=0.05,
        iou_threshold=0.5,
        anchor_sizes=SIZES,
        anchor_scales=SCALES,
        aspect_ratios=ASPECT_RATIOS,
        **kwargs,
    ):
        # Pixel coordinates are too large for half precision.
        super().__init__(**{"dtype": "float32", **kwargs})
        check_choice(
            bounding_box_format, "bounding_box_format", BOUNDING_BOX_FORMATS
        )
        if positive_integer(max_detections, "max_detections") > _CANDIDATES:
            raise ValueError(
                f"`max_detections` must be at most {_CANDIDATES}. "
                f"Received: max_detections={max_detections}."
            )
        self.bounding_box_format = bounding_box_format
        self.max_detections = max_detections
        self.score_threshold = fraction(score_threshold, "score_threshold")
        self.iou_threshold = fraction(iou_threshold, "iou_threshold")
        self.anchor_sizes = positive_numbers(anchor_sizes, "anchor_sizes")
        if len(self.anchor_sizes) != len(LEVELS):
            raise ValueError(
                f"`anchor_sizes` must be {len(LEVELS)} sides in pixels, one "
                f"for each level from {LEVELS[0]} to {LEVELS[-1]}. Received: "
                f"anchor_sizes={anchor_sizes}."
            )
        self.anchor_scales = positive_numbers(anchor_scales, "anchor_scales")
        self.aspect_ratios = positive_numbers(aspect_ratios, "aspect_ratios")

    @property
    def anchors_per_pixel(self):
        return len(self.anchor_scales) * len(self.aspect_ratios)

    def anchors(self, outputs, height, width):
        """Makes the anchors of images, in the order of their raw outputs.

        Args:
            outputs: Dict that a call of a `RetinaNet` returns.
            height: Height of the images, an integer or a scalar tensor.
            width: Width of the images.

        Returns:
            `(num_anchors, 4)`, `"xyxy"` in pixels.

        Raises:
            ValueError: If there is not one output for each anchor.
        """
        anchors = make_anchors(
            height,
            width,
            self.anchor_sizes,
            self.anchor_scales,
            self.aspect_ratios,
        )
        expected, received = (
            anchors.shape[0],
            outputs["class_logits"].shape[1],
        )
        if None not in (expected, received) and expected != received:
            raise ValueError(
                "The backbone must divide the sides of images by 8, 16 and "
                "32, rounded up, so that there is one output for each anchor. "
                f"Received: images of {height}x{width} pixels, {received} "
                f"outputs and {expected} anchors."
            )
        return anchors

    def call(self, images, outputs):
        _, height, width, _ = ops.shape(images)
        return self.make(outputs, height, width)

    def make(self, outputs, height, width):
        """Makes boxes from raw outputs, for images of a given size.

        Args:
            outputs: Dict that a call of a `RetinaNet` returns.
            height: Height of the images, an integer or a scalar tensor.
            width: Width of the images.

        Returns:
            Dict with the same contents as the result of a call.
        """
        anchors = self.anchors(outputs, height, width)
        logits = ops.cast(outputs["class_logits"], "float32")
        num_classes = logits.shape[-1]
        pairs = ops.shape(logits)[1] * num_classes
        # Small images have fewer pairs than candidates.
        logits = ops.pad(
            ops.reshape(logits, (-1, pairs)),
            ((0, 0), (0, _CANDIDATES)),
            constant_values=-np.inf,
        )
        logits, best = ops.top_k(logits, _CANDIDATES)
        scores = ops.sigmoid(logits)
        scores = ops.where(scores >= self.score_threshold, scores, 0.0)
        best = ops.minimum(best, pairs - 1)
        boxes = decode(anchors, ops.cast(outputs["box_deltas"], "float32"))
        boxes = ops.take_along_axis(
            boxes, (best // num_classes)[..., None], axis=1
        )
        sides = ops.cast(ops.stack([width, height, width, height]), "float32")
        boxes, scores, labels = suppress(
            ops.clip(boxes, 0.0, sides),
            scores,
            best % num_classes,
            self.iou_threshold,
            self.max_detections,
        )
        found = (scores > 0)[..., None]
        boxes = bounding_boxes.convert_format(
            boxes, "xyxy", self.bounding_box_format
        )
        return {
            "boxes": ops.where(found, boxes, -1.0),
            "scores": scores,
            "labels": labels,
        }

    def compute_output_spec(self, images, outputs):
        shape = (images.shape[0], self.max_detections)
        return {
            "boxes": keras.KerasTensor((*shape, 4), dtype="float32"),
            "scores": keras.KerasTensor(shape, dtype="float32"),
            "labels": keras.KerasTensor(shape, dtype="int32"),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "bounding_box_format": self.bounding_box_format,
            "max_detections": self.max_detections,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "anchor_sizes": self.anchor_sizes,
            "anchor_scales": self.anchor_scales,
            "aspect_ratios": self.aspect_ratios,
        }
