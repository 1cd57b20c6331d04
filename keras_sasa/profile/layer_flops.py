"""FLOPs of layers: one row of a table for each kind."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_sasa.detection.feature_pyramid import UpsampleLike
from keras_sasa.detection.raw_outputs import RawOutputs
from keras_sasa.layers import (
    AttentionStem,
    HaloAttention2D,
    LayerScale,
    NeighborhoodAttention2D,
    SelfAttention2D,
)
from keras_sasa.profile.flops import (
    Shape,
    attention_stem_flops,
    convolution_flops,
    halo_attention_flops,
    neighborhood_attention_flops,
    self_attention_flops,
)

# From a layer, the shapes of its inputs and the shape of its output (without
# the batch) to FLOPs: a number, a pair (as written, separable), or `None` if
# they are unknown.
Count = Callable[[Any, list[Shape], Shape], int | tuple[int, int] | None]


def _sizes(layer, shape: Shape) -> Shape:
    """Returns the shape without the channels."""
    first = layer.data_format == "channels_first"
    return tuple(shape[1:] if first else shape[:-1])


def _channels(layer, shape: Shape) -> int:
    return shape[0] if layer.data_format == "channels_first" else shape[-1]


def _bias_and_activation(layer, output: Shape) -> int:
    linear = layer.activation in (None, keras.activations.linear)
    return math.prod(output) * (bool(layer.use_bias) + (not linear))


def _count_conv(layer, inputs, output):
    return convolution_flops(
        math.prod(_sizes(layer, output)),
        layer.kernel_size,
        _channels(layer, inputs[0]),
        layer.filters,
        layer.groups,
    ) + _bias_and_activation(layer, output)


def _count_conv_transpose(layer, inputs, output):
    return convolution_flops(
        math.prod(_sizes(layer, inputs[0])),
        layer.kernel_size,
        _channels(layer, inputs[0]),
        layer.filters,
    ) + _bias_and_activation(layer, output)


def _count_depthwise(layer, inputs, output):
    return convolution_flops(
        1, layer.kernel_size, 1, math.prod(output)
    ) + _bias_and_activation(layer, output)


def _count_separable(layer, inputs, output):
    positions = math.prod(_sizes(layer, output))
    channels = _channels(layer, inputs[0]) * layer.depth_multiplier
    return (
        convolution_flops(positions, layer.kernel_size, 1, channels)
        + convolution_flops(positions, (), channels, layer.filters)
        + _bias_and_activation(layer, output)
    )


def _count_dense(layer, inputs, output):
    return convolution_flops(
        1, (), inputs[0][-1], math.prod(output)
    ) + _bias_and_activation(layer, output)


def _count_self_attention(layer, inputs, output):
    count = functools.partial(
        self_attention_flops,
        _sizes(layer, inputs[0]),
        _sizes(layer, output),
        _channels(layer, inputs[0]),
        layer.filters,
        layer.num_heads,
        layer.kernel_size,
        layer.position_encoding,
        layer.use_content,
        layer.use_bias,
    )
    activation = _count_activation(layer, inputs, output)
    return tuple(
        count(separable=separable) + activation for separable in (False, True)
    )


def _count_neighborhood_attention(layer, inputs, output):
    return neighborhood_attention_flops(
        tuple(
            max(size, rate * kernel)
            for size, rate, kernel in zip(
                _sizes(layer, inputs[0]),
                layer.dilation_rate,
                layer.kernel_size,
                strict=True,
            )
        ),
        _channels(layer, inputs[0]),
        layer.num_heads,
        layer.kernel_size,
        layer.use_bias,
    )


def _count_halo_attention(layer, inputs, output):
    pixels, strides = _sizes(layer, inputs[0]), layer.query_strides
    total = halo_attention_flops(
        pixels,
        tuple(size // strides for size in pixels),
        _channels(layer, inputs[0]),
        layer.filters,
        layer.key_filters,
        layer.num_heads,
        layer.window_size,
    )
    if strides < layer.strides:
        total += layer.strides**2 * math.prod(output)
    return total


def _count_attention_stem(layer, inputs, output):
    count = functools.partial(
        attention_stem_flops,
        _sizes(layer, inputs[0]),
        _channels(layer, inputs[0]),
        layer.filters,
        layer.block_size,
        layer.num_heads,
        layer.num_mixtures,
        layer.values,
    )
    return count(separable=False), count(separable=True)


def _count_activation(layer, inputs, output):
    linear = layer.activation is keras.activations.linear
    return 0 if linear else math.prod(output)


def _count_upsampling(layer, inputs, output):
    return 0 if layer.interpolation == "nearest" else None


def _count_pool(layer, inputs, output):
    return math.prod(layer.pool_size) * math.prod(output)


def _count_inputs(layer, inputs, output):
    return sum(map(math.prod, inputs))


def _count_merge(layer, inputs, output):
    return (len(inputs) - 1) * math.prod(output)


def _count_for_each_element(number):
    return lambda layer, inputs, output: number * math.prod(output)


def _table(*lines):
    """Returns a dict from each name to the function in its line."""
    return {name: count for names, count in lines for name in names.split()}


_KERAS_COUNTS: dict[str, Count] = _table(
    ("Conv1D Conv2D Conv3D", _count_conv),
    ("Conv1DTranspose Conv2DTranspose Conv3DTranspose", _count_conv_transpose),
    ("DepthwiseConv1D DepthwiseConv2D", _count_depthwise),
    ("SeparableConv1D SeparableConv2D", _count_separable),
    ("Dense", _count_dense),
    ("BatchNormalization Normalization Rescaling", _count_for_each_element(2)),
    # Sums of the elements and of their squares (3), then scale and shift (2).
    ("GroupNormalization LayerNormalization", _count_for_each_element(5)),
    ("Activation", _count_activation),
    ("ELU LeakyReLU PReLU ReLU Softmax", _count_for_each_element(1)),
    ("Add Maximum Minimum Multiply Subtract", _count_merge),
    ("AveragePooling1D AveragePooling2D AveragePooling3D", _count_pool),
    ("MaxPooling1D MaxPooling2D MaxPooling3D", _count_pool),
    ("GlobalAveragePooling1D GlobalAveragePooling2D", _count_inputs),
    ("GlobalAveragePooling3D GlobalMaxPooling1D", _count_inputs),
    ("GlobalMaxPooling2D GlobalMaxPooling3D Average", _count_inputs),
    ("UpSampling2D", _count_upsampling),
    (
        "ActivityRegularization AlphaDropout Concatenate Cropping1D Cropping2D "
        "Cropping3D Dropout Flatten GaussianDropout GaussianNoise Identity "
        "Permute RepeatVector Reshape SpatialDropout1D SpatialDropout2D "
        "SpatialDropout3D UpSampling1D UpSampling3D ZeroPadding1D "
        "ZeroPadding2D ZeroPadding3D",
        _count_for_each_element(0),
    ),
)

# Subclasses count as their base class.
COUNTS: dict[type, Count] = {
    SelfAttention2D: _count_self_attention,
    NeighborhoodAttention2D: _count_neighborhood_attention,
    HaloAttention2D: _count_halo_attention,
    AttentionStem: _count_attention_stem,
    LayerScale: _count_for_each_element(1),
    RawOutputs: _count_for_each_element(0),
    UpsampleLike: _count_for_each_element(0),
    **{getattr(layers, name): count for name, count in _KERAS_COUNTS.items()},
}

# Functions of `keras.ops` in a graph, for instance `x + y`. Their classes are
# not public, but have the names of the functions.
OPERATION_COUNTS: dict[str, Count] = _table(
    (
        "Absolute Add Divide Exp Log Maximum Minimum Multiply Negative Relu "
        "Sigmoid Softmax Sqrt Square Subtract Tanh TrueDivide",
        _count_for_each_element(1),
    ),
    (
        "Cast Concatenate ExpandDims Flip GetItem Pad Reshape Split Squeeze "
        "Stack Transpose",
        _count_for_each_element(0),
    ),
)


def find_count(operation: Any) -> Count | None:
    """Returns the function that counts a layer or an operation, if any."""
    for kind in type(operation).__mro__:
        if kind in COUNTS:
            return COUNTS[kind]
    if isinstance(operation, layers.Layer):
        return None
    return OPERATION_COUNTS.get(type(operation).__name__)
