"""Where attention looks: the weights as arrays first, pictures second."""

import keras
import numpy as np
from keras import ops

from keras_sasa.layers import SelfAttention2D
from keras_sasa.optional import needs


def attention_maps(model, images, layers=None):
    """Computes the attention weights of a model on images.

    The model is run up to the inputs of its attention layers, whose weights
    are then computed one layer at a time. The model is not changed, and may
    just as well have been loaded from a file.

    Args:
        model: A functional or sequential `keras.Model` that contains
            `SelfAttention2D` layers.
        images: What the model takes, for instance an array `(batch, height,
            width, channels)`. The weights take a lot of memory: a few images
            at a time.
        layers: Names of the layers to look at, a list or a single string;
            `None` for all of them. A layer of a model inside the model is
            called `"{name of the inner model}/{name of the layer}"`. If a
            layer is called several times, its second call is
            `"{name of the layer}:1"`, and so on.

    Returns:
        A dict from the name of the layer, in the order of the model, to a
        float32 array `(batch, out_height, out_width, num_heads, kernel_height,
        kernel_width)`, whose last two axes sum to 1. Index 0 of a window side
        is the top or left, whatever the data format.

    Raises:
        ValueError: If the model is not functional, if there is no
            `SelfAttention2D` in it, or none of the name asked for.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.visualize import attention_maps
    >>> model = ResNet((1, 1), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> maps = attention_maps(model, np.ones((2, 16, 16, 3), "float32"))
    >>> for name, weights in maps.items():
    ...     print(name, weights.shape)
    group1_block1_attention (2, 16, 16, 8, 7, 7)
    group2_block1_attention (2, 16, 16, 8, 7, 7)
    """
    calls = _attention_calls(model)
    if not calls:
        raise ValueError(
            "`model` must contain at least one `SelfAttention2D` layer. "
            f"Received: model={model.name!r} with the layers "
            f"{[layer.name for layer in model.layers]}."
        )
    names = [layers] if isinstance(layers, str) else layers
    unknown = [name for name in names or () if name not in calls]
    if unknown:
        raise ValueError(
            f"`layers` must be among {list(calls)}, the attention layers of "
            f"{model.name!r}. Received: layers={layers!r}."
        )
    names = [name for name in calls if names is None or name in names]
    return dict(_weights(model, images, {name: calls[name] for name in names}))


def window_in_image(weights, row, column, image_size, dilation_rate=1):
    """Places the attention weights of one query in an image.

    What of the window lies outside the image, where weights are 0, is cut
    off.

    Args:
        weights: Array `(..., kernel_height, kernel_width)`, weights of one
            query.
        row: Integer, row of the query in the input of the layer.
        column: Integer, column of the query in the input of the layer.
        image_size: Pair (height, width), size of the input of the layer.
        dilation_rate: Integer or pair, that of the layer.

    Returns:
        Array `(..., height, width)`, 0 outside the window.

    Raises:
        ValueError: If the query is not in the image.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import window_in_image
    >>> weights = np.arange(1, 10).reshape(3, 3)
    >>> window_in_image(weights, row=0, column=2, image_size=(3, 4))
    array([[0, 4, 5, 6],
           [0, 7, 8, 9],
           [0, 0, 0, 0]])
    """
    weights = np.asarray(weights)
    if any(
        not 0 <= position < size
        for position, size in zip((row, column), image_size, strict=True)
    ):
        raise ValueError(
            "The query must lie in the image. Received: "
            f"row={row}, column={column}, image_size={tuple(image_size)}."
        )
    rates = np.broadcast_to(dilation_rate, 2)
    (rows, from_rows), (columns, from_columns) = (
        _clip(position, kernel, size, rate)
        for position, kernel, size, rate in zip(
            (row, column), weights.shape[-2:], image_size, rates, strict=True
        )
    )
    placed = np.zeros((*weights.shape[:-2], *image_size), weights.dtype)
    placed[..., rows, columns] = weights[..., from_rows, from_columns]
    return placed


def plot_attention(images, weights, positions, input_size=None, title=None):
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
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ImportError: If matplotlib is missing.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import attention_maps, plot_attention
    >>> from keras_sasa.applications import ResNet
    >>> model = ResNet((1,), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> images = np.random.uniform(size=(2, 16, 16, 3)).astype("float32")
    >>> maps = attention_maps(model, images)["group1_block1_attention"]
    >>> figure = plot_attention(images, maps[:, 8, 4], [(8, 4), (8, 4)])
    >>> len(figure.axes)
    18
    """
    figure_class = _figure_class()
    images, weights = np.asarray(images), np.asarray(weights)
    height, width = images.shape[1:3]
    input_size = input_size or (height, width)
    columns = 1 + weights.shape[1]
    figure = figure_class(
        figsize=(1.25 * columns, 1.4 * len(images) + 0.7),
        layout="constrained",
    )
    if title:
        figure.suptitle(title)
    axes = figure.subplots(len(images), columns, squeeze=False)
    # Drawn in the pixels of the layer's input, whatever those of the image.
    extent = (-0.5, input_size[1] - 0.5, input_size[0] - 0.5, -0.5)
    for row, (image, heads, position) in enumerate(
        zip(images, weights, positions, strict=True)
    ):
        gray = _to_unit_range(image.mean(axis=-1))
        axes[row, 0].imshow(
            _to_unit_range(image) if image.shape[-1] == 3 else gray,
            cmap="gray",
            extent=extent,
        )
        inside = window_in_image(
            np.ones(heads.shape[-2:]), *position, input_size
        )
        placed = window_in_image(heads, *position, input_size)
        for head, (axis, values) in enumerate(
            zip(axes[row, 1:], placed, strict=True)
        ):
            # Pale, so that it is not taken for weights.
            axis.imshow(
                0.7 + 0.3 * gray, cmap="gray", vmin=0, vmax=1, extent=extent
            )
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


def plot_history(history, title=None):
    """Draws loss and metrics of a training, epoch by epoch.

    Args:
        history: What `model.fit` returned, or its dict `history.history`.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure` with one pair of axes for the loss and
        one for each metric; `figure.savefig(path)` writes it.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is nothing to draw.

    Example:

    >>> from keras_sasa.visualize import plot_history
    >>> figure = plot_history({"loss": [2.0, 1.0], "val_loss": [2.1, 1.4]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss']
    """
    figure_class = _figure_class()
    values = getattr(history, "history", history)
    names = [
        name
        for name in values
        if not name.startswith("val_") and name != "learning_rate"
    ]
    names.sort(key="loss".__ne__)  # The loss first; Keras goes by the alphabet.
    if not names:
        raise ValueError(
            "`history` must hold the loss of at least one epoch. "
            f"Received: history={values!r}."
        )
    figure = figure_class(figsize=(4.5 * len(names), 3.4), layout="constrained")
    if title:
        figure.suptitle(title)
    for axes, name in zip(
        figure.subplots(1, len(names), squeeze=False)[0], names, strict=True
    ):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in values:
                epochs = np.arange(1, len(values[key]) + 1)
                axes.plot(epochs, values[key], marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def plot_confusion(confusion, class_names, title=None):
    """Draws which classes a model takes for which.

    Args:
        confusion: Array of integers `(classes, classes)`: the number of images
            of the class of the row that were taken for that of the column.
        class_names: List of strings, one for each class.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`. A cell shows its share of the row, in
        figures too where there are at most twelve classes.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If the shapes do not fit each other.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.visualize import plot_confusion
    >>> figure = plot_confusion(np.array([[9, 1], [2, 8]]), ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['90', '10', '20', '80']
    """
    figure_class = _figure_class()
    confusion = np.asarray(confusion)
    number = len(class_names)
    if confusion.shape != (number, number):
        raise ValueError(
            "`confusion` must have a row and a column for each of the "
            f"{number} `class_names`. Received: shape {confusion.shape}."
        )
    # A class without an image has a row of zeros.
    percent = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = min(3.0 + 0.4 * number, 12.0)
    figure = figure_class(figsize=(side + 0.8, side), layout="constrained")
    if title:
        figure.suptitle(title)
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


def plot_detections(images, detections, class_names, title=None):
    """Draws boxes with their class and score over images.

    Args:
        images: List of arrays `(height, width, channels)` of any size; 1
            channel is drawn in gray, 3 channels are RGB.
        detections: List of a dict for each image: `"boxes"` `(num_boxes, 4)`,
            "xyxy" in pixels, integers `"labels"`, and `"scores"` or not.
        class_names: List of strings, one for each label.
        title: String above the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is not one dict for each image, or no image.

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
    figure_class = _figure_class()
    if not images or len(images) != len(detections):
        raise ValueError(
            "`detections` must hold a dict for each of at least one image. "
            f"Received: {len(detections)} for {len(images)} images."
        )
    columns = min(len(images), 4)
    rows = -(-len(images) // columns)
    height, width = np.mean([np.shape(image)[:2] for image in images], axis=0)
    figure = figure_class(
        figsize=(3.2 * columns, 3.2 * rows * height / width),
        layout="constrained",
    )
    if title:
        figure.suptitle(title)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.axis("off")
    for axes, image, found in zip(all_axes, images, detections, strict=False):
        pixels = _to_unit_range(image)
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

    # Pixels are drawn around their index: the first begins at -0.5.
    left, top, right, bottom = np.asarray(box) - 0.5
    axes.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=color,
            lw=1.2,
        )
    )
    axes.text(
        left,
        top,
        text,
        fontsize=6,
        color="white",
        va="bottom",
        clip_on=True,
        bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8},
    )


def _attention_calls(model):
    """Finds the calls of attention layers, those of inner models included.

    Returns:
        A dict from the name of a call to the nodes that lead to it: those of
        the inner models, outermost first, then that of the layer.
    """
    nodes = _nodes(model)
    calls = {}
    for layer in model.layers:
        number = 0
        for node in nodes:
            if node.operation is not layer:
                continue
            name = f"{layer.name}:{number}" if number else layer.name
            if isinstance(layer, SelfAttention2D):
                calls[name] = (node,)
            elif isinstance(layer, keras.Model):
                calls.update(
                    (f"{name}/{inner}", (node, *path))
                    for inner, path in _attention_calls(layer).items()
                )
            number += 1
    return calls


def _nodes(model):
    """Returns the layer calls that the outputs of a model come from.

    `layer.input` would be the first call of a layer, which for a shared layer
    may be in another model.
    """
    outputs = getattr(model, "outputs", None)
    if not outputs:
        raise ValueError(
            "`model` must be a functional or a built sequential "
            "`keras.Model`, whose layers are known without a call. "
            f"Received: model={model!r}."
        )
    found = {}
    tensors = list(outputs)
    while tensors:
        history = tensors.pop()._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) not in found:
            found[id(node)] = node
            tensors.extend(node.input_tensors)
    return sorted(found.values(), key=_call_number)


def _call_number(node):
    return node.operation._inbound_nodes.index(node)


def _weights(model, inputs, calls, prefix=""):
    """Yields the names and the attention weights of calls in a model."""
    paths = {}
    for name, (node, *inner) in calls.items():
        paths.setdefault(id(node), (node, {}))[1][name] = inner
    tensors = {
        str(id(tensor)): tensor
        for node, _ in paths.values()
        for tensor in node.input_tensors
    }
    values = keras.Model(model.inputs, tensors)(
        keras.tree.flatten(inputs), training=False
    )
    values = {int(key): value for key, value in values.items()}
    for node, inner in paths.values():
        arguments, options = node.arguments.fill_in(values)
        options["training"] = False
        if isinstance(node.operation, SelfAttention2D):
            options["return_attention_scores"] = True
            _, scores = node.operation(*arguments, **options)
            scores = ops.convert_to_numpy(ops.cast(scores, "float32"))
            yield from ((name, scores) for name in inner)
        else:
            yield from _weights(node.operation, arguments[0], inner)


def _clip(position, kernel_size, image_size, dilation_rate):
    """Returns where a window lies along an axis, and which part of it."""
    places = position + dilation_rate * (
        np.arange(kernel_size) - kernel_size // 2
    )
    kept = np.flatnonzero((places >= 0) & (places < image_size))
    first, last = kept[0], kept[-1]
    return (
        slice(places[first], places[last] + 1, dilation_rate),
        slice(first, last + 1),
    )


def _to_unit_range(image):
    image = np.asarray(image, "float32")
    low, high = image.min(), image.max()
    return (image - low) / max(high - low, 1e-12)


def _frame(axis, position):
    from matplotlib.patches import Rectangle

    row, column = position
    axis.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5), 1, 1, fill=False, color="red", lw=1.5
        )
    )
    axis.set_xticks([])
    axis.set_yticks([])


def _figure_class():
    # Not pyplot, which would choose a window system and keep the figure.
    return needs("matplotlib.figure", "matplotlib", extra="plots").Figure
