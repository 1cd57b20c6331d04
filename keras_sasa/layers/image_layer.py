"""The base class of layers on images: axes and weights."""

from collections.abc import Callable

import keras
from keras import constraints, initializers, ops, regularizers

from keras_sasa.kernels.saved_model_warning import warn_of_kernel_calls

_PARTS = {
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}

InitializerLike = str | dict | Callable
RegularizerLike = str | dict | Callable | None
ConstraintLike = str | dict | Callable | None

DATA_FORMATS = ("channels_last", "channels_first")


class ImageLayer(keras.layers.Layer):
    """Base of layers on `(batch, height, width, channels)` or channels first.

    Args:
        data_format: `"channels_last"`, `"channels_first"` or `None`.
        parts: Initializers, regularizers and constraints by their names,
            `{kind}_{part}`; kept as attributes and serialized.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, data_format, parts, **kwargs):
        super().__init__(**kwargs)
        self.data_format = _check_data_format(data_format)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self._parts = tuple(parts)
        for name, value in parts.items():
            setattr(self, name, _module(name).get(value))

    @property
    def _channel_axis(self):
        return -1 if self.data_format == "channels_last" else 1

    def _spatial(self, shape):
        """Returns height and width of a shape."""
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(shape[first : first + 2])

    def _channels(self, input_shape):
        """Returns the channels of an input, which must be known."""
        if len(input_shape) != 4:
            raise ValueError(
                f"The input of `{type(self).__name__}` must have four axes, "
                "(batch, height, width, channels) or (batch, channels, height, "
                f"width). Received: input_shape={tuple(input_shape)}."
            )
        channels = input_shape[self._channel_axis]
        if channels is None:
            raise ValueError(
                f"The channels (axis {self._channel_axis}, "
                f"data_format={self.data_format!r}) of the input must be "
                f"known. Received: input_shape={tuple(input_shape)}."
            )
        return channels

    def _to_channels_last(self, inputs):
        """Returns images in the type and with the axes of the computation."""
        inputs = ops.cast(inputs, self.compute_dtype)
        if self.data_format == "channels_first":
            inputs = ops.transpose(inputs, (0, 2, 3, 1))
        return inputs

    def _from_channels_last(self, outputs):
        """Returns images with the axes of the data format."""
        if self.data_format == "channels_first":
            outputs = ops.transpose(outputs, (0, 3, 1, 2))
        return outputs

    def _fix_channels(self, channels):
        self.input_spec = keras.layers.InputSpec(
            ndim=4, axes={self._channel_axis: channels}
        )

    def _output_shape(self, batch, sizes, filters):
        if self.data_format == "channels_last":
            return (batch, *sizes, filters)
        return (batch, filters, *sizes)

    def _add(self, kind, name, shape, initializer=None):
        """Adds a weight of a kind: `"kernel"`, `"embedding"` or `"bias"`."""
        initializer = initializer or getattr(self, f"{kind}_initializer")
        if isinstance(initializer, initializers.Initializer):
            # An initializer draws the same numbers at every call; its copy
            # draws others, unless it has a seed.
            initializer = initializer.__class__.from_config(
                initializer.get_config()
            )
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            regularizer=getattr(self, f"{kind}_regularizer"),
            constraint=getattr(self, f"{kind}_constraint"),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "data_format": self.data_format,
            **{
                name: _module(name).serialize(getattr(self, name))
                for name in self._parts
            },
        }

    def _export_to_saved_model_graph(self, *args, **kwargs):
        # `tf.saved_model.save` calls it for every layer.
        warn_of_kernel_calls()
        return super()._export_to_saved_model_graph(*args, **kwargs)


def _module(name):
    return _PARTS[name.rsplit("_", 1)[-1]]


def _check_data_format(data_format):
    if data_format is None:
        return keras.config.image_data_format()
    if data_format not in DATA_FORMATS:
        raise ValueError(
            f"`data_format` must be one of {DATA_FORMATS} or `None`. "
            f"Received: data_format={data_format!r}."
        )
    return data_format
