"""What the pictures share."""

import numpy as np

from keras_sasa._optional_imports import optional_import


def new_figure(width, height, title=None):
    """Makes a figure of a size in inches, which no window system knows of."""
    figures = optional_import("matplotlib.figure", "matplotlib")
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title)
    return figure


def new_color_scale(name, low, high):
    """Returns what gives numbers their colors, and draws a bar of them."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(low, high), name)


def as_images(images):
    """Returns an array of images to draw.

    Raises:
        ValueError: If it has not four axes, the channels first, or no image.
    """
    images = np.asarray(images)
    channels = (1, 3)
    if (
        images.ndim != 4
        or not len(images)
        # Drawn, their rows would be taken for channels.
        or (images.shape[1] in channels and images.shape[-1] not in channels)
    ):
        raise ValueError(
            "`images` must be an array (batch, height, width, channels), the "
            "channels last, of at least one image. "
            f"Received: shape {images.shape}."
        )
    return images


def to_unit_range(image):
    image = np.asarray(image, "float32")
    low, high = image.min(), image.max()
    return (image - low) / max(high - low, 1e-12)


def show(axes, image, **options):
    """Draws an image of one channel in gray, of three as RGB."""
    pixels = image if image.shape[-1] == 3 else image.mean(axis=-1)
    show_pixels(axes, to_unit_range(pixels), **options)


def show_pale(axes, image, **options):
    """Draws an image so pale that it is not taken for what is drawn on it."""
    pixels = 0.7 + 0.3 * to_unit_range(image.mean(axis=-1))
    show_pixels(axes, pixels, **options)


def show_pixels(axes, pixels, **options):
    """Draws numbers from 0 to 1, gray or RGB, without ticks."""
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, **options)
    axes.set_xticks([])
    axes.set_yticks([])
