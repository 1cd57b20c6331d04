"""The networks of the paper's first table, by name.

Ramachandran et al., 2019 (https://arxiv.org/abs/1906.05909), table 1: ResNets
with attention behind a stem of convolution, and their convolutional twins.
`CONFIGURATIONS` has the other networks of the paper.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_sasa.applications.resnet import NUM_BLOCKS, ResNet


def SASAResNet26(
    *,
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
    name: str = "sasaresnet26",
) -> keras.Model:
    """Builds a ResNet-26 with self-attention in place of its 3x3 convolutions.

    It is `ResNet(NUM_BLOCKS[26], spatial="attention")`, with 10.34 million
    trained parameters for 1000 classes.

    Args:
        The arguments of `ResNet` except `num_blocks`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `ResNet`.

    Example:

    >>> from keras_sasa.applications import SASAResNet26
    >>> model = SASAResNet26(input_shape=(64, 64, 3), classes=10,
    ...                      width_multiplier=0.25)
    >>> model.output_shape
    (None, 10)
    """
    return ResNet(NUM_BLOCKS[26], **locals())


def SASAResNet38(
    *,
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
    name: str = "sasaresnet38",
) -> keras.Model:
    """Builds a ResNet-38 with self-attention in place of its 3x3 convolutions.

    It is `ResNet(NUM_BLOCKS[38], spatial="attention")`, with 14.19 million
    trained parameters for 1000 classes.

    Args:
        The arguments of `ResNet` except `num_blocks`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `ResNet`.

    Example:

    >>> from keras_sasa.applications import SASAResNet38
    >>> model = SASAResNet38(input_shape=(64, 64, 3), classes=10,
    ...                      width_multiplier=0.25)
    >>> model.output_shape
    (None, 10)
    """
    return ResNet(NUM_BLOCKS[38], **locals())


def SASAResNet50(
    *,
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
    name: str = "sasaresnet50",
) -> keras.Model:
    """Builds a ResNet-50 with self-attention in place of its 3x3 convolutions.

    It is `ResNet(NUM_BLOCKS[50], spatial="attention")`, with 18.04 million
    trained parameters for 1000 classes.

    Args:
        The arguments of `ResNet` except `num_blocks`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `ResNet`.

    Example:

    >>> from keras_sasa.applications import SASAResNet50
    >>> model = SASAResNet50(input_shape=(64, 64, 3), classes=10,
    ...                      width_multiplier=0.25)
    >>> model.output_shape
    (None, 10)
    """
    return ResNet(NUM_BLOCKS[50], **locals())


def ConvResNet26(
    *,
    spatial: str | Sequence[str] = "conv",
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
    name: str = "convresnet26",
) -> keras.Model:
    """Builds a ResNet-26, the convolutional twin of `SASAResNet26`.

    It is `ResNet(NUM_BLOCKS[26], spatial="conv")`, with 13.70 million
    trained parameters for 1000 classes.

    Args:
        The arguments of `ResNet` except `num_blocks`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `ResNet`.

    Example:

    >>> from keras_sasa.applications import ConvResNet26
    >>> model = ConvResNet26(input_shape=(64, 64, 3), classes=10,
    ...                      width_multiplier=0.25)
    >>> model.output_shape
    (None, 10)
    """
    return ResNet(NUM_BLOCKS[26], **locals())


def ConvResNet38(
    *,
    spatial: str | Sequence[str] = "conv",
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
    name: str = "convresnet38",
) -> keras.Model:
    """Builds a ResNet-38, the convolutional twin of `SASAResNet38`.

    It is `ResNet(NUM_BLOCKS[38], spatial="conv")`, with 19.63 million
    trained parameters for 1000 classes.

    Args:
        The arguments of `ResNet` except `num_blocks`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `ResNet`.

    Example:

    >>> from keras_sasa.applications import ConvResNet38
    >>> model = ConvResNet38(input_shape=(64, 64, 3), classes=10,
    ...                      width_multiplier=0.25)
    >>> model.output_shape
    (None, 10)
    """
    return ResNet(NUM_BLOCKS[38], **locals())


def ConvResNet50(
    *,
    spatial: str | Sequence[str] = "conv",
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
    name: str = "convresnet50",
) -> keras.Model:
    """Builds a ResNet-50, the convolutional twin of `SASAResNet50`.

    It is `ResNet(NUM_BLOCKS[50], spatial="conv")`, with 25.56 million
    trained parameters for 1000 classes.

    Args:
        The arguments of `ResNet` except `num_blocks`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `ResNet`.

    Example:

    >>> from keras_sasa.applications import ConvResNet50
    >>> model = ConvResNet50(input_shape=(64, 64, 3), classes=10,
    ...                      width_multiplier=0.25)
    >>> model.output_shape
    (None, 10)
    """
    return ResNet(NUM_BLOCKS[50], **locals())
