"""Pictures of detections."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sasa.visualize.figures import new_figure, to_unit_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_detections(
    images: Sequence[Any],
    detections: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    title: str | None = None,
) -> "Figure":
    """Draws boxes with their class and score over images.

    Args:
        images: List of arrays `(height, width, channels)` of any size. 1
            channel is drawn in gray, 3 channels are RGB.
        detections: List with a dict for each image: `"boxes"` `(num_boxes, 4)`,
            "xyxy" in pixels, integers `"labels"`, and optionally `"scores"`.
        class_names: List of strings, one for each label.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no image, or not a dict for each image.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import plot_detections
    >>> found = {"boxes": np.array([[2, 3, 9, 9]]), "labels": np.array([1]),
    ...          "scores": np.array([0.875])}
    >>> figure = plot_detections([np.zeros((16, 20, 3))], [found],
    ...                          ["cat", "dog"])
    >>> figure.axes[0].texts[0].get_text()
    'dog 0.88'
    """
    if not images or len(images) != len(detections):
        raise ValueError(
            "`detections` must contain a dict for each image, and `images` at "
            "least one image. "
            f"Received: {len(detections)} for {len(images)} images."
        )
    columns = min(len(images), 4)
    rows = -(-len(images) // columns)
    height, width = np.mean([np.shape(image)[:2] for image in images], axis=0)
    figure = new_figure(3.2 * columns, 3.2 * rows * height / width, title)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.axis("off")
    for axes, image, found in zip(all_axes, images, detections, strict=False):
        pixels = to_unit_range(image)
        gray = pixels.shape[-1] == 1
        axes.imshow(pixels[..., 0] if gray else pixels, cmap="gray")
        for index, label in enumerate(found["labels"]):
            text = class_names[label]
            if "scores" in found:
                text += f" {found['scores'][index]:.2f}"
            _draw_box(axes, found["boxes"][index], f"C{label % 10}", text)
    return figure


def _draw_box(axes, box, color, text):
    from matplotlib.patches import Rectangle

    # Pixels are centered on their index: the first one begins at -0.5.
    left, top, right, bottom = np.asarray(box) - 0.5
    axes.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=color,
            linewidth=2,
        )
    )
    # Above the box, unless the border of the image would clip it.
    above = top > 0.06 * max(axes.get_ylim())
    axes.text(
        left,
        top,
        text,
        fontsize=6,
        color="white",
        va="bottom" if above else "top",
        clip_on=True,
        bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8},
    )
