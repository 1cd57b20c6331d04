"""The builder of HaloNets.

Vaswani et al., 2021 (https://arxiv.org/abs/2103.12731): ResNets whose last
levels attend to blocks of pixels with a halo. The published weights are those
of timm (https://github.com/huggingface/pytorch-image-models), whose networks
are built here: a stem of three convolutions, bottleneck blocks, of which some
attend in the place of the convolution, and channel attention in some networks.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import initializers, layers, ops

from keras_sasa._argument_checks import check_choice, dropout_rate
from keras_sasa.applications import halonet_weights
from keras_sasa.applications.basic_layers import (
    convolution,
    drop_path,
    head,
    normalization,
)

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
from keras_sasa.layers import HaloAttention2D


@dataclasses.dataclass(frozen=True)
class HaloNetOptions:
    """What the published networks differ in.

    Attributes:
        network: Name of the network.
        num_blocks: Blocks of each level.
        attention: For each level the numbers of the blocks that attend,
            counted from 1.
        halo_size: Pixels around a block of the attention.
        activation: Name of the activation.
        filters: Channels of each level.
        num_heads: Heads of the attention in each level.
        key_width: Channels of a key of one head; `None` for those of a value.
        group_width: Channels of a group of the convolutions; `None` for one
            group.
        channel_attention: Channel attention behind the convolutions, a row of
            `CHANNEL_ATTENTIONS`, or `None`.
        stem_pool: Whether the stem ends with a max pool, and not with a strided
            convolution.
        final_filters: Channels of a last convolution, or `None` for none.
        channels: Channels of the stem. The blocks are as wide inside in the
            first level, and twice as wide in each further one.
        block_size: Side of a block of the attention.
    """

    network: str
    num_blocks: tuple[int, ...]
    attention: tuple[tuple[int, ...], ...]
    halo_size: int
    activation: str
    filters: tuple[int, ...] = (256, 512, 1024, 2048)
    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    key_width: int | None = None
    group_width: int | None = None
    channel_attention: str | None = None
    stem_pool: bool = True
    final_filters: int | None = None
    channels: int = 64
    block_size: int = 8


def HaloNet(
    options: HaloNetOptions,
    *,
    drop_path_rate: float = 0.0,
    implementation: str | None = None,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | Callable[..., Any] | None = "softmax",
    name: str = "halonet",
) -> keras.Model:
    """Builds a HaloNet.

    Args:
        options: What the published networks differ in.
        drop_path_rate: Float in [0, 1), probability that the last block skips
            its branch during training (stochastic depth). It grows linearly
            from 0 in the first block.
        implementation: Implementation of the attention, see
            `HaloAttention2D`.
        include_top: Boolean, whether to end with the classifier.
        weights: `"imagenet"` to download the published weights once, `None`
            for random weights, or the path of a file: `.weights.h5` or
            `.keras`, or a file of timm (`.safetensors`, `.bin`, `.pth`). With
            other `classes` than the published, the classifier keeps its random
            weights, with a warning.
        input_tensor: Optional Keras tensor to build on.
        input_shape: Optional shape `(height, width, channels)`. Height and
            width must be multiples of 256, 32 times the side of a block of the
            attention. Default: 256x256 RGB with the top, RGB of any such size
            without.
        pooling: Without the top, `"avg"` or `"max"` for global pooling, or
            `None` for the output of the last level.
        classes: Integer, number of classes.
        classifier_activation: Activation of the classifier, `None` for
            logits.
        name: Name of the model.

    Returns:
        A functional `keras.Model` of images that `preprocess_input` has
        scaled. `GROUP_OUTPUTS` names the layers that output the maps of the
        levels, at 1/4, 1/8, 1/16 and 1/32 of the image's height and width.
        Before training, each block equals its shortcut, since the scale of its
        last normalization starts at zero.

    Raises:
        ValueError: If an argument has a value that is not allowed above, if
            `keras.config.image_data_format()` is `"channels_first"`, or if the
            file of `weights` does not hold weights of this network.
        ConnectionError: If the published weights cannot be downloaded.

    Example:

    >>> from keras_sasa.applications.halonet import HaloNet, HaloNetOptions
    >>> options = HaloNetOptions(
    ...     "Small", num_blocks=(1, 1), attention=((), (1,)), halo_size=1,
    ...     activation="relu", filters=(16, 32), channels=16, block_size=2)
    >>> model = HaloNet(
    ...     options, weights=None, input_shape=(32, 32, 3), classes=10)
    >>> model.output_shape
    (None, 10)
    """
    dropout_rate(drop_path_rate, "drop_path_rate")
    check_choice(pooling, "pooling", (None, "avg", "max"))
    check_pretrained_weights(weights)
    published = None
    if weights == "imagenet":
        check_choice(
            options.network, "options.network", halonet_weights.PUBLISHED
        )
        published = halonet_weights.PUBLISHED[options.network]
    check_channels_last(name)
    # The last level must be divisible into blocks.
    side = options.block_size * 2 ** (len(options.num_blocks) + 1)
    images = input_tensor
    if images is None:
        default = side if include_top else None
        images = layers.Input(
            input_shape or (default, default, 3), name="images"
        )
    _check_size(images.shape[1:3], side, name)

    x = _stem(images, options)
    rate = drop_path_rate / max(sum(options.num_blocks) - 1, 1)
    number = 0
    for level, blocks in enumerate(options.num_blocks, start=1):
        for block in range(1, blocks + 1):
            x = _block(
                x,
                options,
                level,
                strides=2 if level > 1 and block == 1 else 1,
                attends=block in options.attention[level - 1],
                drop_path_rate=rate * number,
                implementation=implementation,
                name=f"group{level}_block{block}",
                output_name=(
                    GROUP_OUTPUTS[level - 1] if block == blocks else None
                ),
            )
            number += 1
    if options.final_filters is not None:
        x = convolution(x, options.final_filters, 1, 1, "final_conv")
        x = normalization(x, "final_normalization")
        x = layers.Activation(options.activation, name="final_activation")(x)
    x = head(x, include_top, pooling, classes, classifier_activation)
    inputs = images
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
    model = keras.Model(inputs, x, name=name)
    return load_pretrained(model, weights, published, halonet_weights)


def _check_size(sizes, side, name):
    if any(size is not None and size % side for size in sizes):
        raise ValueError(
            f"The height and the width of the images of {name!r} must be "
            f"multiples of {side}. Received: a height and a width of "
            f"{tuple(sizes)}."
        )


def _stem(x, options):
    """Three convolutions and a pool: a map of 1/4 of the image's sides."""
    channels = options.channels
    for number, (filters, strides) in enumerate(
        (
            (3 * channels // 8, 2),
            (channels // 2, 1),
            (channels, 1 if options.stem_pool else 2),
        ),
        start=1,
    ):
        x = _convolution(x, filters, strides, f"stem_conv{number}")
        x = normalization(x, f"stem_normalization{number}")
        x = layers.Activation(
            options.activation, name=f"stem_activation{number}"
        )(x)
    if not options.stem_pool:
        return x
    # Windows are centred on the even pixels. The pixel that is mirrored at the
    # border is in the window already, so it does not change the maximum.
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    return layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def _block(
    x,
    options,
    level,
    strides,
    attends,
    drop_path_rate,
    implementation,
    name,
    output_name,
):
    """A bottleneck block with a convolution or attention in the middle."""
    filters = options.filters[level - 1]
    width = options.channels * 2 ** (level - 1)
    activate = functools.partial(layers.Activation, options.activation)
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = convolution(x, filters, 1, strides, f"{name}_shortcut_conv")
        shortcut = normalization(shortcut, f"{name}_shortcut_normalization")
    x = convolution(x, width, 1, 1, f"{name}_reduce_conv")
    x = normalization(x, f"{name}_reduce_normalization")
    x = activate(name=f"{name}_reduce_activation")(x)
    if attends:
        x = _attention(x, options, level, strides, implementation, name)
        x = normalization(x, f"{name}_attention_normalization")
        x = activate(name=f"{name}_attention_activation")(x)
    else:
        groups = width // (options.group_width or width)
        x = _convolution(x, width, strides, f"{name}_spatial_conv", groups)
        x = normalization(x, f"{name}_spatial_normalization")
        x = activate(name=f"{name}_spatial_activation")(x)
        if options.channel_attention is not None:
            gate = CHANNEL_ATTENTIONS[options.channel_attention](x, name)
            x = layers.Multiply(name=f"{name}_gate")([x, gate])
    x = convolution(x, filters, 1, 1, f"{name}_expand_conv")
    x = normalization(x, f"{name}_expand_normalization", gamma="zeros")
    # With a rate of 0 as well: files of weights depend on the order of layers,
    # and this order depends on the lengths of the branches.
    x = drop_path(x, drop_path_rate, f"{name}_drop_path")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return activate(name=output_name or f"{name}_output")(x)


def _attention(x, options, level, strides, implementation, name):
    width, heads = x.shape[-1], options.num_heads[level - 1]
    key_width = options.key_width or width // heads
    return HaloAttention2D(
        width,
        heads,
        options.block_size,
        options.halo_size,
        strides,
        heads * key_width,
        implementation=implementation,
        kernel_initializer="lecun_normal",
        embedding_initializer=initializers.TruncatedNormal(
            stddev=key_width**-0.5
        ),
        name=f"{name}_attention",
    )(x)


def _convolution(x, filters, strides, name, groups=1):
    """A convolution of 3x3; with strides, centred on the even pixels."""
    if strides == 1:
        return convolution(x, filters, 3, 1, name, groups=groups)
    # With "same" padding, the window would lie to the bottom right of them.
    x = layers.ZeroPadding2D(1, name=f"{name}_padding")(x)
    return convolution(x, filters, 3, strides, name, "valid", groups)


def _squeeze_excitation(x, name):
    """Gates of the channels, by two dense layers of their means.

    Hu et al., 2018 (https://arxiv.org/abs/1709.01507), with a sixteenth of the
    channels in between, in multiples of eight.
    """
    channels = x.shape[-1]
    x = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_gate_pool")(
        x
    )
    x = layers.Conv2D(
        max((channels // 16 + 4) // 8 * 8, 8),
        1,
        activation="relu",
        name=f"{name}_gate_reduce",
    )(x)
    return layers.Conv2D(
        channels, 1, activation="sigmoid", name=f"{name}_gate_expand"
    )(x)


def _efficient_channel_attention(x, name):
    """Gates of the channels, by a convolution along their means.

    Wang et al., 2020 (https://arxiv.org/abs/1910.03151); the kernel is the odd
    number at or above half of log2(channels) + 1, and 3 or more.
    """
    channels = x.shape[-1]
    kernel_size = max(int((math.log2(channels) + 1) / 2) // 2 * 2 + 1, 3)
    x = layers.GlobalAveragePooling2D(name=f"{name}_gate_pool")(x)
    x = layers.Reshape((channels, 1), name=f"{name}_gate_line")(x)
    x = layers.Conv1D(
        1,
        kernel_size,
        padding="same",
        activation="sigmoid",
        use_bias=False,
        name=f"{name}_gate_conv",
    )(x)
    return layers.Reshape((1, 1, channels), name=f"{name}_gate_map")(x)


CHANNEL_ATTENTIONS = {
    "squeeze_excitation": _squeeze_excitation,
    "efficient": _efficient_channel_attention,
}
