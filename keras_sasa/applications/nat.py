"""The builder of neighborhood attention transformers, NAT and DiNAT.

Hassani et al., 2023 (https://arxiv.org/abs/2204.07143), figure 5 and table 1:
a hierarchy of four levels of transformer blocks, with neighborhood attention in
the place of global attention. Hassani and Shi, 2022
(https://arxiv.org/abs/2209.15001), section 3: DiNAT dilates the windows of
every second block.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from keras_sasa._argument_checks import check_choice, dropout_rate
from keras_sasa.applications import nat_weights
from keras_sasa.applications.basic_layers import drop_path, head

# The networks take the images of ImageNet that the ResNets take.
from keras_sasa.applications.imagenet import (
    preprocess_input as preprocess_input,
)
from keras_sasa.applications.pretrained import (
    check_channels_last,
    check_pretrained_weights,
    load_pretrained,
)
from keras_sasa.applications.resnet import GROUP_OUTPUTS
from keras_sasa.layers import (
    Dense,
    LayerNormalization,
    LayerScale,
    NeighborhoodAttention2D,
)
from keras_sasa.ops.local_attention.window import pair

# Channels of a head, in all published networks.
HEAD_WIDTH = 32
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class NATOptions:
    """What the published networks differ in.

    Attributes:
        network: Name of the network.
        num_blocks: Blocks of each level.
        channels: Channels of the first level; they double from level to level.
        mlp_ratio: Width of the hidden layer of a block, in its channels.
        drop_path_rate: Published rate of the last block.
        layer_scale: Initial factor of the branches of a block, or `None` for
            none.
        dilations: Dilation of every second block of each level.
    """

    network: str
    num_blocks: tuple[int, ...]
    channels: int
    mlp_ratio: int
    drop_path_rate: float
    layer_scale: float | None = None
    dilations: tuple[int, ...] = (1, 1, 1, 1)


def NAT(
    options: NATOptions,
    *,
    kernel_size: int | tuple[int, int] = 7,
    dilations: Sequence[int] | None = None,
    drop_path_rate: float = 0.0,
    implementation: str | None = None,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | Callable[..., Any] | None = "softmax",
    name: str = "nat",
) -> keras.Model:
    """Builds a neighborhood attention transformer.

    A level is a sequence of blocks `x + NA(LN(x))`, `x + MLP(LN(x))`, and a
    convolution of 3x3 with stride 2 halves the map and doubles the channels
    before the next level. Two such convolutions make the first map, of a
    quarter of the image's height and width.

    Args:
        options: What the published networks differ in.
        kernel_size: Odd integer or pair, window of the attention.
        dilations: Four integers, the dilations of every second block of the
            levels. `None` takes those of the published network; they belong to
            its weights, not to the size of the image.
        drop_path_rate: Float in [0, 1), probability that the last block skips a
            branch during training (stochastic depth). It grows linearly from 0
            in the first block. The published networks were trained with the
            rate in `options.drop_path_rate`.
        implementation: Implementation of the attention, see
            `SelfAttention2D`.
        include_top: Boolean, whether to end with the classifier.
        weights: `"imagenet"` to download the published weights once, `None`
            for random weights, or the path of a file: `.weights.h5` or
            `.keras`, or a checkpoint of the authors or a file of the Hugging
            Face hub (`.pth`, `.bin`, `.safetensors`). With other `classes`
            than the published, the classifier keeps its random weights, with a
            warning.
        input_tensor: Optional Keras tensor to build on.
        input_shape: Optional shape `(height, width, channels)`. Default:
            224x224 RGB with the top, RGB of any size without.
        pooling: Without the top, `"avg"` or `"max"` for global pooling, or
            `None` for the normalized output of the last level.
        classes: Integer, number of classes.
        classifier_activation: Activation of the classifier, `None` for
            logits.
        name: Name of the model.

    Returns:
        A functional `keras.Model` of images that `preprocess_input` has
        scaled. `GROUP_OUTPUTS` names the layers that output the maps of the
        levels, at 1/4, 1/8, 1/16 and 1/32 of the image's height and width.

    Raises:
        ValueError: If an argument has a value that is not allowed above, if
            `keras.config.image_data_format()` is `"channels_first"`, or if the
            file of `weights` does not hold weights of this network.
        ConnectionError: If the published weights cannot be downloaded.

    Example:

    >>> from keras_sasa.applications import NATMini
    >>> model = NATMini(weights=None, input_shape=(64, 64, 3), classes=10)
    >>> model.output_shape
    (None, 10)
    """
    dilations = options.dilations if dilations is None else tuple(dilations)
    if len(dilations) != len(options.num_blocks):
        raise ValueError(
            f"`dilations` must be {len(options.num_blocks)} integers, one for "
            f"each level. Received: dilations={dilations!r}."
        )
    dropout_rate(drop_path_rate, "drop_path_rate")
    check_choice(pooling, "pooling", (None, "avg", "max"))
    check_pretrained_weights(weights)
    published = None
    if weights == "imagenet":
        published = _published(options.network, kernel_size, dilations)
    check_channels_last(name)
    images = input_tensor
    if images is None:
        side = 224 if include_top else None
        images = layers.Input(input_shape or (side, side, 3), name="images")

    total = sum(options.num_blocks)
    x = _halve(images, options.channels // 2, "stem_conv1", use_bias=True)
    x = _halve(x, options.channels, "stem_conv2", use_bias=True)
    x = _normalize(x, "stem_normalization")
    number = 0
    for level, (blocks, dilation) in enumerate(
        zip(options.num_blocks, dilations, strict=True), start=1
    ):
        if level > 1:
            channels = 2 * x.shape[-1]
            x = _halve(x, channels, f"group{level}_downsample_conv")
            x = _normalize(x, f"group{level}_downsample_normalization")
        for block in range(1, blocks + 1):
            x = _block(
                x,
                options,
                kernel_size,
                dilation if block % 2 == 0 else 1,
                drop_path_rate * number / max(total - 1, 1),
                implementation,
                name=f"group{level}_block{block}",
                output_name=(
                    GROUP_OUTPUTS[level - 1] if block == blocks else None
                ),
            )
            number += 1
    x = _normalize(x, "normalization")
    x = head(x, include_top, pooling, classes, classifier_activation)
    inputs = images
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
    model = keras.Model(inputs, x, name=name)
    return load_pretrained(model, weights, published, nat_weights)


def _published(network, kernel_size, dilations):
    """Returns the published file of a network, or raises `ValueError`."""
    files = {
        key[1:]: file
        for key, file in nat_weights.PUBLISHED.items()
        if key[0] == network
    }
    # A square window has two forms.
    sides = set(pair(kernel_size, "kernel_size"))
    size = sides.pop() if len(sides) == 1 else kernel_size
    if (size, dilations) not in files:
        raise ValueError(
            f'With `weights="imagenet"` `(kernel_size, dilations)` of {network}'
            f" must be one of {list(files)}. Received: {kernel_size!r} and "
            f"{dilations!r}."
        )
    return files[size, dilations]


def _block(
    x,
    options,
    kernel_size,
    dilation,
    drop_path_rate,
    implementation,
    name,
    output_name,
):
    """A block of a transformer: attention, then a perceptron."""
    channels = x.shape[-1]
    branch = _normalize(x, f"{name}_attention_normalization")
    branch = NeighborhoodAttention2D(
        channels // HEAD_WIDTH,
        kernel_size,
        dilation,
        implementation=implementation,
        name=f"{name}_attention",
    )(branch)
    x = _add(x, branch, options, drop_path_rate, f"{name}_attention")
    branch = _normalize(x, f"{name}_mlp_normalization")
    branch = Dense(
        options.mlp_ratio * channels, "gelu", name=f"{name}_mlp_expand"
    )(branch)
    branch = Dense(channels, name=f"{name}_mlp_reduce")(branch)
    return _add(x, branch, options, drop_path_rate, f"{name}_mlp", output_name)


def _add(x, branch, options, rate, name, output_name=None):
    if options.layer_scale is not None:
        branch = LayerScale(
            keras.initializers.Constant(options.layer_scale),
            name=f"{name}_scale",
        )(branch)
    if rate:
        branch = drop_path(branch, rate, f"{name}_drop_path")
    return layers.Add(name=output_name or f"{name}_add")([x, branch])


def _halve(x, filters, name, use_bias=False):
    """A convolution of 3x3 with stride 2, centred on the even pixels."""
    # With "same" padding, the window would lie to the bottom right of them.
    x = layers.ZeroPadding2D(1, name=f"{name}_padding")(x)
    return layers.Conv2D(filters, 3, 2, use_bias=use_bias, name=name)(x)


def _normalize(x, name):
    return LayerNormalization(epsilon=_EPSILON, name=name)(x)
