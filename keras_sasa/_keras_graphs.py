"""Graphs of Keras models: the only module that uses private parts of Keras.

The graph of a functional model consists of calls, and of symbolic tensors that
pass from one call to the next. Keras keeps a record of every call (a `Node`),
but has no public way to read it.
"""

import collections
import dataclasses
import graphlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer, or of a function of `keras.ops`, in a graph.

    Two objects are equal if they stand for the same call.
    """

    _node: Any

    @property
    def operation(self) -> Any:
        """The layer, or the `keras.Operation` behind a function."""
        return self._node.operation

    @property
    def input_tensors(self) -> list[keras.KerasTensor]:
        """The symbolic tensors among the arguments."""
        return self._node.input_tensors

    @property
    def output_tensors(self) -> list[keras.KerasTensor]:
        return self._node.outputs

    @property
    def takes_one_tensor(self) -> bool:
        """Whether all arguments but one tensor are `None`."""
        arguments = self._node.arguments.args
        options = self._node.arguments.kwargs
        return (
            len(arguments) == 1
            and isinstance(arguments[0], keras.KerasTensor)
            and all(option is None for option in options.values())
        )

    @property
    def is_input(self) -> bool:
        """Whether the call takes no tensors, as an `InputLayer` does."""
        return self._node.is_input

    @property
    def index(self) -> int:
        """The number of earlier calls of the same operation, in any model."""
        return self.operation._inbound_nodes.index(self._node)

    def arguments(
        self, values: dict[int, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with values in place of symbolic tensors.

        Args:
            values: Dict from the `id` of each symbolic tensor to its value.

        Returns:
            The positional arguments and the keyword arguments.
        """
        return self._node.arguments.fill_in(values)


def call_of(tensor: keras.KerasTensor) -> Call:
    """Returns the call that a symbolic tensor comes from.

    Unlike `layer.input`, this also works for a layer that is called more than
    once, possibly in several models.

    Example:

    >>> import keras
    >>> from keras_sasa._keras_graphs import call_of
    >>> call = call_of(keras.layers.ReLU(name="relu")(keras.Input((8,))))
    >>> call.operation.name, call.input_tensors[0].shape
    ('relu', (None, 8))
    """
    history = tensor._keras_history
    return Call(history.operation._inbound_nodes[history.node_index])


def calls_before(tensors: Sequence[keras.KerasTensor]) -> list[Call]:
    """Returns all calls that tensors depend on, in an order of computation."""
    before = {}
    waiting = [call_of(tensor) for tensor in tensors]
    while waiting:
        call = waiting.pop()
        if call not in before:
            before[call] = [call_of(tensor) for tensor in call.input_tensors]
            waiting.extend(before[call])
    return list(graphlib.TopologicalSorter(before).static_order())


def has_graph(layer: Any) -> bool:
    """Returns whether the layers of a model are known without a call."""
    return isinstance(layer, (keras.Function, keras.Sequential)) and bool(
        getattr(layer, "outputs", None)
    )


def check_graph(model: Any) -> None:
    """Raises `ValueError` unless a model has a graph."""
    if not isinstance(model, keras.Model) or not has_graph(model):
        raise ValueError(
            "`model` must be a functional or a built sequential "
            "`keras.Model`, whose layers are known without a call. "
            f"Received: model={model!r}."
        )


def takes_graph(model_class: type[keras.Model]) -> bool:
    """Returns whether a class can be made from inputs and outputs.

    Keras loads and clones models with a graph by the same criterion.
    """
    from keras.src.models.functional import functional_like_constructor

    return functional_like_constructor(model_class)


def all_layers(
    layer: keras.Layer, include_self: bool = True
) -> list[keras.Layer]:
    """Returns a layer and all layers inside it, at any depth, once each."""
    return layer._flatten_layers(include_self=include_self)


def run_with(
    graph: keras.Function,
    inputs: Any,
    replace: Callable[[Any], Callable[..., Any]],
) -> Any:
    """Runs a graph with functions in place of its operations.

    Args:
        graph: A `keras.Function`, for instance a functional model.
        inputs: Values for the inputs of the graph, in any structure.
        replace: Function from an operation to the function to call in its
            place.

    Returns:
        The outputs, in the structure of the outputs of the graph.
    """
    return graph._run_through_graph(inputs, operation_fn=replace)


def in_training(training: bool | None) -> bool:
    """Returns whether layers train that are called with this argument now.

    Args:
        training: The argument `training` of a call; `None` takes the value of
            the call around it.
    """
    from keras.src.backend.common import global_state

    if training is None:
        context = global_state.get_global_attribute("current_call_ctx")
        training = context is not None and context.get_value("training")
    return bool(training)


def keras_mask(tensor: Any) -> Any:
    """Returns the mask that Keras passes along with a tensor, or `None`."""
    return getattr(tensor, "_keras_mask", None)


def call_with(
    model: keras.Model,
    inputs: Any,
    training: bool | None,
    functions: Mapping[int, Callable[..., Any]],
) -> Any:
    """Computes the `call` of a functional model with other functions.

    Args:
        model: A functional `keras.Model`.
        inputs: As in its `call`.
        training: As in its `call`.
        functions: The functions to call in place of some operations, by the
            `id` of the operation.

    Returns:
        The outputs, as its `call` returns them.
    """
    from keras.src.models.functional import operation_fn, unpack_singleton

    def replace(operation):
        function = functions.get(id(operation))
        return function or operation_fn(operation, training=training)

    inputs = model._standardize_inputs(inputs)
    return unpack_singleton(run_with(model, inputs, replace))


def run_calls(
    model: keras.Model, inputs: Any, wanted: Sequence[Call], mask: Any = None
) -> Iterator[tuple[Call, tuple[Any, ...], dict[str, Any]]]:
    """Runs a model in inference mode, as far as some of its calls.

    `model(inputs)` keeps the output of every layer until the end. Here a
    tensor is freed after its last use.

    Args:
        model: A functional or built sequential `keras.Model`.
        inputs: Inputs in any form that the model takes.
        wanted: Calls in the graph of the model.
        mask: Value for the argument `mask` of the model.

    Yields:
        Each of the wanted calls, just before it is computed, with its
        positional and its keyword arguments.
    """
    calls = calls_before([call.output_tensors[0] for call in wanted])
    uses = collections.Counter(
        id(tensor) for call in calls for tensor in call.input_tensors
    )
    values = dict(
        zip(
            map(id, model.inputs),
            standardized_inputs(model, inputs, mask),
            strict=True,
        )
    )
    for call in calls:
        if call.is_input:
            continue
        arguments, options = call.arguments(values)
        # Some of Keras' augmentation layers augment unless told otherwise.
        if isinstance(call.operation, keras.Layer):
            options["training"] = False
        if call in wanted:
            yield call, arguments, options
        if any(uses[id(tensor)] for tensor in call.output_tensors):
            outputs = call.operation(*arguments, **options)
            values.update(
                (id(tensor), output)
                for tensor, output in zip(
                    call.output_tensors,
                    keras.tree.flatten(outputs),
                    strict=True,
                )
                if uses[id(tensor)]
            )
            # Otherwise they would live until the next call.
            del outputs
        for tensor in call.input_tensors:
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                del values[id(tensor)]


def standardized_inputs(
    model: keras.Model, inputs: Any, mask: Any = None
) -> list[Any]:
    """Returns inputs as Keras passes them to the layers of a model.

    Args:
        model: A functional or built sequential `keras.Model`.
        inputs: Inputs in any form that the model takes.
        mask: Value for the argument `mask` of the model.

    Returns:
        List of a tensor for each of `model.inputs`, with its dtype and its
        number of axes.
    """
    structure = model.inputs if len(model.inputs) == 1 else model.input
    leaves = keras.tree.flatten(inputs)
    if len(leaves) == 1:
        # Keras warns if a single input is nested differently.
        inputs = leaves
    identity = keras.Model(structure, list(model.inputs), name=model.name)
    return keras.tree.flatten(identity(inputs, mask=mask))
