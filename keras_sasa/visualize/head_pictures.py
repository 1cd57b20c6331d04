"""Pictures of attention heads: distance, entropy and preferred positions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_sasa.visualize.figures import frame_pixel, new_figure
from keras_sasa.visualize.head_statistics import AttentionStatistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Up to this number of heads, each has its own color.
_COLORS = 10

# Tick labels for numbers of pixels.
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def plot_attention_statistics(
    statistics: Mapping[str, AttentionStatistics], title: str | None = None
) -> "Figure":
    """Draws how far and how widely each head looks, layer by layer.

    The upper plot shows the mean attention distance, the lower plot the
    entropy, as means over the images. Each dot is a head. Dashes show the
    values of equal weights: a head with much less entropy selects pixels, a
    head close to the dashes computes a mean.

    Args:
        statistics: Result of `attention_statistics`.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no layer.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.visualize import (
    ...     attention_statistics, plot_attention_statistics)
    >>> model = ResNet((1, 1), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> figure = plot_attention_statistics(
    ...     attention_statistics(model, np.ones((2, 16, 16, 3))))
    >>> [text.get_text() for text in figure.axes[1].get_xticklabels()]
    ['group1_block1_attention', 'group2_block1_attention']
    """
    _check_layers("statistics", statistics)
    names = [name.replace("/", "/\n") for name in statistics]
    # Rotated names take height.
    rotation = 0 if len(names) < 4 else 90
    longest = max(map(len, "\n".join(names).split("\n")))
    height = 6.5 + (0.08 * longest if rotation else 0)
    figure = new_figure(max(6.5, 2.5 + 0.6 * len(names)), height, title)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, field in ((upper, "distance"), (lower, "entropy")):
        # Leaves out images that are masked completely, which have NaN.
        means = [
            np.ma.masked_invalid(getattr(each, field)).mean(0).filled(np.nan)
            for each in statistics.values()
        ]
        uniform = [
            getattr(each, f"uniform_{field}") for each in statistics.values()
        ]
        _draw_heads(axes, means)
        places = np.arange(len(names))
        axes.hlines(
            uniform,
            places - 0.42,
            places + 0.42,
            color="black",
            linestyle="dashed",
            lw=1,
            label="equal weights",
        )
        axes.set_xticks(places[1:] - 0.5, minor=True)
        axes.tick_params("x", which="both", length=0)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(
            0, 1.08 * np.nanmax([*uniform, *np.concatenate(means)]) or 1
        )
        axes.grid(axis="y", alpha=0.3)
        axes.grid(axis="x", which="minor", alpha=0.3)
    upper.set_ylabel("mean distance from the query\n(pixels of the layer)")
    lower.set_ylabel("entropy (nats)")
    lower.set_xticks(places, names, fontsize=8, rotation=rotation)
    pixels = lower.twinx()
    pixels.set_ylim(lower.get_ylim())
    ticks = [tick for tick in _TICKS if np.log(tick) < lower.get_ylim()[1]]
    pixels.set_yticks(np.log(ticks), ticks)
    pixels.set_ylabel("as many pixels with equal weights\n(exp of the entropy)")
    figure.legend(
        *upper.get_legend_handles_labels(), loc="outside right", fontsize=8
    )
    return figure


def plot_position_logits(
    logits: Mapping[str, np.ndarray], title: str | None = None
) -> "Figure":
    """Draws the places of the window that each head prefers, whatever is there.

    Each row of the picture is a layer and shows the window of each head. Red
    places get more weight than blue ones; the bar on the right of the row
    gives the difference in logits.

    Args:
        logits: Result of `position_logits`.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no layer.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import plot_position_logits
    >>> figure = plot_position_logits({"attention": np.zeros((4, 7, 7))})
    >>> [axes.get_title() for axes in figure.axes[:4]]
    ['head 1', 'head 2', 'head 3', 'head 4']
    """
    _check_layers("logits", logits)
    columns = max(len(heads) for heads in logits.values())
    figure = new_figure(1.35 * columns + 1.4, 1.5 * len(logits) + 0.8, title)
    all_axes = figure.subplots(len(logits), columns, squeeze=False)
    for axes, (name, heads) in zip(all_axes, logits.items(), strict=True):
        most = max(np.abs(heads).max(), 1e-12)
        height, width = heads.shape[1:]
        down, right = height // 2, width // 2
        for axis in axes[len(heads) :]:
            axis.axis("off")
        for axis, window in zip(axes, heads, strict=False):
            picture = axis.imshow(
                window,
                cmap="RdBu_r",
                vmin=-most,
                vmax=most,
                extent=(-right - 0.5, right + 0.5, down + 0.5, -down - 0.5),
            )
            frame_pixel(axis, (0, 0), color="black")
            axis.set_xticks([-right, 0, right])
            axis.set_yticks([-down, 0, down])
            axis.tick_params(labelsize=7, length=2)
        axes[0].set_ylabel(name.replace("/", "/\n"), fontsize=7)
        figure.colorbar(picture, ax=list(axes), label="logit", pad=0.01)
    for head, axis in enumerate(all_axes[0]):
        axis.set_title(f"head {head + 1}", fontsize=9)
    figure.supxlabel(
        "axes: pixels right of and below the query (framed)\ncolor: term of "
        "position in the logit, mean over queries; 0: mean of the window",
        fontsize=8,
    )
    return figure


def _check_layers(argument, layers):
    if not isinstance(layers, dict) or not layers:
        raise ValueError(
            f"`{argument}` must be a dict with at least one layer. "
            f"Received: {layers!r}."
        )


def _draw_heads(axes, means):
    """Draws the means of heads, one array for each layer, as dots."""
    most = max(map(len, means))
    for head in range(most):
        points = [
            (place + 0.7 * (head - (len(heads) - 1) / 2) / most, heads[head])
            for place, heads in enumerate(means)
            if head < len(heads)
        ]
        axes.scatter(
            *zip(*points, strict=True),
            color=f"C{head}" if most <= _COLORS else "C0",
            label=f"head {head + 1}" if most <= _COLORS else None,
            zorder=3,
        )
