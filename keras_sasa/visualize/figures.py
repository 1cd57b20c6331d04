"""Helpers that all pictures share."""

import numpy as np

from keras_sasa._optional_imports import optional_import


def new_figure(width, height, title=None):
    """Makes a figure of a size in inches, without any window system."""
    figures = optional_import("matplotlib.figure", "matplotlib")
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title)
    return figure


def new_color_scale(name, low, high):
    """Returns a `ScalarMappable`, which maps numbers to colors."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(low, high), name)


def as_images(images):
    """Returns an array of images to draw.

    Raises:
        ValueError: If `images` does not have four axes with the channels last,
            or contains no image.
    """
    images = np.asarray(images)
    channels = (1, 3)
    if (
        images.ndim != 4
        or not len(images)
        # Rows of images that are channels first would be drawn as channels.
        or (images.shape[1] in channels and images.shape[-1] not in channels)
    ):
        raise ValueError(
            "`images` must be an array (batch, height, width, channels), the "
            "channels last, of at least one image. "
            f"Received: shape {images.shape}."
        )
    return images


def to_unit_range(image):
    """Scales an image to the range from 0 to 1."""
    image = np.asarray(image, "float32")
    low, high = image.min(), image.max()
    return (image - low) / max(high - low, 1e-12)


def show(axes, image, **options):
    """Draws an image in gray, or in RGB if it has three channels."""
    pixels = image if image.shape[-1] == 3 else image.mean(axis=-1)
    show_pixels(axes, to_unit_range(pixels), **options)


def show_pale(axes, image, **options):
    """Draws an image in pale gray, as a background."""
    pixels = 0.7 + 0.3 * to_unit_range(image.mean(axis=-1))
    show_pixels(axes, pixels, **options)


def show_pixels(axes, pixels, **options):
    """Draws numbers from 0 to 1 in gray or RGB, without ticks."""
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, **options)
    axes.set_xticks([])
    axes.set_yticks([])


def frame_pixel(axis, position, color="red"):
    """Draws a frame around the pixel at (row, column)."""
    from matplotlib.patches import Rectangle

    row, column = position
    axis.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5), 1, 1, fill=False, color=color, lw=1.5
        )
    )
