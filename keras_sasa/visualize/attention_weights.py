"""Attention weights of a model as arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_sasa._keras_graphs import standardized_inputs
from keras_sasa.layers import NeighborhoodAttention2D, SelfAttention2D
from keras_sasa.visualize.attention_calls import (
    ATTENTION_LAYERS,
    attention_calls,
    find_calls,
)
from keras_sasa.visualize.model_inputs import as_batch


def attention_maps(
    model: keras.Model,
    images: Any,
    layers: str | Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Computes the attention weights of a model on images.

    The model runs layer by layer, and activations are freed as soon as
    possible. The model is not changed. The `implementation` of its layers has
    no influence on the weights.

    Args:
        model: A functional or sequential `keras.Model` that contains
            `SelfAttention2D`, `NeighborhoodAttention2D` or `HaloAttention2D`
            layers. `AttentionStem` layers are skipped, since they do not
            return their weights.
        images: Inputs of the model, for instance an array `(batch, height,
            width, channels)`. The weights take a lot of memory: pass a few
            images at a time, or one layer after the other. `pixel_attention`
            and `attention_statistics` store the weights of one layer only.
        layers: Names of the layers to return, a list or a single string;
            `None` for all layers. A layer of a model inside the model has the
            name `"{name of the inner model}/{name of the layer}"`. If a layer
            is called several times, its second call has the name
            `"{name of the layer}:1"`, and so on. Attention inside other layers
            or subclassed models is not found.

    Returns:
        A dict from the name of the layer, in the order of the model, to a
        float32 array `(batch, out_height, out_width, num_heads, kernel_height,
        kernel_width)`, whose last two axes sum to 1. Index 0 of a window axis
        is the top or left, in either data format.

    Raises:
        ValueError: If the model is not functional, contains no such layer, or
            has no layer of one of the names, or if there is no image.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.visualize import attention_maps
    >>> model = ResNet((1, 1), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> maps = attention_maps(model, np.ones((2, 16, 16, 3), "float32"))
    >>> for name, weights in maps.items():
    ...     print(name, weights.shape)
    group1_block1_attention (2, 16, 16, 8, 7, 7)
    group2_block1_attention (2, 16, 16, 8, 7, 7)
    """
    calls = find_calls(model, layers, ATTENTION_LAYERS)
    images = as_batch(model, images)
    maps = {
        call.name: call.weights()
        for call in attention_calls(model, images, calls)
    }
    return {name: maps[name] for name in calls}


@dataclasses.dataclass(frozen=True)
class PixelAttention:
    """Where one pixel of each image looks, in one layer.

    Args:
        weights: Array `(batch, num_heads, kernel_height, kernel_width)`.
        positions: Integers `(batch, 2)`, row and column of the queries in the
            input of the layer.
        centers: Integers `(batch, 2)`, row and column of the middle of their
            windows. They differ from `positions` where the windows of
            `NeighborhoodAttention2D` move at the border.
        input_size: Pair (height, width), size of the input of the layer.
        dilation_rate: Pair, as in the layer.
    """

    weights: np.ndarray
    positions: np.ndarray
    centers: np.ndarray
    input_size: tuple[int, int]
    dilation_rate: tuple[int, int]

    @property
    def in_image(self) -> np.ndarray:
        """Weights at their positions, `(batch, num_heads, height, width)`."""
        return np.stack(
            [
                place_window(
                    heads, row, column, self.input_size, self.dilation_rate
                )
                for heads, (row, column) in zip(
                    self.weights, self.centers, strict=True
                )
            ]
        )


def pixel_attention(
    model: keras.Model,
    images: Any,
    pixels: Any,
    layers: str | Sequence[str] | None = None,
) -> dict[str, PixelAttention]:
    """Computes where one pixel of each image looks, layer by layer.

    In each layer, the query is the position in the layer's input that covers
    the pixel, or the nearest query if the layer has strides or no padding.
    Only the weights of one layer are in memory at a time.

    Args:
        model: A model as for `attention_maps`, with `SelfAttention2D` or
            `NeighborhoodAttention2D` layers; layers of other classes are
            skipped.
        images: Inputs of the model. If it has several inputs, the first one
            with four axes contains the images, which must have the data format
            of the layers.
        pixels: Integers, row and column of a pixel: one pair for all images,
            or `batch` pairs.
        layers: As for `attention_maps`.

    Returns:
        A dict from the name of the layer to a `PixelAttention`.

    Raises:
        ValueError: If a pixel is not in the image, if no input contains
            images, or as in `attention_maps`.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.visualize import pixel_attention
    >>> model = ResNet((1, 1, 1), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> images = np.ones((2, 16, 16, 3), "float32")
    >>> looks = pixel_attention(model, images, pixels=(13, 2))
    >>> for name, look in looks.items():
    ...     print(name, look.positions[0], look.in_image.shape)
    group1_block1_attention [13  2] (2, 8, 16, 16)
    group2_block1_attention [13  2] (2, 8, 16, 16)
    group3_block1_attention [6 1] (2, 8, 8, 8)
    """
    calls = find_calls(
        model, layers, (SelfAttention2D, NeighborhoodAttention2D)
    )
    images = as_batch(model, images)
    shapes = [
        tuple(np.shape(array)) for array in standardized_inputs(model, images)
    ]
    shape = next((shape for shape in shapes if len(shape) == 4), None)
    if shape is None:
        raise ValueError(
            "One of `images` must be an array (batch, height, width, channels)."
            f" Received: shapes {shapes}."
        )
    pixels = _as_pairs(pixels, shape[0])
    looks = {
        call.name: _look(call, shape, pixels)
        for call in attention_calls(model, images, calls)
    }
    return {name: looks[name] for name in calls}


def _as_pairs(pixels, batch):
    try:
        pairs = np.asarray(pixels)
    except ValueError:  # Tuples of different lengths.
        pairs = np.empty(0)
    if pairs.dtype.kind not in "iu" or pairs.shape not in ((2,), (batch, 2)):
        raise ValueError(
            "`pixels` must be a pair of integers (row, column), or a pair for "
            f"each of the {batch} images. Received: pixels={pixels!r}."
        )
    return np.broadcast_to(pairs, (batch, 2))


def _look(call, shape, pixels):
    first = call.layer.data_format == "channels_first"
    image_size = np.array(shape[2:4] if first else shape[1:3])
    if (pixels < 0).any() or (pixels >= image_size).any():
        raise ValueError(
            "`pixels` must be rows and columns of the images, whose height and "
            f"width are {tuple(image_size.tolist())}. "
            f"Received: pixels={pixels.tolist()}."
        )
    input_size = call.input_size
    # The center of the pixel; `//` would be the same for whole ratios only.
    places = ((pixels + 0.5) * input_size / image_size).astype(int)
    queries = call.queries()
    rows, columns = (
        np.abs(line[:, None] - place).argmin(axis=0)
        for line, place in zip(queries, places.T, strict=True)
    )
    centers = call.centers()
    weights = call.weights()
    return PixelAttention(
        weights[np.arange(len(weights)), rows, columns],
        np.stack([queries[0][rows], queries[1][columns]], axis=-1),
        np.stack([centers[0][rows], centers[1][columns]], axis=-1),
        input_size,
        call.layer.dilation_rate,
    )


def window_in_image(
    weights: Any,
    row: int,
    column: int,
    image_size: Sequence[int],
    dilation_rate: int | Sequence[int] = 1,
) -> np.ndarray:
    """Places the attention weights of one query in an image.

    The part of the window outside the image, where weights are 0, is cut off.

    Args:
        weights: Array `(..., kernel_height, kernel_width)`, weights of one
            query.
        row: Integer, row of the query in the input of the layer.
        column: Integer, column of the query in the input of the layer.
        image_size: Pair (height, width), size of the input of the layer.
        dilation_rate: Integer or pair, as in the layer.

    Returns:
        Array `(..., height, width)`, 0 outside the window.

    Raises:
        ValueError: If the query is not in the image.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import window_in_image
    >>> weights = np.arange(1, 10).reshape(3, 3)
    >>> window_in_image(weights, row=0, column=2, image_size=(3, 4))
    array([[0, 4, 5, 6],
           [0, 7, 8, 9],
           [0, 0, 0, 0]])
    """
    if any(
        not 0 <= position < size
        for position, size in zip((row, column), image_size, strict=True)
    ):
        raise ValueError(
            "The query must lie in the image. Received: "
            f"row={row}, column={column}, image_size={tuple(image_size)}."
        )
    return place_window(weights, row, column, image_size, dilation_rate)


def place_window(weights, row, column, image_size, dilation_rate):
    """As `window_in_image`, for any middle (row, column) of a window."""
    weights = np.asarray(weights)
    rates = np.broadcast_to(dilation_rate, 2)
    (rows, from_rows), (columns, from_columns) = (
        _clip(position, kernel, size, rate)
        for position, kernel, size, rate in zip(
            (row, column), weights.shape[-2:], image_size, rates, strict=True
        )
    )
    placed = np.zeros((*weights.shape[:-2], *image_size), weights.dtype)
    placed[..., rows, columns] = weights[..., from_rows, from_columns]
    return placed


def _clip(position, kernel_size, image_size, dilation_rate):
    """Returns the slice of the image and of the window where they overlap."""
    places = position + dilation_rate * (
        np.arange(kernel_size) - kernel_size // 2
    )
    kept = np.flatnonzero((places >= 0) & (places < image_size))
    first, last = kept[0], kept[-1]
    return (
        slice(places[first], places[last] + 1, dilation_rate),
        slice(first, last + 1),
    )
