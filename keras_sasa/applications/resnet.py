"""One ResNet builder; the spatial operator of each group is an argument.

Ramachandran et al., 2019 (https://arxiv.org/abs/1906.05909), section 4.1: the
3x3 convolution of each bottleneck block becomes local self-attention, all else
stays. So the attention network, its convolutional twin and every hybrid come
from the same lines.
"""

import inspect
import os

import keras
from keras import layers

from keras_sasa._argument_checks import check_choice, positive_number
from keras_sasa.layers import AttentionStem, SelfAttention2D

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

OPERATORS = ("conv", "attention")
STEMS = {
    "conv": None,
    "small": None,
    "attention": "spatially_aware",
    "plain_attention": "plain",
    "conv_value_attention": "conv",
}
DOWNSAMPLINGS = ("pool", "stride")

_EPSILON = 1e-5


def ResNet(
    num_blocks,
    spatial="attention",
    stem="conv",
    kernel_size=7,
    num_heads=8,
    position_encoding="relative",
    use_content=True,
    width_multiplier=1.0,
    downsampling="pool",
    implementation=None,
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="resnet",
):
    """Builds a bottleneck ResNet with attention, convolution or both.

    Args:
        num_blocks: Tuple of one to four integers, the bottleneck blocks of
            each group; `NUM_BLOCKS[50]` for ResNet-50.
        spatial: The spatial operator of the blocks: `"attention"`, `"conv"`
            (3x3), or a tuple that names one for each group.
        stem: `"conv"` (7x7 convolution and max pool), `"attention"` (the
            paper's stem of the full attention network),
            `"plain_attention"`, `"conv_value_attention"` (the other two rows
            of its table of stems), or `"small"` (3x3 convolution, stride 1,
            no pool) for images of about 32x32.
        kernel_size: Odd integer or pair, window of the attention.
        num_heads: Integer, heads of the attention.
        position_encoding: `"relative"`, `"absolute"` or `None`.
        use_content: Boolean, whether attention logits have the term `q . k`.
        width_multiplier: Float that scales the width of all layers. Widths are
            rounded to multiples of `2 * num_heads`, which all operators can
            have.
        downsampling: `"pool"` (attention at full resolution, then 2x2 average
            pool, as in the paper) or `"stride"` (attention of every second
            query; a quarter of the work). Convolutions always stride.
        implementation: Implementation of the attention, see
            `SelfAttention2D`.
        include_top: Boolean, whether to end with the classifier.
        weights: `None` for random weights, or the path of a `.weights.h5` or
            `.keras` file. No pretrained weights are published.
        input_tensor: Optional Keras tensor to build on.
        input_shape: Optional shape without the batch, channels last or first
            as in `keras.config.image_data_format()`. Default: 224x224 RGB
            with the top, any size without.
        pooling: Without the top, `"avg"` or `"max"` for global pooling, `None`
            for the output of the last group.
        classes: Integer, number of classes.
        classifier_activation: Activation of the classifier, `None` for
            logits.
        name: Name of the model.

    Returns:
        A functional `keras.Model`. The outputs of the groups are the layers
        named in `GROUP_OUTPUTS`. Before the training each block is its
        shortcut: the scale of its last normalization starts at zero.

    Raises:
        ValueError: If an argument is outside what is allowed above, or the
            file of `weights` does not hold weights of this network.

    Example:

    >>> from keras_sasa.applications import ResNet
    >>> model = ResNet((1, 1), stem="small", input_shape=(32, 32, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> model.output_shape
    (None, 10)
    """
    num_blocks = _check_num_blocks(num_blocks)
    spatial = _check_spatial(spatial, len(num_blocks))
    check_choice(stem, "stem", STEMS)
    check_choice(downsampling, "downsampling", DOWNSAMPLINGS)
    check_choice(pooling, "pooling", (None, "avg", "max"))
    _check_weights(weights)
    positive_number(width_multiplier, "width_multiplier")

    def width(channels):
        unit = 2 * num_heads
        return max(round(channels * width_multiplier / unit), 1) * unit

    def attention(filters, strides, name):
        return SelfAttention2D(
            filters,
            kernel_size,
            num_heads=num_heads,
            strides=strides,
            position_encoding=position_encoding,
            use_content=use_content,
            implementation=implementation,
            name=name,
        )

    if input_tensor is None:
        shape = input_shape or _default_shape(include_top)
        images = layers.Input(shape, name="images")
    else:
        images = input_tensor
    x = _stem(images, stem, width(64), implementation)
    for group, (blocks, operator) in enumerate(
        zip(num_blocks, spatial, strict=True), start=1
    ):
        filters = width(64 * 2 ** (group - 1))
        for block in range(1, blocks + 1):
            x = _bottleneck(
                x,
                filters,
                strides=2 if group > 1 and block == 1 else 1,
                project=block == 1,
                attention=attention if operator == "attention" else None,
                downsampling=downsampling,
                name=f"group{group}_block{block}",
                output_name=(
                    GROUP_OUTPUTS[group - 1] if block == blocks else None
                ),
            )
    if include_top:
        x = layers.GlobalAveragePooling2D(name="average_pool")(x)
        x = layers.Dense(
            classes,
            activation=classifier_activation,
            # Probabilities of float16 would spoil the loss of mixed precision.
            dtype=keras.config.dtype_policy().variable_dtype,
            name="predictions",
        )(x)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(name="max_pool")(x)
    inputs = images
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
    model = keras.Model(inputs, x, name=name)
    if weights is not None:
        _load_weights(model, weights)
    return model


def _stem(x, stem, filters, implementation):
    """Returns a map of a quarter of the image's sides (`"small"`: all)."""
    if stem in ("conv", "small"):
        large = stem == "conv"
        x = _conv(x, filters, 7 if large else 3, 2 if large else 1, "stem_conv")
        x = _normalize(x, "stem_normalization")
        x = layers.ReLU(name="stem_relu")(x)
        if large:
            x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
        return x
    return AttentionStem(
        filters,
        values=STEMS[stem],
        implementation=implementation,
        name="stem_attention",
    )(x)


def _bottleneck(
    x, filters, strides, project, attention, downsampling, name, output_name
):
    """1x1 - spatial operator - 1x1, around it the shortcut (He et al., 2016).

    The stride sits on the spatial operator ("v1.5"), as the published numbers
    of parameters and FLOPs need.
    """
    shortcut = x
    if project:
        shortcut = _conv(x, 4 * filters, 1, strides, f"{name}_shortcut_conv")
        shortcut = _normalize(shortcut, f"{name}_shortcut_normalization")
    x = _conv(x, filters, 1, 1, f"{name}_reduce_conv")
    x = _normalize(x, f"{name}_reduce_normalization")
    x = layers.ReLU(name=f"{name}_reduce_relu")(x)
    if attention is None:
        x = _conv(x, filters, 3, strides, f"{name}_spatial_conv")
    elif downsampling == "stride":
        x = attention(filters, strides, f"{name}_attention")(x)
    else:
        x = attention(filters, 1, f"{name}_attention")(x)
        if strides > 1:
            # "same", so that the shortcut has the same shape on odd maps.
            x = layers.AveragePooling2D(
                strides, padding="same", name=f"{name}_pool"
            )(x)
    x = _normalize(x, f"{name}_spatial_normalization")
    x = layers.ReLU(name=f"{name}_spatial_relu")(x)
    x = _conv(x, 4 * filters, 1, 1, f"{name}_expand_conv")
    # Goyal et al., 2017 (https://arxiv.org/abs/1706.02677), section 5.1: a
    # block starts as its shortcut. The paper is silent. Without it, gradients
    # about double from one attention block to the one before: windowed means
    # are much alike, and the normalization amplifies what differs (see
    # `test_gradients_do_not_grow_with_depth`).
    x = _normalize(x, f"{name}_expand_normalization", gamma="zeros")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=output_name or f"{name}_output")(x)


def _conv(x, filters, kernel_size, strides, name):
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _normalize(x, name, gamma="ones"):
    axis = -1 if keras.config.image_data_format() == "channels_last" else 1
    return layers.BatchNormalization(
        axis=axis, epsilon=_EPSILON, gamma_initializer=gamma, name=name
    )(x)


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
        or any(operator not in OPERATORS for operator in operators)
    ):
        raise ValueError(
            f"`spatial` must be one of {OPERATORS} or name one of them for "
            f"each of the {groups} groups. Received: spatial={spatial!r}."
        )
    return tuple(operators)


def _check_weights(weights):
    if weights is None:
        return
    if weights == "imagenet":
        raise ValueError(
            '`weights="imagenet"` is not available: no pretrained weights of '
            "these networks are published. `weights` must be `None` or the "
            f"path of a weights file. Received: weights={weights!r}."
        )
    if not isinstance(weights, (str, os.PathLike)) or not os.path.isfile(
        weights
    ):
        raise ValueError(
            "`weights` must be `None` or the path of an existing "
            "`.weights.h5` or `.keras` file. "
            f"Received: weights={weights!r}."
        )
    if not str(weights).endswith((".weights.h5", ".keras")):
        raise ValueError(
            "The name of the file of `weights` must end in `.weights.h5` or "
            f"`.keras`. Received: weights={weights!r}."
        )


def _load_weights(model, weights):
    try:
        model.load_weights(weights)
    except Exception as error:
        # What comes out of h5py and zipfile does not name the argument.
        raise ValueError(
            "The file of `weights` does not hold the weights of this network "
            f"({model.name!r}, {model.count_params():,} parameters; number of "
            "classes and other arguments must be those it was saved with). "
            f"Received: weights={str(weights)!r}, which failed with: {error}"
        ) from error


def _variant(name, depth, spatial):
    """Returns the builder of one published network, documented as `ResNet`."""
    kind = "attention" if spatial == "attention" else "convolutional twin"

    def build(**options):
        options = {"spatial": spatial, "name": name.lower(), **options}
        return ResNet(NUM_BLOCKS[depth], **options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""ResNet-{depth}, {kind}.

    `ResNet({NUM_BLOCKS[depth]}, spatial={spatial!r})`; every other argument of
    `ResNet` may be given by name.

    Example:

    >>> from keras_sasa.applications import {name}
    >>> model = {name}(input_shape=(64, 64, 3), classes=10,
    ...                width_multiplier=0.25)
    >>> model.output_shape
    (None, 10)
    """
    signature = inspect.signature(ResNet)
    build.__signature__ = signature.replace(
        parameters=[
            parameter.replace(
                kind=inspect.Parameter.KEYWORD_ONLY,
                default={"spatial": spatial, "name": name.lower()}.get(
                    parameter.name, parameter.default
                ),
            )
            for parameter in signature.parameters.values()
            if parameter.name != "num_blocks"
        ]
    )
    return build


SASAResNet26 = _variant("SASAResNet26", 26, "attention")
SASAResNet38 = _variant("SASAResNet38", 38, "attention")
SASAResNet50 = _variant("SASAResNet50", 50, "attention")
ConvResNet26 = _variant("ConvResNet26", 26, "conv")
ConvResNet38 = _variant("ConvResNet38", 38, "conv")
ConvResNet50 = _variant("ConvResNet50", 50, "conv")


def preprocess_input(x, data_format=None):
    """Scales RGB pixels from [0, 255] to ImageNet's mean 0 and deviation 1.

    Args:
        x: Array or tensor of images, `(..., height, width, 3)` or
            `(..., 3, height, width)`.
        data_format: `"channels_last"`, `"channels_first"` or `None` for
            Keras' configuration.

    Returns:
        Images of the same shape. A float array may be changed in place.
    """
    return keras.applications.imagenet_utils.preprocess_input(
        x, data_format=data_format, mode="torch"
    )


def decode_predictions(predictions, top=5):
    """Names the ImageNet classes of predictions.

    Downloads the list of class names at the first call.

    Args:
        predictions: Array `(batch, 1000)`.
        top: Integer, number of classes to return.

    Returns:
        For each image a list of `(class_id, name, score)`, best first.
    """
    return keras.applications.imagenet_utils.decode_predictions(
        predictions, top=top
    )
