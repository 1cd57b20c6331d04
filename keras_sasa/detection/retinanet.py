"""RetinaNet: backbone, pyramid and heads in one model, with loss and boxes.

Two libraries were tried with Keras 3.15.1, TensorFlow 2.21.0, a backbone of
this package, and a pyramid and heads of attention:

|                             | keras-cv 0.9.0        | keras-hub 0.32.0   |
|-----------------------------|-----------------------|--------------------|
| our own pyramid and heads   | yes                   | pyramid, not heads |
| fit, XLA, bfloat16          | yes                   | yes                |
| unknown image size          | no (targets)          | no (anchors)       |
| smaller last batch, predict | yes                   | no (suppression)   |
| batch without boxes         | loss of 0             | loss of 0          |
| pyramid in the saved file   | no                    | yes                |

keras-cv has had no release since 2024, and keras-hub requires tensorflow-text.
Therefore only the boxes, their encoding (`keras.utils.bounding_boxes`) and both
losses come from Keras; the rest is written here.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from keras.utils import bounding_boxes

from keras_sasa._argument_checks import check_choice, positive_integer
from keras_sasa._keras_graphs import all_layers, call_of
from keras_sasa.applications import GROUP_OUTPUTS
from keras_sasa.detection import labels
from keras_sasa.detection.anchors import ASPECT_RATIOS, SCALES, SIZES
from keras_sasa.detection.backbones import feature_maps
from keras_sasa.detection.checked_data import checked_arguments
from keras_sasa.detection.detections import Detections
from keras_sasa.detection.feature_pyramid import feature_pyramid
from keras_sasa.detection.loss import detection_loss, sum_over_replicas
from keras_sasa.detection.prediction_head import (
    PRIOR_PROBABILITY,
    prediction_head,
)
from keras_sasa.detection.raw_outputs import RawOutputs
from keras_sasa.detection.spatial_layers import NUM_HEADS, SPATIAL_LAYERS
from keras_sasa.detection.targets import make_targets
from keras_sasa.fusion import FusedModel
from keras_sasa.ops.exporters import called_from
from keras_sasa.ops.local_attention import check_implementation

# Keras writes such files, but reads them for its own classes only.
_NO_HDF5 = (
    "A `RetinaNet` must be saved as a `.keras` file; the legacy HDF5 format is "
    "not supported."
)


def _or_from_graph(init):
    """Lets a constructor also take the inputs and outputs of a graph.

    Keras loads and clones a functional model in this way if its constructor
    has the signature `(*args, **kwargs)`.
    """

    @functools.wraps(init)
    def __init__(self, *args, **kwargs):
        first = args[0] if args else kwargs.get("inputs")
        if isinstance(first, keras.KerasTensor):
            self._init_from_graph(*args, **kwargs)
        else:
            init(self, *args, **kwargs)

    return __init__


def _option(name):
    """Returns a property that is stored in the layer that makes boxes."""
    return property(
        lambda self: getattr(self.detections, name),
        lambda self, value: setattr(self.detections, name, value),
    )


@keras.saving.register_keras_serializable(package="keras_sasa")
class RetinaNet(FusedModel):
    """A RetinaNet whose 3x3 convolutions can be attention.

    The loss of a batch is the focal loss of all anchors and classes plus the
    Huber loss of the boxes, divided by the number of anchors with a box on all
    devices together. That number counts as at least one, so that images
    without boxes teach the background. The `sample_weight` of `fit`, a number
    for each image, weights both losses.

    Args:
        backbone: A functional `keras.Model` without top, channels last, for
            instance `applications.SASAResNet50(include_top=False)`.
        num_classes: Integer, number of classes.
        spatial: `"conv"` or `"attention"`, the spatial layers of the pyramid
            and the heads.
        bounding_box_format: Format in pixels of the boxes that `fit` takes and
            `predict` returns: `"xyxy"`, `"yxyx"`, `"xywh"`, `"center_xywh"` or
            `"center_yxhw"`.
        filters: Integer, width of the pyramid and the heads; a multiple of 16
            for attention.
        features: Names of the three layers of the backbone whose outputs are
            1/8, 1/16 and 1/32 of the image size, rounded up.
        max_detections: Integer up to 1000, number of boxes that `predict`
            returns for each image.
        score_threshold: Float, minimum score of a box.
        iou_threshold: Float, overlap (intersection over union) above which
            the lower-scoring of two boxes of a class is suppressed.
        implementation: Implementation of the attention in the pyramid and the
            heads, see `SelfAttention2D`.
        head_depth: Integer, number of spatial layers in each head before its
            prediction.
        anchor_sizes: Five numbers, the sides in pixels of the square anchors
            of the levels P3 to P7. An object must overlap an anchor by half:
            for objects of 12 pixels start with 8, not with 32.
        anchor_scales: Factors of these sides; each level has all of them.
        aspect_ratios: Heights of the anchors divided by their widths.
        name: Name of the model.
        trainable: Boolean, whether the weights can be trained.

    Call arguments:
        inputs: Images `(batch_size, height, width, channels)` as the backbone
            takes them; of any size if the backbone leaves it open.

    Returns:
        A call returns a dict of raw outputs: `"class_logits"` `(batch_size,
        num_anchors, num_classes)` and `"box_deltas"` `(batch_size,
        num_anchors, 4)`, relative to the anchors. `predict` returns a dict of
        `"boxes"` `(batch_size, max_detections, 4)`, `"scores"` and `"labels"`,
        padded with -1, 0 and -1.

    Labels:
        `fit` and `evaluate` take a dict of `"boxes"` `(batch_size, num_boxes,
        4)` and integers `"labels"` `(batch_size, num_boxes)`; a label of -1
        marks a row of padding. The key `"classes"` of keras-cv is a synonym of
        `"labels"`. Both can be ragged tensors, or lists of an array for each
        image. Each batch is checked, unless it reaches the model in a
        `tf.distribute.DistributedDataset` or in a custom training loop.

    Raises:
        ValueError: If an argument, a box or a label has a value that is not
            allowed above.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.detection import RetinaNet
    >>> backbone = ResNet((1, 1, 1, 1), width_multiplier=0.25,
    ...                   include_top=False, input_shape=(64, 64, 3))
    >>> model = RetinaNet(backbone, num_classes=3, filters=32, head_depth=1)
    >>> model.compile(optimizer="sgd")
    >>> images = np.zeros((2, 64, 64, 3), "float32")
    >>> boxes = np.array([[[8, 8, 40, 40]], [[-1, -1, -1, -1]]], "float32")
    >>> labels = {"boxes": boxes, "labels": np.array([[2], [-1]])}
    >>> loss = model.train_on_batch(images, labels)
    >>> model.predict(images, verbose=0)["boxes"].shape
    (2, 100, 4)

    Reference:
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002);
        [Ramachandran et al., 2019](https://arxiv.org/abs/1906.05909),
        section 4.2.
    """

    @_or_from_graph
    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        spatial: str = "conv",
        bounding_box_format: str = "xyxy",
        filters: int = 256,
        features: Sequence[str] = GROUP_OUTPUTS[1:],
        max_detections: int = 100,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        implementation: str | None = None,
        *,
        head_depth: int = 4,
        anchor_sizes: Sequence[float] = SIZES,
        anchor_scales: Sequence[float] = SCALES,
        aspect_ratios: Sequence[float] = ASPECT_RATIOS,
        name: str | None = None,
        trainable: bool = True,
    ):
        check_choice(spatial, "spatial", SPATIAL_LAYERS)
        check_implementation(implementation)
        positive_integer(num_classes, "num_classes")
        positive_integer(head_depth, "head_depth")
        positive_integer(filters, "filters")
        if spatial == "attention" and filters % (2 * NUM_HEADS):
            raise ValueError(
                f"`filters` must be a multiple of {2 * NUM_HEADS} for "
                f"attention with {NUM_HEADS} heads. Received: "
                f"filters={filters}."
            )
        detections = Detections(
            bounding_box_format=bounding_box_format,
            max_detections=max_detections,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            anchor_sizes=anchor_sizes,
            anchor_scales=anchor_scales,
            aspect_ratios=aspect_ratios,
            name="detections",
        )
        levels = feature_pyramid(
            feature_maps(backbone, features), spatial, filters, implementation
        )
        class_head = prediction_head(
            detections.anchors_per_pixel * num_classes,
            spatial,
            "classification_head",
            filters,
            PRIOR_PROBABILITY,
            implementation,
            head_depth,
        )
        box_head = prediction_head(
            detections.anchors_per_pixel * 4,
            spatial,
            "box_head",
            filters,
            implementation=implementation,
            depth=head_depth,
        )
        class_maps = [class_head(x) for x in levels.values()]
        box_maps = [box_head(x) for x in levels.values()]
        raw_outputs = RawOutputs(
            num_classes,
            detections,
            # As in the heads, because half precision would lose small numbers.
            dtype=class_maps[0].dtype,
            name="raw_outputs",
        )
        super().__init__(
            backbone.inputs[0],
            raw_outputs(class_maps, box_maps),
            name=name,
            trainable=trainable,
        )
        self._init_state(raw_outputs, backbone)

    def _init_from_graph(
        self, inputs, outputs, name=None, trainable=None, models=None
    ):
        last = {call_of(x).operation for x in keras.tree.flatten(outputs)}
        if len(last) != 1 or not isinstance(*last, RawOutputs):
            raise ValueError(
                "The graph of a `RetinaNet` must end in its `RawOutputs`. "
                f"Received: outputs={outputs}."
            )
        super().__init__(inputs, outputs, name=name, trainable=trainable)
        coarsest = self.get_layer("pyramid_p5_lateral").input
        self._init_state(*last, keras.Model(inputs, coarsest, name="backbone"))
        for key, model in self._models().items():
            settings = (models or {}).get(key)
            if settings is None:
                continue
            model.dtype_policy = keras.dtype_policies.get(settings["dtype"])
            if key != "self" and not settings["trainable"]:
                _freeze_alone(model)

    def _models(self):
        """Returns the models whose dtype policy and `trainable` Keras loses."""
        inner = {
            f"layers/{layer.name}": layer
            for layer in self.layers
            if isinstance(layer, keras.Model)
        }
        return {"self": self, "backbone": self.backbone, **inner}

    def _init_state(self, raw_outputs, backbone):
        self.backbone = backbone
        self.num_classes = raw_outputs.num_classes
        self.detections = raw_outputs.detections

    bounding_box_format = _option("bounding_box_format")
    max_detections = _option("max_detections")
    score_threshold = _option("score_threshold")
    iou_threshold = _option("iou_threshold")
    anchor_sizes = _option("anchor_sizes")
    anchor_scales = _option("anchor_scales")
    aspect_ratios = _option("aspect_ratios")

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        _, height, width, _ = ops.shape(x)
        boxes, classes = labels.dense(y)
        boxes = bounding_boxes.convert_format(
            ops.cast(boxes, "float32"), self.bounding_box_format, "xyxy"
        )
        anchors = self.detections.anchors(y_pred, height, width)
        deltas, classes = make_targets(anchors, boxes, classes)
        loss = detection_loss(y_pred, deltas, classes, sample_weight)
        # Gradients are summed over replicas, and each adds all of these.
        replicas = sum_over_replicas(ops.ones((), "float32"))
        for added in self.losses:
            loss += ops.cast(added, "float32") / replicas
        return loss

    def fit(self, *args, **kwargs):
        with self._checked("fit", args, kwargs) as arguments:
            return super().fit(**arguments)

    def evaluate(self, *args, **kwargs):
        # `fit` calls this for validation data that it has checked.
        if kwargs.get("_use_cached_eval_dataset"):
            return super().evaluate(*args, **kwargs)
        with self._checked("evaluate", args, kwargs) as arguments:
            return super().evaluate(**arguments)

    def train_on_batch(self, *args, **kwargs):
        with self._checked("train_on_batch", args, kwargs) as arguments:
            return super().train_on_batch(**arguments)

    def test_on_batch(self, *args, **kwargs):
        with self._checked("test_on_batch", args, kwargs) as arguments:
            return super().test_on_batch(**arguments)

    def _checked(self, method, args, kwargs):
        # Keras loads only models that do not override `compile`.
        if getattr(self, "loss", None) is not None:
            raise ValueError(
                "A `RetinaNet` has its own loss: call `compile` without "
                f"`loss`. Received: loss={self.loss!r}."
            )
        return checked_arguments(
            method,
            self,
            args,
            kwargs,
            self.num_classes,
            self.bounding_box_format,
        )

    def predict_step(self, *args):
        outputs = super().predict_step(*args)
        images = keras.utils.unpack_x_y_sample_weight(args[-1])[0]
        _, height, width, _ = ops.shape(images)
        # With JAX, the state of the model comes with the outputs.
        if isinstance(outputs, tuple):
            outputs, state = outputs
            return self.make_detections(outputs, height, width), state
        return self.make_detections(outputs, height, width)

    def make_detections(
        self, outputs: dict[str, Any], height: Any, width: Any
    ) -> dict[str, Any]:
        """Makes boxes in pixels from the raw outputs of a call.

        Args:
            outputs: Dict that a call returns.
            height: Height of the images in pixels, an integer or a tensor.
            width: Width of the images.

        Returns:
            Dict of tensors, with the keys that `predict` returns.
        """
        return self.detections.make(outputs, height, width)

    def detection_model(self) -> keras.Model:
        """Makes a functional model from images to boxes in pixels.

        It shares the weights of this model. Export this model if boxes are
        required, since the outputs of `RetinaNet` itself are raw.

        Returns:
            A `keras.Model`. Its call returns the dict that `predict` of this
            model returns.

        Example:

        >>> from keras_sasa.applications import ResNet
        >>> from keras_sasa.detection import RetinaNet
        >>> backbone = ResNet((1, 1, 1, 1), width_multiplier=0.25,
        ...                   include_top=False, input_shape=(64, 64, 3))
        >>> detector = RetinaNet(backbone, num_classes=3, filters=32)
        >>> model = detector.detection_model()
        >>> model.output["boxes"].shape
        (None, 100, 4)
        """
        layer = Detections.from_config(self.detections.get_config())
        return FusedModel(
            self.input, layer(self.input, self.output), name=self.name
        )

    def save(self, filepath, *args, **kwargs):
        # Before the file exists.
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"{_NO_HDF5} Received: filepath={str(filepath)!r}."
            )
        return super().save(filepath, *args, **kwargs)

    def get_config(self):
        # `keras.saving.save_model` calls this, but not `save`.
        if called_from(("keras.src.legacy.saving",)):
            raise ValueError(_NO_HDF5)
        return {
            **super().get_config(),
            "models": {
                key: {
                    "dtype": keras.dtype_policies.serialize(model.dtype_policy),
                    "trainable": model.trainable,
                }
                for key, model in self._models().items()
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Files of version 0.1.0 contain arguments instead of a graph.
        config = dict(config)
        if "backbone" in config:
            config["backbone"] = keras.saving.deserialize_keras_object(
                config["backbone"], custom_objects=custom_objects
            )
            return cls(**config)
        return super().from_config(config, custom_objects=custom_objects)


def _freeze_alone(model):
    """Sets `trainable` to `False` in a model, but not in its layers."""
    inside = all_layers(model, include_self=False)
    before = [(layer, layer.trainable) for layer in inside]
    model.trainable = False
    for layer, trainable in before:
        layer.trainable = trainable
