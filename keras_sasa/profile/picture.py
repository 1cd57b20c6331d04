"""Bar charts of the layers of a model."""

from typing import TYPE_CHECKING

from keras_sasa._optional_imports import optional_import
from keras_sasa.profile.report import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LAYERS = 30


def plot_profile(profile: Profile, title: str | None = None) -> "Figure":
    """Draws parameters, FLOPs and, if measured, milliseconds of each layer.

    For a model with more than 30 layers it draws the layers with the largest
    share of any of the three, in their order, and a bar for all others below.

    Args:
        profile: A `keras_sasa.profile.Profile`.
        title: String above the bars.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:

    >>> import keras
    >>> from keras_sasa.profile import plot_profile, profile
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> figure = plot_profile(profile(model))
    >>> [axes.get_title() for axes in figure.axes]
    ['parameters, 36', 'FLOPs, 68']
    """
    optional_import("matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    columns = {
        f"parameters, {profile.parameters:,}": [
            row.parameters for row in profile.rows
        ],
        f"FLOPs, {profile.flops:,}": [row.flops or 0 for row in profile.rows],
    }
    if profile.milliseconds is not None:
        columns[f"milliseconds, {profile.layer_milliseconds:.1f}"] = [
            row.milliseconds or 0 for row in profile.rows
        ]
    drawn = _largest(columns.values())
    names = [profile.rows[index].name for index in drawn]
    others = len(profile.rows) - len(drawn)
    if others:
        names.append(f"{others} other layers")
    figure = Figure(
        figsize=(2 + 3.2 * len(columns), 1 + 0.22 * len(names)),
        layout="constrained",
    )
    if title:
        figure.suptitle(title)
    all_axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (label, values) in zip(all_axes, columns.items(), strict=True):
        bars = [values[index] for index in drawn]
        if others:
            bars.append(sum(values) - sum(bars))
        # By index, since the two calls of a shared layer have one name.
        axes.barh(range(len(bars)), bars, color="tab:blue")
        axes.set_title(label, fontsize=10)
        if not label.startswith("milliseconds"):
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", linewidth=0.4)
        axes.set_axisbelow(True)
    all_axes[0].set_yticks(range(len(names)), names)
    all_axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def _largest(columns):
    """Returns the indices of the rows with the largest shares, in order."""
    totals = [sum(values) or 1 for values in columns]
    shares = [
        max(value / total for value, total in zip(row, totals, strict=True))
        for row in zip(*columns, strict=True)
    ]
    by_share = sorted(range(len(shares)), key=lambda place: -shares[place])
    return sorted(by_share[:_MOST_LAYERS])
