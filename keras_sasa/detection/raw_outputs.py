"""The last layer of a detector, which joins the predictions of all levels."""

import keras
from keras import layers, ops

from keras_sasa._argument_checks import positive_integer


@keras.saving.register_keras_serializable(package="keras_sasa")
class RawOutputs(layers.Layer):
    """Joins the predictions of the heads on all levels.

    It also holds the layer that makes boxes from them. Hence the graph of a
    `RetinaNet` alone is a complete description of it, for files and for
    `keras.models.clone_model`.

    Args:
        num_classes: Integer, number of classes.
        detections: A `Detections`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        class_maps: List of `(batch_size, height, width,
            anchors_per_pixel * num_classes)`, finest level first.
        box_maps: List of `(batch_size, height, width, anchors_per_pixel * 4)`.

    Returns:
        Dict of `"class_logits"` `(batch_size, num_anchors, num_classes)` and
        `"box_deltas"` `(batch_size, num_anchors, 4)`.
    """

    def __init__(self, num_classes, detections, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = positive_integer(num_classes, "num_classes")
        self.detections = detections

    def build(self, class_maps_shape, box_maps_shape):
        # Neither this layer nor `detections` has weights.
        self.detections.built = True

    def call(self, class_maps, box_maps):
        return {
            "class_logits": _join(class_maps, self.num_classes),
            "box_deltas": _join(box_maps, 4),
        }

    def compute_output_spec(self, class_maps, box_maps):
        batch = class_maps[0].shape[0]
        pixels = [x.shape[1:3] for x in class_maps]
        number = None
        if None not in keras.tree.flatten(pixels):
            number = sum(height * width for height, width in pixels)
            number *= self.detections.anchors_per_pixel
        return {
            name: keras.KerasTensor(
                (batch, number, width), dtype=self.compute_dtype
            )
            for name, width in (
                ("class_logits", self.num_classes),
                ("box_deltas", 4),
            )
        }

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "detections": keras.saving.serialize_keras_object(self.detections),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["detections"] = keras.saving.deserialize_keras_object(
            config["detections"]
        )
        return cls(**config)


def _join(maps, width):
    parts = []
    for x in maps:
        pixels = -1
        if None not in x.shape[1:]:
            _, rows, columns, channels = x.shape
            pixels = rows * columns * channels // width
        parts.append(ops.reshape(x, (ops.shape(x)[0], pixels, width)))
    return ops.concatenate(parts, axis=1)
