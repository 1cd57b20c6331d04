"""The calls of attention layers in a model, and what goes into them."""

import collections
import dataclasses
import graphlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sasa.layers import SelfAttention2D
from keras_sasa.ops.local_attention import geometry

# Images that are computed together where a result is small.
_TOGETHER = 8


@dataclasses.dataclass(frozen=True)
class AttentionCall:
    """One call of an attention layer with its inputs.

    Args:
        name: Name of the call in the model.
        layer: The `SelfAttention2D`.
        arguments: Positional arguments of the call.
        options: Arguments by name.
    """

    name: str
    layer: SelfAttention2D
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
        layer = self.layer
        axes = geometry.axes(
            layer.kernel_size,
            layer.strides,
            layer.padding,
            layer.dilation_rate,
        )
        return tuple(
            np.arange(size)[axis.queries()]
            for axis, size in zip(axes, self.input_size, strict=True)
        )


def offsets(layer):
    """Returns how far keys are below and to the right of their query."""
    return tuple(
        rate * (np.arange(size) - size // 2)
        for rate, size in zip(
            layer.dilation_rate, layer.kernel_size, strict=True
        )
    )


def find_calls(model, layers=None):
    """Finds calls of attention layers.

    Args:
        model: A `keras.Model`.
        layers: Names of calls, a list or a single string; `None` for all.

    Returns:
        A dict from the name of a call, in the order of the model, to the nodes
        that lead to it: those of the inner models, outermost first, then that
        of the layer.

    Raises:
        ValueError: If the model is not functional, if there is no
            `SelfAttention2D` in it, or none of the name asked for.
    """
    calls = _all_calls(model)
    if not calls:
        hidden = [
            layer.name
            for layer in model._flatten_layers()
            if isinstance(layer, SelfAttention2D)
        ]
        raise ValueError(
            "`model` must contain at least one `SelfAttention2D` layer, in "
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


def _all_calls(model):
    nodes = sorted(_nodes_before(outputs_of(model)), key=_call_number)
    calls = {}
    for layer in model.layers:
        number = 0
        for node in nodes:
            if node.operation is not layer:
                continue
            name = f"{layer.name}:{number}" if number else layer.name
            if isinstance(layer, SelfAttention2D):
                calls[name] = (node,)
            # The calls in a subclassed model are not known.
            elif isinstance(layer, keras.Model) and has_graph(layer):
                calls.update(
                    (f"{name}/{inner}", (node, *path))
                    for inner, path in _all_calls(layer).items()
                )
            number += 1
    return calls


def outputs_of(model):
    """Returns the symbolic outputs of a functional model."""
    if not has_graph(model):
        raise ValueError(
            "`model` must be a functional or a built sequential "
            "`keras.Model`, whose layers are known without a call. "
            f"Received: model={model!r}."
        )
    return model.outputs


def has_graph(model):
    return bool(getattr(model, "outputs", None))


def first_argument(arguments, options):
    """Returns what a layer or a model is called with, also if by name."""
    return arguments[0] if arguments else options["inputs"]


def node_of(tensor):
    """Returns the call that a symbolic tensor comes from.

    `layer.input` would be the first call of a layer, which for a shared layer
    may be in another model.
    """
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _nodes_before(tensors):
    """Returns the calls that tensors come from, in an order of computation."""
    before = {}
    nodes = [node_of(tensor) for tensor in tensors]
    while nodes:
        node = nodes.pop()
        if node not in before:
            before[node] = [node_of(tensor) for tensor in node.input_tensors]
            nodes.extend(before[node])
    return list(graphlib.TopologicalSorter(before).static_order())


def _call_number(node):
    return node.operation._inbound_nodes.index(node)


def attention_calls(model, inputs, calls, mask=None):
    """Yields an `AttentionCall` for each of `calls` that `find_calls` found.

    They come in an order of computation. What is not needed for those to come
    is let go of, so that the memory in use is that of few layers.
    """
    inside = {}
    for name, (node, *path) in calls.items():
        inside.setdefault(node, {})[name] = path
    wanted = list(inside)
    for node, arguments, options in run_up_to(model, inputs, wanted, mask):
        if isinstance(node.operation, SelfAttention2D):
            (name,) = inside[node]
            yield AttentionCall(name, node.operation, arguments, options)
        else:
            yield from attention_calls(
                node.operation,
                first_argument(arguments, options),
                inside[node],
                options.get("mask"),
            )


def run_up_to(model, inputs, wanted, mask=None):
    """Runs a model call by call, as far as some calls in it.

    Unlike `model(inputs)`, which keeps the output of every layer to the end,
    it lets go of what no later call needs.

    Args:
        model: A functional `keras.Model`.
        inputs: What the model takes.
        wanted: List of nodes of the model.
        mask: What the model is called with as such, if anything.

    Yields:
        Each wanted node, its positional arguments, and those by name.
    """
    nodes = _nodes_before([node.outputs[0] for node in wanted])
    uses = collections.Counter(
        id(tensor) for node in nodes for tensor in node.input_tensors
    )
    values = dict(
        zip(
            map(id, model.inputs),
            as_declared(model, inputs, mask),
            strict=True,
        )
    )
    for node in nodes:
        if node.is_input:
            continue
        arguments, options = node.arguments.fill_in(values)
        # Keras' augmentations are of training unless they are told.
        if isinstance(node.operation, keras.Layer):
            options["training"] = False
        if node in wanted:
            yield node, arguments, options
        if any(uses[id(tensor)] for tensor in node.outputs):
            outputs = node.operation(*arguments, **options)
            values.update(
                (id(tensor), output)
                for tensor, output in zip(
                    node.outputs, keras.tree.flatten(outputs), strict=True
                )
                if uses[id(tensor)]
            )
            # Not held to the next call.
            del outputs
        for tensor in node.input_tensors:
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                del values[id(tensor)]


def as_declared(model, inputs, mask=None):
    """Returns a list of tensors, one for each of `model.inputs`.

    Keras finds those that are given by name, and brings all to the dtype and
    the number of axes of the model.
    """
    structure = model.inputs if len(model.inputs) == 1 else model.input
    leaves = keras.tree.flatten(inputs)
    if len(leaves) == 1:
        # Keras warns where one input is in a list and was declared otherwise.
        inputs = leaves
    declared = keras.Model(structure, list(model.inputs), name=model.name)
    return keras.tree.flatten(declared(inputs, mask=mask))


def as_batch(model, images):
    """Returns what a model takes, with lists of numbers as arrays.

    Raises:
        ValueError: If there is no image, or if inputs have different numbers
            of them.
    """
    outputs_of(model)  # Raises where the inputs are not known either.
    if len(model.inputs) == 1 and isinstance(images, (list, tuple)):
        try:
            images = np.asarray(images)
        except ValueError as error:
            raise ValueError(
                f"`images` must be an array, or lists of equal lengths: {error}"
            ) from error
        # A list of the one input, as Keras takes it too.
        if images.ndim > len(model.inputs[0].shape) and len(images) == 1:
            (images,) = images
    # `None` is for an optional input.
    shapes = [
        tuple(np.shape(array))
        for array in keras.tree.flatten(images)
        if array is not None
    ]
    batches = {shape[:1] for shape in shapes}
    if len(batches) != 1 or batches & {(), (0,)}:
        raise ValueError(
            "`images` must be at least one image, and as many in each input of "
            f"{model.name!r}. Received: shapes {shapes}."
        )
    return images


def in_parts(model, images):
    """Yields what a model takes, a few images at a time."""
    inputs = as_batch(model, images)
    arrays = [each for each in keras.tree.flatten(inputs) if each is not None]
    for first in range(0, len(arrays[0]), _TOGETHER):
        part = slice(first, first + _TOGETHER)
        yield keras.tree.map_structure(
            lambda array, at=part: None if array is None else array[at], inputs
        )


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))
