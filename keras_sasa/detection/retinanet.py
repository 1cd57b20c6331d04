"""RetinaNet: backbone, pyramid and heads joined, with its loss and boxes.

Which library, tried with Keras 3.15.1, TensorFlow 2.21.0, a backbone of this
package and an attention pyramid and heads:

|                             | keras-cv 0.9.0        | keras-hub 0.32.0   |
|-----------------------------|-----------------------|--------------------|
| foreign pyramid and heads   | yes                   | pyramid, not heads |
| fit, XLA, bfloat16          | yes                   | yes                |
| unknown image size          | no (targets)          | no (anchors)       |
| smaller last batch, predict | yes                   | no (suppression)   |
| batch without boxes         | loss of 0             | loss of 0          |
| pyramid in the saved file   | no                    | yes                |

keras-cv has had no release since 2024, keras-hub asks for tensorflow-text. So
boxes and their encoding (`keras.utils.bounding_boxes`) and both losses are
Keras' own, and what is between is written here.
"""

import keras
import numpy as np
from keras import layers, ops
from keras.utils import bounding_boxes

from keras_sasa.applications import GROUP_OUTPUTS
from keras_sasa.applications.resnet import check_choice
from keras_sasa.detection.anchors import ANCHORS_PER_PIXEL, make_anchors
from keras_sasa.detection.feature_pyramid import feature_pyramid
from keras_sasa.detection.non_maximum_suppression import suppress
from keras_sasa.detection.operators import NUM_GROUPS
from keras_sasa.detection.prediction_head import (
    PRIOR_PROBABILITY,
    prediction_head,
)
from keras_sasa.detection.targets import IGNORED, decode, make_targets
from keras_sasa.layers.image_layer import positive_integer

BOUNDING_BOX_FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw")

# Best pairs of an anchor and a class that suppression looks at (Lin et al.,
# 2017, https://arxiv.org/abs/1708.02002, section 4: 1,000 of each level).
_CANDIDATES = 1000


@keras.saving.register_keras_serializable(package="keras_sasa")
class RetinaNet(keras.Model):
    """A RetinaNet whose 3x3 convolutions can be attention.

    The loss of a batch is the focal loss of all anchors and classes plus the
    Huber loss of the boxes, both divided by the number of anchors that have a
    box (at least one, so that images without boxes teach background), on all
    devices together. `sample_weight` of `fit`, a number for each image, weighs
    both.

    Args:
        backbone: A functional `keras.Model` without top, for instance
            `applications.SASAResNet50(include_top=False)`, channels last.
        num_classes: Integer, number of classes.
        spatial: `"conv"` or `"attention"`, of the pyramid and the heads.
        bounding_box_format: Format of the boxes given to `fit` and made by
            `predict`, in pixels: one of `"xyxy"`, `"yxyx"`, `"xywh"`,
            `"center_xywh"` and `"center_yxhw"`.
        filters: Integer, width of pyramid and heads, a multiple of 32.
        features: Names of the three layers of the backbone whose outputs are
            1/8, 1/16 and 1/32 of the image.
        max_detections: Integer up to 1000, boxes that `predict` makes of each
            image.
        score_threshold: Float, score below which there is no box.
        iou_threshold: Float, overlap (intersection over union) above which
            the worse of two boxes of a class goes.
        implementation: Implementation of the attention in pyramid and heads,
            see `SelfAttention2D`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Call arguments:
        inputs: Images `(batch_size, height, width, channels)` as the backbone
            takes them; any size if the backbone leaves it open.

    Returns:
        A call returns a dict: `"classes"`, logits `(batch_size, num_anchors,
        num_classes)`, and `"boxes"`, encoded boxes `(batch_size, num_anchors,
        4)`. `fit` takes labels as a dict of `"boxes"` `(batch_size, num_boxes,
        4)` and integers `"labels"` `(batch_size, num_boxes)`, -1 where a row
        only fills up. `predict` returns a dict of `"boxes"` `(batch_size,
        max_detections, 4)`, `"scores"` and `"labels"`, filled up with -1, 0
        and -1.

    Raises:
        ValueError: If an argument is outside what is allowed above.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.detection import RetinaNet
    >>> backbone = ResNet((1, 1, 1, 1), width_multiplier=0.25,
    ...                   include_top=False, input_shape=(64, 64, 3))
    >>> model = RetinaNet(backbone, num_classes=3, spatial="attention",
    ...                   filters=32)
    >>> model.compile(optimizer="sgd")
    >>> images = np.zeros((2, 64, 64, 3), "float32")
    >>> boxes = np.array([[[8, 8, 40, 40]], [[-1, -1, -1, -1]]], "float32")
    >>> labels = {"boxes": boxes, "labels": np.array([[2], [-1]])}
    >>> history = model.fit(images, labels, verbose=0)
    >>> model.predict(images, verbose=0)["boxes"].shape
    (2, 100, 4)

    Reference:
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002);
        [Ramachandran et al., 2019](https://arxiv.org/abs/1906.05909),
        section 4.2.
    """

    def __init__(
        self,
        backbone,
        num_classes,
        spatial="conv",
        bounding_box_format="xyxy",
        filters=256,
        features=GROUP_OUTPUTS[1:],
        max_detections=100,
        score_threshold=0.05,
        iou_threshold=0.5,
        implementation=None,
        **kwargs,
    ):
        check_choice(
            "bounding_box_format", bounding_box_format, BOUNDING_BOX_FORMATS
        )
        positive_integer(num_classes, "num_classes")
        if positive_integer(max_detections, "max_detections") > _CANDIDATES:
            raise ValueError(
                f"`max_detections` must be at most {_CANDIDATES}. "
                f"Received: max_detections={max_detections}."
            )
        if positive_integer(filters, "filters") % NUM_GROUPS:
            raise ValueError(
                f"`filters` must be a multiple of {NUM_GROUPS}, the groups "
                f"that are normalized. Received: filters={filters}."
            )
        maps = [backbone.get_layer(name).output for name in features]
        levels = feature_pyramid(maps, spatial, filters, implementation)
        class_head = prediction_head(
            ANCHORS_PER_PIXEL * num_classes,
            spatial,
            "classification_head",
            filters,
            PRIOR_PROBABILITY,
            implementation,
        )
        box_head = prediction_head(
            ANCHORS_PER_PIXEL * 4,
            spatial,
            "box_head",
            filters,
            implementation=implementation,
        )
        super().__init__(
            backbone.inputs[0],
            {
                "classes": _predict(levels, class_head, num_classes, "classes"),
                "boxes": _predict(levels, box_head, 4, "boxes"),
            },
            **kwargs,
        )
        self.backbone = backbone
        self.num_classes = num_classes
        self.spatial = spatial
        self.bounding_box_format = bounding_box_format
        self.filters = filters
        self.features = tuple(features)
        self.max_detections = max_detections
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.implementation = implementation
        self._class_loss = keras.losses.BinaryFocalCrossentropy(
            apply_class_balancing=True,
            alpha=0.25,
            gamma=2.0,
            from_logits=True,
            reduction=None,
        )
        self._box_loss = keras.losses.Huber(reduction=None)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        _, height, width, _ = ops.shape(x)
        boxes = bounding_boxes.convert_format(
            ops.cast(y["boxes"], "float32"), self.bounding_box_format, "xyxy"
        )
        deltas, classes = make_targets(
            make_anchors(height, width), boxes, y["labels"]
        )
        positive = ops.cast(classes >= 0, "float32")
        normalizer = ops.maximum(_sum_of_replicas(ops.sum(positive)), 1.0)
        # Both losses are means over the last axis.
        class_loss = self.num_classes * self._class_loss(
            ops.one_hot(classes, self.num_classes), y_pred["classes"]
        )
        class_loss *= ops.cast(classes != IGNORED, "float32")
        box_loss = 4 * self._box_loss(deltas, y_pred["boxes"]) * positive
        if sample_weight is not None:
            weights = ops.cast(sample_weight, "float32")[:, None]
            class_loss, box_loss = weights * class_loss, weights * box_loss
        loss = (ops.sum(class_loss) + ops.sum(box_loss)) / normalizer
        # Gradients are summed over replicas, each of which adds all of these.
        replicas = _sum_of_replicas(ops.ones(()))
        for added in self.losses:
            loss += ops.cast(added, "float32") / replicas
        return loss

    def predict_step(self, *args):
        outputs = super().predict_step(*args)
        images = keras.utils.unpack_x_y_sample_weight(args[-1])[0]
        _, height, width, _ = ops.shape(images)
        # Under JAX the state comes with the outputs.
        if isinstance(outputs, tuple):
            outputs, state = outputs
            return self.make_detections(outputs, height, width), state
        return self.make_detections(outputs, height, width)

    def make_detections(self, outputs, height, width):
        """Makes boxes of the outputs of a call.

        Args:
            outputs: Dict that a call returns.
            height: Height of the images in pixels.
            width: Width of the images.

        Returns:
            Dict as `predict` returns it, of tensors.
        """
        logits = ops.cast(outputs["classes"], "float32")
        pairs = ops.shape(logits)[1] * self.num_classes
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
        boxes = decode(
            make_anchors(height, width), ops.cast(outputs["boxes"], "float32")
        )
        boxes = ops.take_along_axis(
            boxes, (best // self.num_classes)[..., None], axis=1
        )
        sides = ops.cast(ops.stack([width, height, width, height]), "float32")
        boxes, scores, labels = suppress(
            ops.clip(boxes, 0.0, sides),
            scores,
            best % self.num_classes,
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

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "num_classes": self.num_classes,
            "spatial": self.spatial,
            "bounding_box_format": self.bounding_box_format,
            "filters": self.filters,
            "features": self.features,
            "max_detections": self.max_detections,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "implementation": self.implementation,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["backbone"] = keras.saving.deserialize_keras_object(
            config["backbone"], custom_objects=custom_objects
        )
        return cls(**config)


def _sum_of_replicas(value):
    """Adds what all replicas of a `tf.distribute.Strategy` compute."""
    if keras.backend.backend() != "tensorflow":
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _predict(levels, head, width, name):
    """Applies a head to all levels; returns `(batch, num_anchors, width)`."""
    parts = [
        layers.Reshape((-1, width), name=f"{name}_{level.lower()}")(head(x))
        for level, x in levels.items()
    ]
    return layers.Concatenate(axis=1, name=name)(parts)
