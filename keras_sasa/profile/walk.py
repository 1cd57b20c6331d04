"""The rows of a profile: a model is walked call by call, on shapes alone."""

import functools
import math

import keras
from keras import layers, tree

from keras_sasa._keras_graphs import run_with
from keras_sasa.profile.layer_flops import find_count
from keras_sasa.profile.report import Row
from keras_sasa.profile.timing import milliseconds


class Walk:
    """Walks through a model call by call, with shapes instead of tensors.

    Args:
        repeats: Integer, how often each call is timed; 0 for no times.

    Attributes:
        rows: List of the `Row`s so far.
    """

    def __init__(self, repeats):
        self.rows = []
        self._repeats = repeats
        self._counted_weights = set()

    def visit(self, operation, name, *args, **kwargs):
        """Adds the rows of one call; returns its symbolic outputs."""
        if isinstance(operation, keras.Function):
            outputs = self.run(operation, name, args)
        elif isinstance(operation, keras.Sequential):
            (outputs,) = args
            for layer in operation.layers:
                outputs = self.visit(layer, _join(name, layer.name), outputs)
        elif graph := _inner_layers(operation, args, kwargs):
            outputs = self.run(graph, name, (args, kwargs))
        else:
            return self._count(operation, name, args, kwargs)
        if name:
            self.add_rest(operation, name)
        return outputs

    def run(self, graph, name, inputs):
        """Adds the rows of all calls in a graph; returns its outputs."""
        outputs = run_with(
            graph,
            _tensors(inputs),
            lambda operation: functools.partial(
                self.visit, operation, _join(name, operation.name)
            ),
        )
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            return outputs[0]
        return outputs

    def _count(self, operation, name, args, kwargs):
        inputs = [tuple(tensor.shape) for tensor in _tensors((args, kwargs))]
        _check_channels(operation, name, inputs)
        inputs = [shape[1:] for shape in inputs]
        outputs = operation.compute_output_spec(*args, **kwargs)
        output = tuple(_tensors(outputs)[0].shape[1:])
        count = find_count(operation)
        flops = time = None
        # Some layers of Keras lose sizes that they could infer.
        known = not any(None in shape for shape in (*inputs, output))
        if count and known:
            flops = count(operation, inputs, output)
        if self._repeats and known:
            time = milliseconds(operation, args, kwargs, self._repeats)
        pair = flops if isinstance(flops, tuple) else (flops, flops)
        self._add_row(operation, name, output, *pair, time)
        return outputs

    def add_rest(self, layer, name):
        """Adds a row for the remaining weights of a layer.

        These are weights of its own, or of layers inside it that it does not
        call.
        """
        if any(id(w) not in self._counted_weights for w in layer.weights):
            self._add_row(layer, name, (), 0, 0)

    def _add_row(self, operation, name, output, *numbers):
        weights = [
            weight
            for weight in getattr(operation, "weights", ())
            if id(weight) not in self._counted_weights
        ]
        self._counted_weights.update(map(id, weights))
        trainable = set(map(id, getattr(operation, "trainable_weights", ())))
        row = Row(
            name,
            type(operation).__name__,
            output,
            _parameters(weights),
            _parameters(w for w in weights if id(w) in trainable),
            *numbers,
        )
        self.rows.append(row)


def _parameters(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def _join(path, name):
    return f"{path}/{name}" if path else name


def _tensors(structure):
    return [
        leaf
        for leaf in tree.flatten(structure)
        if isinstance(leaf, keras.KerasTensor)
    ]


def trace(layer, args, kwargs) -> keras.Function:
    """Returns the graph of the calls that a layer makes."""
    outputs = layer.call(*args, **kwargs)
    return keras.Function(_tensors((args, kwargs)), outputs)


def _inner_layers(operation, args, kwargs) -> keras.Function | None:
    """Returns the graph of an unknown layer that calls other layers."""
    if not isinstance(operation, layers.Layer) or find_count(operation):
        return None
    try:
        graph = trace(operation, args, kwargs)
    except Exception:
        # Its `call` needs real tensors; the layer stays uncounted.
        return None
    made_of_layers = any(
        isinstance(inner, layers.Layer) for inner in graph.operations
    )
    return graph if made_of_layers else None


def _check_channels(operation, name, inputs):
    """Raises `ValueError` if a layer was built for other input shapes."""
    spec = getattr(operation, "input_spec", None)
    for axis, size in (getattr(spec, "axes", None) or {}).items():
        if inputs[0][axis] != size:
            raise ValueError(
                "`input_shape` does not fit the model: axis "
                f"{axis} of the input of layer {name!r} must be {size}. "
                f"Received there, with a batch of 1: {inputs[0]}."
            )
