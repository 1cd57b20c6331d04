"""One ResNet builder; the spatial operator of each group is an argument.

Ramachandran et al., 2019 (https://arxiv.org/abs/1906.05909), section 4.1,
replace the 3x3 convolution of each bottleneck block by local self-attention and
leave everything else unchanged. The attention network, its convolutional twin
and every hybrid are therefore built by the same lines.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from keras_sasa._argument_checks import check_choice, positive_number
from keras_sasa.applications.basic_layers import head
from keras_sasa.applications.bottleneck import bottleneck
from keras_sasa.applications.spatial_operators import (
    DOWNSAMPLINGS,
    SPATIAL_OPERATORS,
    AttentionOptions,
)
from keras_sasa.applications.stems import STEMS
from keras_sasa.applications.weights import check_weights, load_weights
from keras_sasa.fusion import FusedModel

# Bottleneck blocks in each group: 38 and 26 take about 3/4 and 1/2 of 50.
NUM_BLOCKS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}

# Layer names of the outputs of the groups, at 1/4, 1/8, 1/16 and 1/32 of the
# image's height and width (with `stem="small"`: 1, 1/2, 1/4 and 1/8).
GROUP_OUTPUTS = (
    "group1_output",
    "group2_output",
    "group3_output",
    "group4_output",
)


def ResNet(
    num_blocks: Sequence[int],
    spatial: str | Sequence[str] = "attention",
    stem: str = "conv",
    kernel_size: int | Sequence[int] = 7,
    num_heads: int = 8,
    position_encoding: str | None = "relative",
    use_content: bool = True,
    width_multiplier: float = 1.0,
    downsampling: str = "pool",
    implementation: str | None = None,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | Callable[..., Any] | None = "softmax",
    name: str = "resnet",
) -> keras.Model:
    """Builds a bottleneck ResNet with attention, convolution or both.

    Args:
        num_blocks: Tuple of one to four integers, the bottleneck blocks of
            each group; `NUM_BLOCKS[50]` for ResNet-50.
        spatial: The spatial operator of the blocks: `"attention"`, `"conv"`
            (3x3), or a tuple that names one for each group.
        stem: `"conv"` (7x7 convolution and max pool), `"attention"` (the
            paper's stem of the full attention network),
            `"plain_attention"`, `"conv_value_attention"` (the other two rows
            in its table of stems), or `"small"` (3x3 convolution, stride 1,
            no pool) for images of about 32x32.
        kernel_size: Odd integer or pair, window of the attention.
        num_heads: Integer, heads of the attention.
        position_encoding: `"relative"`, `"absolute"` or `None`.
        use_content: Boolean, whether attention logits have the term `q . k`.
        width_multiplier: Float that scales the width of all layers. Widths are
            rounded to multiples of `2 * num_heads`, which suit all operators.
        downsampling: `"pool"` (attention at full resolution, then 2x2 average
            pool, as in the paper) or `"stride"` (attention of every second
            query; a quarter of the work). Convolutions always stride.
        implementation: Implementation of the attention, see
            `SelfAttention2D`.
        include_top: Boolean, whether to end with the classifier.
        weights: `None` for random weights, or the path of a `.weights.h5` or
            `.keras` file. No pretrained weights have been published.
        input_tensor: Optional Keras tensor to build on.
        input_shape: Optional shape without the batch, channels last or first
            according to `keras.config.image_data_format()`. Default: 224x224
            RGB with the top, RGB of any size without.
        pooling: Without the top, `"avg"` or `"max"` for global pooling, or
            `None` for the output of the last group.
        classes: Integer, number of classes.
        classifier_activation: Activation of the classifier, `None` for
            logits.
        name: Name of the model.

    Returns:
        A functional `keras.Model`. `GROUP_OUTPUTS` names the layers that
        output the maps of the groups. Before training, each block equals its
        shortcut, since the scale of its last normalization starts at zero.

    Raises:
        ValueError: If an argument has a value that is not allowed above, or
            the file of `weights` does not hold weights of this network.

    Example:

    >>> from keras_sasa.applications import ResNet
    >>> model = ResNet((1, 1), stem="small", input_shape=(32, 32, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> model.output_shape
    (None, 10)
    """
    num_blocks = _check_num_blocks(num_blocks)
    operators = _check_spatial(spatial, len(num_blocks))
    check_choice(stem, "stem", STEMS)
    check_choice(downsampling, "downsampling", DOWNSAMPLINGS)
    check_choice(pooling, "pooling", (None, "avg", "max"))
    check_weights(weights)
    positive_number(width_multiplier, "width_multiplier")
    options = AttentionOptions(
        kernel_size,
        num_heads,
        position_encoding,
        use_content,
        downsampling,
        implementation,
    )

    def width(channels):
        unit = 2 * num_heads
        return max(round(channels * width_multiplier / unit), 1) * unit

    if input_tensor is None:
        shape = input_shape or _default_shape(include_top)
        images = layers.Input(shape, name="images")
    else:
        images = input_tensor
    x = STEMS[stem](images, width(64), implementation)
    for group, (blocks, operator) in enumerate(
        zip(num_blocks, operators, strict=True), start=1
    ):
        for block in range(1, blocks + 1):
            x = bottleneck(
                x,
                filters=width(64 * 2 ** (group - 1)),
                strides=2 if group > 1 and block == 1 else 1,
                project=block == 1,
                spatial_operator=functools.partial(
                    SPATIAL_OPERATORS[operator], options
                ),
                name=f"group{group}_block{block}",
                output_name=(
                    GROUP_OUTPUTS[group - 1] if block == blocks else None
                ),
            )
    x = head(x, include_top, pooling, classes, classifier_activation)
    inputs = images
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
    model = FusedModel(inputs, x, name=name)
    if weights is not None:
        load_weights(model, weights)
    return model


def _default_shape(include_top):
    side = 224 if include_top else None
    if keras.config.image_data_format() == "channels_last":
        return (side, side, 3)
    return (3, side, side)


def _check_num_blocks(num_blocks):
    if (
        not isinstance(num_blocks, (tuple, list))
        or not 1 <= len(num_blocks) <= len(GROUP_OUTPUTS)
        or not all(isinstance(n, int) and n >= 1 for n in num_blocks)
    ):
        raise ValueError(
            "`num_blocks` must be a tuple of one to four positive integers, "
            "the blocks of each group, for instance "
            f"{NUM_BLOCKS[50]}. Received: num_blocks={num_blocks!r}."
        )
    return tuple(num_blocks)


def _check_spatial(spatial, groups):
    operators = (spatial,) * groups if isinstance(spatial, str) else spatial
    if (
        not isinstance(operators, (tuple, list))
        or len(operators) != groups
        or any(operator not in SPATIAL_OPERATORS for operator in operators)
    ):
        raise ValueError(
            f"`spatial` must be one of {tuple(SPATIAL_OPERATORS)}, or a tuple "
            f"of one of them for each of the {groups} groups. "
            f"Received: spatial={spatial!r}."
        )
    return tuple(operators)
