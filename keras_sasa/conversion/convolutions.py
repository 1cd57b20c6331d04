"""Convolutions of a model, and the attention that takes their place."""

import keras

from keras_sasa._keras_graphs import call_of, has_graph
from keras_sasa.layers import SelfAttention2D

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)

# Attributes of a convolution that are arguments of attention. Not `trainable`:
# attention starts with new weights, which must be trained.
SHARED_ARGUMENTS = (
    "name",
    "strides",
    "dilation_rate",
    "data_format",
    "activation",
    "use_bias",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


def spatial_convolutions(model):
    """Yields all convolutions larger than 1x1, also of models inside."""
    for layer in model.layers:
        if has_graph(layer):
            yield from spatial_convolutions(layer)
        # Derived classes may do more in their `call`.
        elif type(layer) in CONVOLUTIONS and max(layer.kernel_size) > 1:
            yield layer


class AttentionReplacements:
    """Calls attention in place of convolutions.

    A convolution that is called more than once has one replacement.

    Args:
        kernel_size: Odd integer or pair, see `SelfAttention2D`.
        num_heads: Integer, see `SelfAttention2D`.
    """

    def __init__(self, kernel_size, num_heads):
        self._options = {"kernel_size": kernel_size, "num_heads": num_heads}
        self._replacements = {}

    def call(self, convolution, inputs):
        """Returns the output of the attention that replaces a convolution."""
        image, padding = inputs, convolution.padding
        if padding == "valid":
            image = _without_padding(convolution, inputs)
            padding = "valid" if image is inputs else "same"
        if id(convolution) not in self._replacements:
            self._replacements[id(convolution)] = self._make(
                convolution, padding, image
            )
        attention = self._replacements[id(convolution)]
        if attention.padding != padding:
            raise _cannot_replace(
                convolution,
                "it is called on images that were padded and on others.",
            )
        return attention(image)

    def _make(self, convolution, padding, image):
        # The objects themselves, because some cannot be serialized.
        arguments = {
            name: getattr(
                convolution,
                name.replace("kernel_", "depthwise_"),
                getattr(convolution, name, None),
            )
            for name in SHARED_ARGUMENTS
        }
        if isinstance(convolution, keras.layers.DepthwiseConv2D):
            axis = -1 if convolution.data_format == "channels_last" else 1
            filters = image.shape[axis] * convolution.depth_multiplier
        else:
            filters = convolution.filters
        try:
            attention = SelfAttention2D(
                filters,
                padding=padding,
                dtype=convolution.dtype_policy,
                **arguments,
                **self._options,
            )
        except ValueError as error:
            raise _cannot_replace(convolution, error) from error
        if (
            padding == "valid"
            and attention.kernel_size != convolution.kernel_size
        ):
            raise _cannot_replace(
                convolution,
                'with its padding "valid" the output keeps its size only with '
                f"kernel_size={convolution.kernel_size}. "
                f"Received: kernel_size={self._options['kernel_size']}.",
            )
        return attention


def _without_padding(convolution, inputs):
    """Returns the image without a preceding padding that keeps its size.

    If there is no such padding, it returns `inputs`.
    """
    call = call_of(inputs)
    padding = call.operation
    if (
        not isinstance(padding, keras.layers.ZeroPadding2D)
        or padding.data_format != convolution.data_format
    ):
        return inputs
    (image,) = call.input_tensors
    first = 1 if convolution.data_format == "channels_last" else 2
    for size, (before, after), kernel, rate, stride in zip(
        image.shape[first : first + 2],
        padding.padding,
        convolution.kernel_size,
        convolution.dilation_rate,
        convolution.strides,
        strict=True,
    ):
        padded, lost = before + after, rate * (kernel - 1)
        same = padded == lost
        if size is not None:
            same = (size + padded - lost - 1) // stride == (size - 1) // stride
        if not same or before != padded // 2:
            return inputs
    return image


def _cannot_replace(convolution, reason):
    return ValueError(
        f"Convolution {convolution.name!r} cannot be replaced: {reason}"
    )
