"""Draws the picture of the README: a window, and bars of time from the rows.

    python benchmarks/overview.py

Times come from `results/layers.csv` and `results/peers.csv`; nothing is
measured here. Every panel of bars names its machine. The picture holds its
numbers as a comment, so that a test can compare them with the rows.
"""

import json

import measured
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from PIL import Image
from sklearn.datasets import load_sample_image

from keras_sasa import local_attention

PICTURE = measured.FOLDER.parent / "docs/overview.png"
# Name in `peers.csv`, label, and the row of ours that computes the same:
# the function alone or the layer with its projections.
PEERS = (
    ("flex_attention", "FlexAttention", "ms_over_native_ms"),
    ("natten_optimized", "NATTEN, -O3", "ms_over_native_ms"),
    ("timm", "HaloAttn, timm", "ms_over_native_layer_ms"),
)
COLORS = ("#4878a8", "#e08030", "#509050")
KERNEL_SIZE = 7
# Row and column of the pixel that attends, in a picture of 48 x 64 pixels.
PIXEL = (16, 37)


def photo():
    """Returns a photo of scikit-learn, `(48, 64, 3)`, from 0 to 1."""
    image = load_sample_image("flower.jpg")[:420, 80:640]
    return np.array(ops.image.resize(image / 255.0, (48, 64), antialias=True))


def weights_by_color(image):
    """Returns the weights of all windows if queries and keys are colors."""
    # Sharper than colors from 0 to 1 would be.
    colors = ops.convert_to_tensor(4 * (image - image.mean((0, 1))))[None]
    _, scores = local_attention.local_attention(
        colors,
        colors,
        colors,
        kernel_size=KERNEL_SIZE,
        num_heads=1,
        return_attention_scores=True,
    )
    return np.array(scores)[0, :, :, 0]


def draw_window(image_axis, zoom_axis):
    image = photo()
    row, column = PIXEL
    side, radius = KERNEL_SIZE, KERNEL_SIZE // 2
    corner = (column - radius - 0.5, row - radius - 0.5)
    image_axis.imshow(image)
    image_axis.add_patch(
        Rectangle(corner, side, side, fill=False, color="white", lw=1.5)
    )
    image_axis.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, color="black")
    )
    zoom_axis.imshow(weights_by_color(image)[row, column], cmap="magma")
    zoom_axis.add_patch(
        Rectangle((radius - 0.5, radius - 0.5), 1, 1, fill=False, color="cyan")
    )
    for place, end in (((1, 0), (0, 0)), ((1, 1), (0, 1))):
        image_axis.figure.add_artist(
            ConnectionPatch(
                (corner[0] + side, corner[1] + side * place[1]),
                (-0.5, -0.5 + side * end[1]),
                "data",
                "data",
                axesA=image_axis,
                axesB=zoom_axis,
                color="gray",
                lw=0.8,
            )
        )
    image_axis.set_title("Each pixel attends to the 7x7 pixels around it")
    zoom_axis.set_title("Attention weights")
    for axis in (image_axis, zoom_axis):
        axis.set_xticks([])
        axis.set_yticks([])


def draw_bars(axis, groups, title):
    """Draws a group of horizontal bars for each map.

    Args:
        axis: Axis of matplotlib.
        groups: Dict from label to numbers, one for each of `measured.MAPS`.
        title: Text above the legend.
    """
    height = 0.8 / len(groups)
    for number, (label, values) in enumerate(groups.items()):
        values = [np.nan if value is None else value for value in values]
        places = np.arange(len(measured.MAPS)) + (number + 0.5) * height - 0.4
        bars = axis.barh(
            places, values, height * 0.92, color=COLORS[number], label=label
        )
        axis.bar_label(
            bars, [_two_digits(v) for v in values], fontsize=7, padding=2
        )
    axis.axvline(1, color="black", lw=0.8)
    axis.set_yticks(range(len(measured.MAPS)), measured.MAPS)
    axis.invert_yaxis()
    axis.legend(
        title=title,
        fontsize=7,
        title_fontsize=7,
        ncols=len(groups),
        loc="upper center",
        bbox_to_anchor=(0.45, -0.08),
        frameon=False,
    )
    axis.spines[["top", "right"]].set_visible(False)


def _two_digits(value):
    if np.isnan(value):
        return ""
    return f"{value:.2f}" if value < 2 else f"{value:.0f}"


def numbers():
    """Returns the numbers of the bars, from the rows.

    Returns:
        Dict of panels, which are dicts from the label of a bar to its numbers,
        one for each map. Maps that were not measured are `None`.
    """
    layers = {
        label: measured.rows_by_key("layers.csv", label, "experiment", "what")
        for label in measured.MACHINES
    }
    convolution = {
        label: [
            _number(
                rows.get(
                    (f"layer / Conv2D, {size}", "SelfAttention2D forward")
                ),
                "ratio_of_medians",
            )
            for size in measured.MAPS
        ]
        for label, rows in layers.items()
    }
    label = peers_machine()
    rows = measured.rows_by_key(
        "peers.csv", label, "map", "direction", "method"
    )
    others = {
        title: [
            _number(rows.get((size, "forward", method)), column)
            for size in measured.MAPS
        ]
        for method, title, column in PEERS
    }
    return {"convolution": convolution, f"others, {label}": others}


def peers_machine():
    """Returns the newest instruction set on which peers were measured."""
    return [
        label
        for label in measured.MACHINES
        if measured.rows_of_machine("peers.csv", label)
    ][-1]


def _number(row, column):
    return float(row[column]) if row and row[column] else None


def drawn_numbers():
    """Returns the numbers that the picture was drawn from."""
    with Image.open(PICTURE) as picture:
        return json.loads(picture.text.get("Comment", "null"))


def main():
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    window, zoom, convolution, others = figure.subplots(
        1, 4, width_ratios=[1.5, 0.7, 1.5, 1.5]
    )
    draw_window(window, zoom)
    of_convolution, of_others = numbers().values()
    draw_bars(convolution, of_convolution, "2 cores, AMD EPYC")
    convolution.set_title("Forward time relative to Conv2D 3x3")
    draw_bars(others, of_others, f"2 cores, AMD EPYC, {peers_machine()}")
    others.set_xscale("log")
    others.set_xlim(0.5, 150)
    others.set_xticks((1, 10, 100), ("1", "10", "100"))
    others.set_title("Forward time of others relative to ours")
    for axis in figure.axes:
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=8)
    figure.savefig(
        PICTURE, dpi=110, metadata={"Comment": json.dumps(numbers())}
    )


if __name__ == "__main__":
    main()
