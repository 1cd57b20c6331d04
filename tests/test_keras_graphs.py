"""The one module that uses private parts of Keras."""

import gc
import pathlib
import re
import weakref

import keras
import numpy as np
import pytest
from keras import layers

import keras_sasa
from keras_sasa._keras_graphs import (
    all_layers,
    call_of,
    calls_before,
    check_graph,
    has_graph,
    run_calls,
    run_with,
    standardized_inputs,
)

PRIVATE = re.compile(
    r"\._(flatten_layers|keras_history|inbound_nodes|outbound_nodes|nodes\w*|"
    r"run_through_graph|operations_by_depth|layers|functional)\b"
    r"|(import|from) keras\.src"
)


class Noise(layers.Layer):
    """Adds 1, unless it is called in inference mode."""

    def call(self, inputs, training=True):
        return inputs + (1.0 if training else 0.0)


def shared_layer_model():
    """`relu` is called twice, and after that once more in another model."""
    relu = layers.ReLU(name="relu")
    inputs = keras.Input((4,), name="inputs")
    x = relu(inputs)
    x = Noise(name="noise")(x)
    outputs = layers.Add(name="add")([relu(x), x])
    model = keras.Model(inputs, outputs, name="shared")
    relu(keras.Input((3,)))
    return model


def test_no_other_module_uses_private_parts_of_keras():
    package = pathlib.Path(keras_sasa.__file__).parent
    users = [
        path.name
        for path in package.rglob("*.py")
        if PRIVATE.search(path.read_text(encoding="utf-8"))
    ]
    assert users == ["_keras_graphs.py"]


def test_call_of():
    model = shared_layer_model()
    add = call_of(model.outputs[0])
    assert add.operation is model.get_layer("add")
    second_relu, noise = (call_of(tensor) for tensor in add.input_tensors)
    assert noise.operation is model.get_layer("noise")
    assert second_relu.operation is model.get_layer("relu")
    assert second_relu.index == 1
    first_relu = call_of(noise.input_tensors[0])
    assert first_relu.operation is second_relu.operation
    assert first_relu.index == 0
    assert first_relu != second_relu
    assert first_relu == call_of(noise.input_tensors[0])
    inputs = call_of(first_relu.input_tensors[0])
    assert inputs.is_input and not first_relu.is_input
    assert inputs.output_tensors[0] is model.inputs[0]


def test_arguments_of_a_call():
    inputs = keras.Input((4,))
    outputs = layers.Add()([inputs, inputs])
    arguments, options = call_of(outputs).arguments({id(inputs): "value"})
    assert arguments == (["value", "value"],)
    assert options == {}


def test_calls_before():
    model = shared_layer_model()
    names = [call.operation.name for call in calls_before(model.outputs)]
    assert names == ["inputs", "relu", "noise", "relu", "add"]
    noise = model.get_layer("noise").output
    assert [call.operation.name for call in calls_before([noise])] == [
        "inputs",
        "relu",
        "noise",
    ]


def test_has_graph():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    model = shared_layer_model()
    built = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    check_graph(model)
    check_graph(built)
    unbuilt = keras.Sequential([layers.Dense(2)])
    function = keras.Function(model.inputs, model.outputs)
    assert has_graph(function)
    for other in (Subclassed(), unbuilt, layers.Dense(2), None):
        assert not has_graph(other)
    for other in (Subclassed(), unbuilt, function, None):
        with pytest.raises(ValueError, match="must be a functional or a built"):
            check_graph(other)


def test_all_layers():
    model = shared_layer_model()
    outer = keras.Sequential(
        [keras.Input((4,)), model, layers.Dense(2, name="dense")],
        name="outer",
    )
    names = {layer.name for layer in all_layers(outer)}
    assert {"outer", "shared", "relu", "noise", "add", "dense"} <= names
    assert len(all_layers(outer)) == len(set(map(id, all_layers(outer))))
    inside = all_layers(outer, include_self=False)
    assert outer not in inside and model in inside


def test_run_with():
    model = shared_layer_model()
    called = []

    def replace(operation):
        def compute(*arguments, **options):
            called.append(operation.name)
            return operation(*arguments, **options)

        return compute

    inputs = np.array([[-1.0, 0.0, 1.0, 2.0]], "float32")
    outputs = run_with(model, inputs, replace)
    assert called == ["relu", "noise", "relu", "add"]
    np.testing.assert_allclose(outputs, 2 * (np.maximum(inputs, 0) + 1))


def test_run_calls():
    model = shared_layer_model()
    calls = calls_before(model.outputs)
    wanted = [call for call in calls if call.operation.name == "relu"]
    inputs = np.array([[-1.0, 0.0, 1.0, 2.0]], "float32")
    seen = [
        (call.index, np.array(arguments[0]), options)
        for call, arguments, options in run_calls(model, inputs, wanted)
    ]
    assert [index for index, *_ in seen] == [0, 1]
    np.testing.assert_array_equal(seen[0][1], inputs)
    # `Noise` ran in inference mode.
    np.testing.assert_array_equal(seen[1][1], np.maximum(inputs, 0))
    assert all(options == {"training": False} for *_, options in seen)


def test_run_calls_computes_nothing_behind_the_last_call():
    called = []

    class Counted(layers.Layer):
        def call(self, inputs):
            called.append(self.name)
            return inputs

        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    x = inputs = keras.Input((2,))
    for name in "abc":
        x = Counted(name=name)(x)
    model = keras.Model(inputs, x)
    wanted = [call_of(model.get_layer("b").output)]
    assert len(list(run_calls(model, np.ones((1, 2)), wanted))) == 1
    assert called == ["a"]


def test_run_calls_frees_tensors_after_their_last_use():
    alive = weakref.WeakSet()
    most = []

    class Tracked:
        """A value that is no tensor, so that nobody else keeps it."""

    class Make(layers.Layer):
        def __call__(self, *args, **kwargs):
            if isinstance(args[0], keras.KerasTensor):
                return super().__call__(*args, **kwargs)
            gc.collect()
            most.append(len(alive))
            value = Tracked()
            alive.add(value)
            return value

        def call(self, inputs):
            return inputs

    x = inputs = keras.Input((2,))
    for _ in range(5):
        x = Make()(x)
    model = keras.Model(inputs, x)
    for _ in run_calls(model, np.ones((1, 2)), [call_of(x)]):
        pass
    # The input of the call, never those before it.
    assert most == [0, 1, 1, 1]


def test_standardized_inputs():
    first, second = keras.Input((2,), name="a"), keras.Input((1,), name="b")
    model = keras.Model(
        {"a": first, "b": second}, layers.Add()([first, second])
    )
    values = {"b": np.zeros((3,), "float64"), "a": np.ones((3, 2), "float64")}
    tensors = standardized_inputs(model, values)
    shapes = [tuple(tensor.shape) for tensor in tensors]
    assert shapes == [(3, 2), (3, 1)]
    assert all(
        keras.backend.standardize_dtype(x.dtype) == "float32" for x in tensors
    )
