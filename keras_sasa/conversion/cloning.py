"""Clones of functional and sequential models, with some layers replaced."""

import tempfile

import keras

from keras_sasa._keras_graphs import (
    all_layers,
    call_of,
    has_graph,
    takes_graph,
)


class Cloner:
    """Clones models with other layers in place of chosen ones.

    `keras.models.clone_model` does not copy weights, nor the state of layers
    that have been adapted to data, and it opens no models inside the model.

    Args:
        chosen: Layers to replace.
        call_replacement: Function that is called in place of a chosen layer:
            with the layer, then with the arguments of the call.
    """

    def __init__(self, chosen, call_replacement):
        self._chosen = {id(layer) for layer in chosen}
        self._call_replacement = call_replacement
        # Keyed by identity, so that the clone shares what the model shares.
        self._copies = {}

    def clone(self, model):
        """Returns a clone with new weights.

        It has the class of the model if that class can be made from inputs
        and outputs.
        """
        sequential = isinstance(model, keras.Sequential)
        # A sequential model that was never called has no `input`.
        inputs = model.inputs if sequential else model.input
        outputs = model.outputs if sequential else model.output
        # Keras would also compile the clone of a compiled model, or fail to.
        graph = keras.Model(inputs, outputs, name=model.name)
        clone = keras.models.clone_model(
            graph,
            # Keras would lose the names of the input layers.
            input_tensors=keras.tree.map_structure(_copy_input, inputs),
            clone_function=self._copy,
            call_function=self._call,
        )
        if sequential:
            return keras.Sequential(clone.layers, name=model.name)
        if type(clone) is not type(model) and takes_graph(type(model)):
            return type(model)(clone.input, clone.output, name=model.name)
        return clone

    def copy_weights(self):
        """Copies the weights of all layers that stay, frozen as they were."""
        for operation, copy in self._copies.values():
            if not _has_own_state(operation):
                continue
            copy.set_weights(operation.get_weights())
            for weight, copied in zip(
                operation.weights, copy.weights, strict=True
            ):
                # A weight may be frozen in a layer that is not.
                if not weight.trainable:
                    copied.trainable = False
            for layer in all_layers(copy):
                # It computes with constants derived from its weights.
                if isinstance(layer, keras.layers.Normalization):
                    layer.finalize_state()

    def _copy(self, operation):
        if id(operation) in self._chosen:
            # Replaced when it is called, since its input matters.
            return operation
        if id(operation) not in self._copies:
            if has_graph(operation):
                copy = self.clone(operation)
            else:
                copy = _copy_operation(operation)
            self._copies[id(operation)] = operation, copy
        return self._copies[id(operation)][1]

    def _call(self, operation, *args, **kwargs):
        if id(operation) not in self._chosen:
            return operation(*args, **kwargs)
        return self._call_replacement(operation, *args, **kwargs)


def _has_own_state(operation):
    """Returns whether it is a layer; models have their state in layers."""
    return isinstance(operation, keras.layers.Layer) and not has_graph(
        operation
    )


def _copy_operation(operation):
    try:
        copy = type(operation).from_config(operation.get_config())
    except Exception as error:
        raise ValueError(
            f"Layer {operation.name!r} cannot be cloned from its configuration "
            f"({type(error).__name__}: {error})."
        ) from error
    if _has_own_state(operation):
        try:
            # Before it is called: outputs may be as wide as a vocabulary.
            _copy_assets(operation, copy)
        except Exception as error:
            raise ValueError(
                f"Layer {operation.name!r} cannot be cloned with its state "
                f"({type(error).__name__}: {error})."
            ) from error
    return copy


def _copy_assets(operation, copy):
    """Copies state that is neither configuration nor weights."""
    layers = [
        [layer for layer in all_layers(whole) if _has_assets(layer)]
        for whole in (operation, copy)
    ]
    for layer, copied in zip(*layers, strict=True):
        variables = {}
        layer.save_own_variables(variables)
        copied.load_own_variables(variables)
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copied.load_assets(folder)
        # Keras' files have an entry per line, even for entries with two lines.
        if (
            hasattr(layer, "get_vocabulary")
            and layer.get_vocabulary() != copied.get_vocabulary()
        ):
            raise ValueError("the file of its vocabulary is not the same.")


def _has_assets(layer):
    return hasattr(layer, "save_assets") and hasattr(layer, "load_assets")


def _copy_input(tensor):
    layer = call_of(tensor).operation
    return type(layer).from_config(layer.get_config()).output
