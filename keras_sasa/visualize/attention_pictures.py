"""Pictures of attention weights over images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sasa.visualize.attention_weights import place_window
from keras_sasa.visualize.figures import (
    as_images,
    frame_pixel,
    new_figure,
    show,
    show_pale,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_attention(
    images: Any,
    weights: Any,
    positions: Any,
    input_size: tuple[int, int] | None = None,
    dilation_rate: int | Sequence[int] = 1,
    title: str | None = None,
    centers: Any | None = None,
) -> "Figure":
    """Draws the attention weights of one query for each of several images.

    Each row of the picture shows an image with the query framed, then for each
    head the weights of the query's window over the same image. Colors range
    from 0 (dark) to the largest weight of the head (yellow), which is printed
    below.

    Args:
        images: Array `(batch, height, width, channels)` with any range of
            values. 1 channel is drawn in gray, 3 channels are RGB.
        weights: Array `(batch, num_heads, kernel_height, kernel_width)`, the
            weights of one query in each image.
        positions: `batch` pairs (row, column), the positions of the queries in
            the input of the layer.
        input_size: Pair (height, width), size of the input of the layer.
            Default: the size of the images.
        dilation_rate: Integer or pair, as in the layer.
        title: String above the picture.
        centers: `batch` pairs (row, column), the middles of the windows.
            Default: `positions`.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If `images` are not images, or there are not weights and a
            position for each of them.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import pixel_attention, plot_attention
    >>> from keras_sasa.applications import ResNet
    >>> model = ResNet((1,), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> images = np.random.uniform(size=(2, 16, 16, 3)).astype("float32")
    >>> looks = pixel_attention(model, images, pixels=(8, 4))
    >>> look = looks["group1_block1_attention"]
    >>> figure = plot_attention(images, look.weights, look.positions,
    ...                         look.input_size, look.dilation_rate)
    >>> len(figure.axes)
    18
    """
    images, weights = as_images(images), np.asarray(weights)
    positions = np.asarray(positions)
    centers = positions if centers is None else np.asarray(centers)
    if (
        weights.ndim != 4
        or len(weights) != len(images)
        or positions.shape != (len(images), 2)
        or centers.shape != positions.shape
    ):
        raise ValueError(
            "`weights` must be an array (batch, num_heads, kernel_height, "
            "kernel_width), `positions` and `centers` arrays (batch, 2), with "
            f"the batch of the {len(images)} images. Received: shapes "
            f"{weights.shape}, {positions.shape} and {centers.shape}."
        )
    input_size = input_size or images.shape[1:3]
    columns = 1 + weights.shape[1]
    figure = new_figure(1.25 * columns, 1.4 * len(images) + 0.7, title)
    axes = figure.subplots(len(images), columns, squeeze=False)
    # Coordinates are pixels of the layer's input, not of the image.
    extent = (-0.5, input_size[1] - 0.5, input_size[0] - 0.5, -0.5)
    for row, (image, heads, position, center) in enumerate(
        zip(images, weights, positions, centers, strict=True)
    ):
        show(axes[row, 0], image, extent=extent)
        inside, *placed = place_window(
            np.concatenate([np.ones((1, *heads.shape[1:])), heads]),
            *center,
            input_size,
            dilation_rate,
        )
        for head, (axis, values) in enumerate(
            zip(axes[row, 1:], placed, strict=True)
        ):
            show_pale(axis, image, extent=extent)
            axis.imshow(
                np.ma.masked_where(inside == 0, values), cmap="viridis", vmin=0
            )
            if row == 0:
                axis.set_title(f"head {head + 1}", fontsize=9)
            axis.set_xlabel(f"max {values.max():.2f}", fontsize=7, labelpad=2)
        for axis in axes[row]:
            frame_pixel(axis, position)
    axes[0, 0].set_title("query", fontsize=9)
    figure.supxlabel(
        "red: query; color: weight, from 0 (dark) to the head's maximum",
        fontsize=8,
    )
    return figure
