"""The published neighborhood attention transformers, by name.

Hassani et al., 2023 (https://arxiv.org/abs/2204.07143), table 1; Hassani and
Shi, 2022 (https://arxiv.org/abs/2209.15001), table 1.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_sasa.applications.nat import NAT, NATOptions

# For images of 224x224, the windows of a dilated block span the whole map.
_DILATIONS = (8, 4, 2, 1)

VARIANTS = {
    "NATMini": NATOptions("NATMini", (3, 4, 6, 5), 64, 3, 0.2),
    "NATTiny": NATOptions("NATTiny", (3, 4, 18, 5), 64, 3, 0.2),
    "NATSmall": NATOptions("NATSmall", (3, 4, 18, 5), 96, 2, 0.3, 1e-5),
    "NATBase": NATOptions("NATBase", (3, 4, 18, 5), 128, 2, 0.5, 1e-5),
    "DiNATMini": NATOptions(
        "DiNATMini", (3, 4, 6, 5), 64, 3, 0.2, None, _DILATIONS
    ),
    "DiNATTiny": NATOptions(
        "DiNATTiny", (3, 4, 18, 5), 64, 3, 0.2, None, _DILATIONS
    ),
    "DiNATSmall": NATOptions(
        "DiNATSmall", (3, 4, 18, 5), 96, 2, 0.3, None, _DILATIONS
    ),
    "DiNATBase": NATOptions(
        "DiNATBase", (3, 4, 18, 5), 128, 2, 0.5, 1e-5, _DILATIONS
    ),
    "DiNATLarge": NATOptions(
        "DiNATLarge", (3, 4, 18, 5), 192, 2, 0.35, None, _DILATIONS
    ),
}


def NATMini(
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
    name: str = "natmini",
) -> keras.Model:
    """Builds NAT-Mini, a neighborhood attention transformer.

    It has 19.98 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 81.8 %.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example:

    >>> from keras_sasa.applications import NATMini
    >>> model = NATMini(weights=None, input_shape=(64, 64, 3), classes=10)
    >>> model.output_shape
    (None, 10)
    """
    return NAT(VARIANTS["NATMini"], **locals())


def NATTiny(
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
    name: str = "nattiny",
) -> keras.Model:
    """Builds NAT-Tiny, a neighborhood attention transformer.

    It has 27.90 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 83.2 %.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example: see `NATMini`.
    """
    return NAT(VARIANTS["NATTiny"], **locals())


def NATSmall(
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
    name: str = "natsmall",
) -> keras.Model:
    """Builds NAT-Small, a neighborhood attention transformer.

    It has 50.74 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 83.7 %.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example: see `NATMini`.
    """
    return NAT(VARIANTS["NATSmall"], **locals())


def NATBase(
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
    name: str = "natbase",
) -> keras.Model:
    """Builds NAT-Base, a neighborhood attention transformer.

    It has 89.77 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 84.3 %.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example: see `NATMini`.
    """
    return NAT(VARIANTS["NATBase"], **locals())


def DiNATMini(
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
    name: str = "dinatmini",
) -> keras.Model:
    """Builds DiNAT-Mini, a dilated neighborhood attention transformer.

    It has 19.98 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 81.8 %.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example:

    >>> from keras_sasa.applications import DiNATMini
    >>> model = DiNATMini(weights=None, input_shape=(64, 64, 3), classes=10)
    >>> model.output_shape
    (None, 10)
    """
    return NAT(VARIANTS["DiNATMini"], **locals())


def DiNATTiny(
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
    name: str = "dinattiny",
) -> keras.Model:
    """Builds DiNAT-Tiny, a dilated neighborhood attention transformer.

    It has 27.90 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 82.7 %.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example: see `DiNATMini`.
    """
    return NAT(VARIANTS["DiNATTiny"], **locals())


def DiNATSmall(
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
    name: str = "dinatsmall",
) -> keras.Model:
    """Builds DiNAT-Small, a dilated neighborhood attention transformer.

    It has 50.72 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 83.8 %.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example: see `DiNATMini`.
    """
    return NAT(VARIANTS["DiNATSmall"], **locals())


def DiNATBase(
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
    name: str = "dinatbase",
) -> keras.Model:
    """Builds DiNAT-Base, a dilated neighborhood attention transformer.

    It has 89.77 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 84.4 %.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example: see `DiNATMini`.
    """
    return NAT(VARIANTS["DiNATBase"], **locals())


def DiNATLarge(
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
    name: str = "dinatlarge",
) -> keras.Model:
    """Builds DiNAT-Large, a dilated neighborhood attention transformer.

    It has 200.94 million parameters for 1000 classes. Its published accuracy on
    ImageNet is 86.6 %.

    It was trained on ImageNet-22k first. The published networks for 384x384
    pixels take `dilations=(13, 6, 3, 1)`, or `kernel_size=11` and
    `dilations=(8, 4, 2, 1)`.

    Args:
        The arguments of `keras_sasa.applications.nat.NAT` except `options`, all
        by name.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: See `keras_sasa.applications.nat.NAT`.
        ConnectionError: See there.

    Example: see `DiNATMini`.
    """
    return NAT(VARIANTS["DiNATLarge"], **locals())
