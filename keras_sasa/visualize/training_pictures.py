"""Pictures of training curves and of a confusion matrix."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sasa.visualize.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_history(history: Any, title: str | None = None) -> "Figure":
    """Draws the loss and the metrics of a training run, epoch by epoch.

    Args:
        history: Result of `model.fit`, or its dict `history.history`.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure` with axes for the loss and for each
        metric; `figure.savefig(path)` writes it.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is nothing to draw.

    Example:

    >>> from keras_sasa.visualize import plot_history
    >>> figure = plot_history({"loss": [2.0, 1.0], "val_loss": [2.1, 1.4]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss']
    """
    values = getattr(history, "history", history)
    names = list(
        dict.fromkeys(
            name.removeprefix("val_")
            for name in values
            if name != "learning_rate"
        )
    )
    names.sort(key="loss".__ne__)  # The loss first; Keras sorts by name.
    if not names:
        raise ValueError(
            "`history` must contain the loss of at least one epoch. "
            f"Received: history={values!r}."
        )
    figure = new_figure(4.5 * len(names), 3.4, title)
    for axes, name in zip(
        figure.subplots(1, len(names), squeeze=False)[0], names, strict=True
    ):
        for key, label, color in (
            (name, "training", "tab:blue"),
            (f"val_{name}", "validation", "tab:orange"),
        ):
            if key in values:
                epochs = np.arange(1, len(values[key]) + 1)
                axes.plot(
                    epochs, values[key], marker=".", label=label, color=color
                )
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def plot_confusion(
    confusion: Any, class_names: Sequence[str], title: str | None = None
) -> "Figure":
    """Draws a confusion matrix.

    Args:
        confusion: Integers `(classes, classes)`, the number of images of each
            true class (row) that were classified as each class (column).
        class_names: List of strings, one for each class.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`. The color of a cell is its share of the
        row, which is also printed if there are at most twelve classes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the shapes do not fit each other.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import plot_confusion
    >>> figure = plot_confusion(np.array([[9, 1], [2, 8]]), ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['90', '10', '20', '80']
    """
    confusion = np.asarray(confusion)
    number = len(class_names)
    if confusion.shape != (number, number):
        raise ValueError(
            "`confusion` must have a row and a column for each of the "
            f"{number} `class_names`. Received: shape {confusion.shape}."
        )
    # A class without images has a row of zeros.
    percent = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = min(3.0 + 0.4 * number, 12.0)
    figure = new_figure(side + 0.8, side, title)
    axes = figure.subplots()
    picture = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(picture, label="% of the true class", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if number <= 40:
        axes.set_xticks(range(number), class_names, rotation=90)
        axes.set_yticks(range(number), class_names)
    if number <= 12:
        for (row, column), value in np.ndenumerate(percent):
            axes.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if value > 50 else "black",
            )
    return figure
