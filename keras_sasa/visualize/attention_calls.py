"""Calls of attention layers in a model, with their inputs."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sasa._keras_graphs import (
    all_layers,
    calls_before,
    check_graph,
    has_graph,
    run_calls,
)
from keras_sasa.layers import (
    HaloAttention2D,
    NeighborhoodAttention2D,
    SelfAttention2D,
)
from keras_sasa.ops.local_attention.window import window_axes
from keras_sasa.visualize.model_inputs import first_argument, to_numpy

# The layers that attend within windows.
ATTENTION_LAYERS = (SelfAttention2D, NeighborhoodAttention2D, HaloAttention2D)


@dataclasses.dataclass(frozen=True)
class AttentionCall:
    """One call of an attention layer with its inputs.

    Args:
        name: Name of the call in the model.
        layer: The attention layer.
        arguments: Positional arguments of the call.
        options: Keyword arguments of the call.
    """

    name: str
    layer: SelfAttention2D | NeighborhoodAttention2D | HaloAttention2D
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def inputs(self):
        """Tensor `(batch, height, width, channels)`."""
        inputs = first_argument(self.arguments, self.options)
        if self.layer.data_format == "channels_first":
            inputs = ops.transpose(inputs, (0, 2, 3, 1))
        return inputs

    @property
    def input_size(self):
        """Height and width of the input."""
        return tuple(ops.shape(self.inputs)[1:3])

    def weights(self):
        """Computes `(batch, height, width, heads, k, k)` in float32."""
        options = {**self.options, "return_attention_scores": True}
        options["training"] = False
        _, weights = self.layer(*self.arguments, **options)
        return to_numpy(weights)

    def queries(self):
        """Returns the rows and the columns of the input that are queries."""
        return tuple(
            np.arange(size)[axis.queries()]
            for axis, size in zip(self._axes(), self.input_size, strict=True)
        )

    def keys(self):
        """Returns the rows and the columns of the keys of every query.

        Each is `(queries, kernel_size)`. Some lie outside the image.
        """
        return tuple(
            # An image smaller than a window is padded.
            axis.keys(max(size, axis.smallest_size))[:size]
            if axis.shifts
            else queries[:, None] + steps
            for axis, size, queries, steps in zip(
                self._axes(),
                self.input_size,
                self.queries(),
                offsets(self.layer),
                strict=True,
            )
        )

    def centers(self):
        """Returns the rows and the columns in the middle of the windows.

        They are the queries, except where windows move at the border.
        """
        return tuple(keys[:, keys.shape[1] // 2] for keys in self.keys())

    @property
    def windows_move(self):
        """Whether windows move inwards at the border of the image."""
        return any(axis.shifts for axis in self._axes())

    def _axes(self):
        layer = self.layer
        if isinstance(layer, NeighborhoodAttention2D):
            return window_axes(
                layer.kernel_size,
                dilation_rate=layer.dilation_rate,
                border="shift",
            )
        return window_axes(
            layer.kernel_size,
            layer.strides,
            layer.padding,
            layer.dilation_rate,
        )


def offsets(layer):
    """Returns the rows and columns of keys relative to their query."""
    return tuple(
        rate * (np.arange(size) - size // 2)
        for rate, size in zip(
            layer.dilation_rate, layer.kernel_size, strict=True
        )
    )


def find_calls(model, layers=None, classes=(SelfAttention2D,)):
    """Finds calls of attention layers.

    Args:
        model: A `keras.Model`.
        layers: Names of calls, a list or a single string; `None` for all.
        classes: Classes of the layers, some of `ATTENTION_LAYERS`.

    Returns:
        A dict from the name of each call, in the order of the model, to a
        tuple of calls in its graph: the calls of the inner models that contain
        the layer, outermost first, then the call of the layer.

    Raises:
        ValueError: If the model is not functional, contains no such layer, or
            has no call of one of the names.
    """
    check_graph(model)
    calls = _all_calls(model, classes)
    if not calls:
        hidden = [
            layer.name
            for layer in all_layers(model)
            if isinstance(layer, classes)
        ]
        names = " or ".join(f"`{each.__name__}`" for each in classes)
        raise ValueError(
            f"`model` must contain at least one {names} layer, in "
            "itself or in functional models inside it. "
            f"Received: model={model.name!r} with the layers "
            f"{[layer.name for layer in model.layers]}"
            + (f", inside of which are {hidden}." if hidden else ".")
        )
    if layers is None:
        return calls
    one = isinstance(layers, str) or not isinstance(layers, Iterable)
    names = [layers] if one else list(layers)
    if any(name not in list(calls) for name in names):
        raise ValueError(
            f"`layers` must be among {list(calls)}, the attention layers of "
            f"{model.name!r}. Received: layers={layers!r}."
        )
    return {name: call for name, call in calls.items() if name in names}


def _all_calls(model, classes):
    before = sorted(calls_before(model.outputs), key=lambda call: call.index)
    found = {}
    for layer in model.layers:
        calls = [call for call in before if call.operation is layer]
        for number, call in enumerate(calls):
            name = f"{layer.name}:{number}" if number else layer.name
            if isinstance(layer, classes):
                found[name] = (call,)
            # The calls inside a subclassed model are not known.
            elif isinstance(layer, keras.Model) and has_graph(layer):
                found.update(
                    (f"{name}/{inner}", (call, *path))
                    for inner, path in _all_calls(layer, classes).items()
                )
    return found


def attention_calls(model, inputs, calls, mask=None):
    """Yields an `AttentionCall` for each of the calls that `find_calls` found.

    They come in an order of computation. Activations are freed as soon as
    possible, so that only the tensors of a few layers are in memory.
    """
    inside = {}
    for name, (call, *path) in calls.items():
        inside.setdefault(call, {})[name] = path
    for call, arguments, options in run_calls(
        model, inputs, list(inside), mask
    ):
        if isinstance(call.operation, ATTENTION_LAYERS):
            (name,) = inside[call]
            yield AttentionCall(name, call.operation, arguments, options)
        else:
            yield from attention_calls(
                call.operation,
                first_argument(arguments, options),
                inside[call],
                options.get("mask"),
            )
