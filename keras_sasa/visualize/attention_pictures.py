"""Pictures of attention weights, of heads, and of the evidence for classes."""

import numpy as np

from keras_sasa.visualize.attention_weights import window_in_image
from keras_sasa.visualize.figures import (
    as_images,
    new_color_scale,
    new_figure,
    show,
    show_pale,
    show_pixels,
    to_unit_range,
)

# Heads up to which each has a color of its own.
_COLORS = 10

# Numbers of pixels beside entropies.
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def plot_attention(
    images, weights, positions, input_size=None, dilation_rate=1, title=None
):
    """Draws the attention weights of one query for each of several images.

    A row of the picture is an image with its query framed, and then for every
    head the weights of the query's window over the same image. Colors go from
    0 (dark) to the largest weight of that head (yellow), written below.

    Args:
        images: Array `(batch, height, width, channels)`; 1 channel is drawn in
            gray, 3 channels are RGB. Any range of values.
        weights: Array `(batch, num_heads, kernel_height, kernel_width)`, the
            weights of one query of each image.
        positions: `batch` pairs (row, column), the queries in the input of the
            layer.
        input_size: Pair (height, width), size of the input of the layer.
            Default: that of the images.
        dilation_rate: Integer or pair, that of the layer.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If `images` are no images, or there are not the weights and
            the position of one query for each.

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
    if (
        weights.ndim != 4
        or len(weights) != len(images)
        or positions.shape != (len(images), 2)
    ):
        raise ValueError(
            "`weights` must be an array (batch, num_heads, kernel_height, "
            "kernel_width) and `positions` one of (batch, 2), with the batch "
            f"of the {len(images)} images. Received: shapes {weights.shape} "
            f"and {positions.shape}."
        )
    input_size = input_size or images.shape[1:3]
    columns = 1 + weights.shape[1]
    figure = new_figure(1.25 * columns, 1.4 * len(images) + 0.7, title)
    axes = figure.subplots(len(images), columns, squeeze=False)
    # Drawn in the pixels of the layer's input, whatever those of the image.
    extent = (-0.5, input_size[1] - 0.5, input_size[0] - 0.5, -0.5)
    for row, (image, heads, position) in enumerate(
        zip(images, weights, positions, strict=True)
    ):
        show(axes[row, 0], image, extent=extent)
        inside, *placed = window_in_image(
            np.concatenate([np.ones((1, *heads.shape[1:])), heads]),
            *position,
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
            _frame(axis, position)
    axes[0, 0].set_title("query", fontsize=9)
    figure.supxlabel(
        "red: query; color: weight, from 0 (dark) to the head's maximum",
        fontsize=8,
    )
    return figure


def plot_attention_statistics(statistics, title=None):
    """Draws how far and how widely every head looks, layer by layer.

    Above is the mean attention distance, below the entropy, as means over the
    images; a dot is a head. The dashes are what equal weights give: heads of
    an entropy far below choose, and those close to it take means.

    Args:
        statistics: What `attention_statistics` returned.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is missing.
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
    # Written from top to bottom, names take height.
    rotation = 0 if len(names) < 4 else 90
    longest = max(map(len, "\n".join(names).split("\n")))
    height = 6.5 + (0.08 * longest if rotation else 0)
    figure = new_figure(max(6.5, 2.5 + 0.6 * len(names)), height, title)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, field in ((upper, "distance"), (lower, "entropy")):
        # Images where all is masked have NaN, and do not count.
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


def plot_position_logits(logits, title=None):
    """Draws which places of the window every head prefers, whatever is there.

    A row of the picture is a layer with a picture of the window for every
    head. Red places get more weight than blue ones; by how much says the bar
    on the right of the row.

    Args:
        logits: What `position_logits` returned.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is missing.
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
            _frame(axis, (0, 0), color="black")
            axis.set_xticks([-right, 0, right])
            axis.set_yticks([-down, 0, down])
            axis.tick_params(labelsize=7, length=2)
        axes[0].set_ylabel(name.replace("/", "/\n"), fontsize=7)
        figure.colorbar(picture, ax=list(axes), label="logit", pad=0.01)
    for head, axis in enumerate(all_axes[0]):
        axis.set_title(f"head {head + 1}", fontsize=9)
    figure.supxlabel(
        "axes: pixels right of and below the query (framed)\ncolor: what the "
        "position adds to the logit, mean over queries; 0: mean of the window",
        fontsize=8,
    )
    return figure


def plot_class_evidence(images, evidence, captions=None, title=None):
    """Draws where in images the evidence for some classes is.

    A row of the picture is an image, and then for each of the classes the
    same image in the colors of the evidence: red is for the class, blue against
    it, and the light is that of the image. The colors of all pictures mean the
    same.

    Args:
        images: Array `(batch, height, width, channels)`; 1 channel is drawn in
            gray, 3 channels are RGB. Any range of values.
        evidence: Array `(batch, height, width, shown)`, of any height and
            width; of the classes in what `class_evidence` returned, those to
            be shown for each image.
        captions: `batch` lists of `shown` strings, what each stands for.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If `images` are no images, or there is not one map of
            evidence, and one list of captions, for each.

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
        "light: the image",
        fontsize=8,
    )
    return figure


def _check_layers(argument, layers):
    if not isinstance(layers, dict) or not layers:
        raise ValueError(
            f"`{argument}` must be a dict with at least one layer. "
            f"Received: {layers!r}."
        )


def _tinted(image, colors):
    """Gives an image the colors of a map of any size, and keeps its light."""
    height, width = image.shape[:2]
    rows = np.arange(height) * len(colors) // height
    columns = np.arange(width) * len(colors[0]) // width
    light = 0.5 + 0.5 * to_unit_range(image.mean(axis=-1, keepdims=True))
    return light * colors[np.ix_(rows, columns)][..., :3]


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


def _frame(axis, position, color="red"):
    from matplotlib.patches import Rectangle

    row, column = position
    axis.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5), 1, 1, fill=False, color=color, lw=1.5
        )
    )
