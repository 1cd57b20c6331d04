"""The published HaloNets, by name.

Vaswani et al., 2021 (https://arxiv.org/abs/2103.12731), in the sizes that timm
(https://github.com/huggingface/pytorch-image-models) has published weights of.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_sasa.applications.halonet import HaloNet, HaloNetOptions

_LAST_LEVELS = ((), (), (2,), (1, 2))

VARIANTS = {
    "HaloNet26T": HaloNetOptions(
        "HaloNet26T", (2, 2, 2, 2), _LAST_LEVELS, 2, "relu"
    ),
    "HaloNet50TS": HaloNetOptions(
        "HaloNet50TS",
        (3, 4, 6, 3),
        ((), (4,), (2, 4, 6), (2,)),
        3,
        "silu",
        num_heads=(8, 4, 8, 8),
    ),
    "SEHaloNet33TS": HaloNetOptions(
        "SEHaloNet33TS",
        (2, 3, 3, 2),
        ((), (3,), (3,), (1, 2)),
        3,
        "silu",
        filters=(256, 512, 1024, 1536),
        channel_attention="squeeze_excitation",
        stem_pool=False,
        final_filters=1280,
    ),
    "ECAHaloNeXt26TS": HaloNetOptions(
        "ECAHaloNeXt26TS",
        (2, 2, 2, 2),
        _LAST_LEVELS,
        2,
        "silu",
        key_width=16,
        group_width=16,
        channel_attention="efficient",
    ),
}


def HaloNet26T(
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
    name: str = "halonet26t",
) -> keras.Model:
    """Builds HaloNet-26-T, a ResNet-26 that attends in its last two levels.

    It has 12.48 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 79.1 %.

    Args:
        The arguments of `keras_sasa.applications.halonet.HaloNet` except
        `options`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.halonet.HaloNet`.
        ConnectionError: See there.

    Example:

    >>> from keras_sasa.applications import HaloNet26T
    >>> model = HaloNet26T(weights=None, classes=10)
    >>> model.output_shape
    (None, 10)
    """
    return HaloNet(VARIANTS["HaloNet26T"], **locals())


def HaloNet50TS(
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
    name: str = "halonet50ts",
) -> keras.Model:
    """Builds HaloNet-50-TS, a ResNet-50 that attends in its last three levels.

    It has 22.73 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 81.6 %.

    Args:
        The arguments of `keras_sasa.applications.halonet.HaloNet` except
        `options`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.halonet.HaloNet`.
        ConnectionError: See there.

    Example:

    >>> from keras_sasa.applications import HaloNet50TS
    >>> model = HaloNet50TS(weights=None, classes=10)
    >>> model.output_shape
    (None, 10)
    """
    return HaloNet(VARIANTS["HaloNet50TS"], **locals())


def SEHaloNet33TS(
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
    name: str = "sehalonet33ts",
) -> keras.Model:
    """Builds SE-HaloNet-33-TS, a ResNet-33 with squeeze and excitation that
    attends in its last three levels.

    It has 13.69 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 81.0 %.

    Args:
        The arguments of `keras_sasa.applications.halonet.HaloNet` except
        `options`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.halonet.HaloNet`.
        ConnectionError: See there.

    Example:

    >>> from keras_sasa.applications import SEHaloNet33TS
    >>> model = SEHaloNet33TS(weights=None, classes=10)
    >>> model.output_shape
    (None, 10)
    """
    return HaloNet(VARIANTS["SEHaloNet33TS"], **locals())


def ECAHaloNeXt26TS(
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
    name: str = "ecahalonext26ts",
) -> keras.Model:
    """Builds ECA-HaloNeXt-26-TS, a ResNeXt-26 with efficient channel attention
    that attends in its last two levels.

    It has 10.76 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 79.5 %.

    Args:
        The arguments of `keras_sasa.applications.halonet.HaloNet` except
        `options`, all by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.halonet.HaloNet`.
        ConnectionError: See there.

    Example:

    >>> from keras_sasa.applications import ECAHaloNeXt26TS
    >>> model = ECAHaloNeXt26TS(weights=None, classes=10)
    >>> model.output_shape
    (None, 10)
    """
    return HaloNet(VARIANTS["ECAHaloNeXt26TS"], **locals())
