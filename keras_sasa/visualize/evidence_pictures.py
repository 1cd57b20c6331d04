"""Pictures of the evidence for classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sasa.visualize.figures import (
    as_images,
    new_color_scale,
    new_figure,
    show,
    show_pixels,
    to_unit_range,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_class_evidence(
    images: Any,
    evidence: Any,
    captions: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draws the evidence for some classes over images.

    Each row of the picture shows an image, then for each class the same image
    in the colors of the evidence: red supports the class, blue opposes it, and
    brightness comes from the image. All pictures share one color scale.

    Args:
        images: Array `(batch, height, width, channels)` with any range of
            values. 1 channel is drawn in gray, 3 channels are RGB.
        evidence: Array `(batch, height, width, shown)` of any height and
            width: the classes to show for each image, selected from the
            result of `class_evidence`.
        captions: `batch` lists of `shown` strings, a caption for each class.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If `images` are not images, or there is not a map of
            evidence and a list of captions for each of them.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import plot_class_evidence
    >>> evidence = np.random.normal(size=(1, 4, 4, 10))
    >>> figure = plot_class_evidence(
    ...     np.zeros((1, 8, 8, 3)), evidence[..., [3, 5]], [["cat", "dog"]])
    >>> [axes.get_title() for axes in figure.axes]
    ['image', 'cat', 'dog', '']
    """
    images, evidence = as_images(images), np.asarray(evidence)
    if evidence.ndim != 4 or len(evidence) != len(images) or not evidence.size:
        raise ValueError(
            "`evidence` must be an array (batch, height, width, shown) with "
            f"the batch of the {len(images)} images. "
            f"Received: shape {evidence.shape}."
        )
    if captions is not None and [len(texts) for texts in captions] != [
        evidence.shape[-1]
    ] * len(images):
        raise ValueError(
            f"`captions` must have {evidence.shape[-1]} strings for each of "
            f"the {len(images)} images. Received: captions={captions}."
        )
    columns = 1 + evidence.shape[-1]
    figure = new_figure(1.8 * columns + 0.8, 1.9 * len(images) + 0.8, title)
    all_axes = figure.subplots(len(images), columns, squeeze=False)
    most = max(np.abs(evidence).max(), 1e-12)
    colors = new_color_scale("bwr", -most, most)
    for row, (axes, image) in enumerate(zip(all_axes, images, strict=True)):
        show(axes[0], image)
        for column, axis in enumerate(axes[1:]):
            tinted = _tinted(image, colors.to_rgba(evidence[row, ..., column]))
            show_pixels(axis, tinted)
            if captions is not None:
                axis.set_title(captions[row][column], fontsize=9)
    all_axes[0, 0].set_title("image", fontsize=9)
    figure.colorbar(
        colors,
        ax=all_axes,
        aspect=30,
        label="evidence",
    )
    figure.supxlabel(
        "color: evidence; its mean over the image plus the bias is the logit\n"
        "brightness: the image",
        fontsize=8,
    )
    return figure


def _tinted(image, colors):
    """Gives an image the colors of a map of any size, not its brightness."""
    height, width = image.shape[:2]
    rows = np.arange(height) * len(colors) // height
    columns = np.arange(width) * len(colors[0]) // width
    light = 0.5 + 0.5 * to_unit_range(image.mean(axis=-1, keepdims=True))
    return light * colors[np.ix_(rows, columns)][..., :3]
