"""Attention with the steps of the network that follow, against pixel loops."""

import functools

import keras
import numpy as np
import pytest

from keras_sasa.ops.local_attention import IMPLEMENTATIONS, projected_attention
from keras_sasa.ops.local_attention.epilogue import Epilogue
from keras_sasa.ops.local_attention.position import RowColumnEmbeddings
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.projections import Projections
from keras_sasa.ops.local_attention.window import window_axes
from tests.support import oracle
from tests.support.backend import BACKEND, MODES, value_and_gradients
from tests.support.cases import Reference, central_differences
from tests.support.parameters import product

CHANNELS, FILTERS, HEADS = 3, 4, 2
PROJECTIONS = ("query_kernel", "key_kernel", "value_kernel")
EMBEDDINGS = ("row_embedding", "column_embedding")

# Sizes of the map, arguments of the window and steps.
CASES = {
    "scale": ((4, 5), {}, {}),
    "relu": ((4, 5), {}, {"relu": True}),
    "pool": ((4, 6), {}, {"relu": True, "pool": 2}),
    "pool_odd_map": ((5, 3), {}, {"relu": True, "pool": 2}),
    "pool_one_pixel": ((1, 1), {}, {"pool": 2}),
    "dilation": ((5, 5), {"dilation_rate": 2}, {"relu": True, "pool": 2}),
    "strides": ((5, 5), {"strides": 2}, {"relu": True}),
    "valid": ((5, 5), {"padding": "valid"}, {"relu": True, "pool": 2}),
    "bias": ((4, 5), {"use_bias": True}, {"relu": True, "pool": 2}),
}


class AttentionWithEpilogue(keras.Layer):
    """Holds weights by name, and passes them to the function."""

    def __init__(self, arrays, window, steps, implementation, dtype):
        super().__init__(dtype=dtype)
        self.problem = Problem(
            *window_axes(3, **window), HEADS, position=RowColumnEmbeddings()
        )
        self.steps, self.implementation = steps, implementation
        for name, array in arrays.items():
            weight = self.add_weight(shape=array.shape, name=name)
            weight.assign(array)
            setattr(self, name, weight)

    def call(self, inputs):
        def biases(names):
            names = (name.replace("kernel", "bias") for name in names)
            return [getattr(self, name, None) for name in names]

        def weights(names):
            return [getattr(self, name) for name in names]

        return projected_attention(
            self.problem,
            inputs,
            Projections(*weights(PROJECTIONS), *biases(PROJECTIONS)),
            weights(EMBEDDINGS),
            epilogue=Epilogue(self.scale, self.offset, **self.steps),
            training=False,
            implementation=self.implementation,
        )


def make_arrays(size, use_bias):
    random = np.random.default_rng(0)
    shapes = dict.fromkeys(PROJECTIONS, (CHANNELS, FILTERS))
    shapes.update(dict.fromkeys(EMBEDDINGS, (3, HEADS, FILTERS // HEADS // 2)))
    shapes.update(scale=(FILTERS,), offset=(FILTERS,))
    if use_bias:
        shapes.update((f"{name[:-6]}bias", (FILTERS,)) for name in PROJECTIONS)
    weights = {
        name: random.normal(size=shape) for name, shape in shapes.items()
    }
    return random.normal(size=(2, *size, CHANNELS)), weights


@functools.cache
def reference(name):
    """Inputs, weights, outputs, and their derivatives along directions."""
    size, window, steps = CASES[name]
    window = dict(window)
    inputs, weights = make_arrays(size, window.pop("use_bias", False))

    def loop(arrays):
        arrays = dict(arrays)
        outputs, _ = oracle.self_attention_2d(
            arrays.pop("inputs"),
            arrays,
            num_heads=HEADS,
            kernel_size=3,
            **window,
        )
        outputs = oracle.epilogue(
            outputs, arrays["scale"], arrays["offset"], **steps
        )
        return (outputs,)

    arrays = {"inputs": inputs, **weights}
    (expected,) = loop(arrays)
    directions, changes = central_differences(loop, arrays)
    return inputs, weights, Reference(expected, None, directions, changes)


@pytest.mark.parametrize(
    "implementation, mode, name",
    product(
        sorted(IMPLEMENTATIONS),
        MODES,
        CASES,
        quick=lambda implementation, mode, name: (
            mode == "eager"
            or name == "pool_odd_map"
            and (BACKEND == "jax" or implementation == "native")
        ),
    ),
)
def test_values_and_gradients(implementation, mode, name):
    _, window, steps = CASES[name]
    window = {key: window[key] for key in window if key != "use_bias"}
    inputs, weights, expected = reference(name)
    cotangent = np.random.default_rng(1).normal(size=expected.outputs.shape)
    dtype = "float32" if implementation == "native" else "float64"
    layer = AttentionWithEpilogue(weights, window, steps, implementation, dtype)
    result = value_and_gradients(
        layer, inputs.astype(dtype), cotangent, mode=mode
    )
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-4}
        if implementation == "native"
        else {"rtol": 1e-6, "atol": 1e-7}
    )
    np.testing.assert_allclose(result.outputs, expected.outputs, **tolerance)
    expected.check_gradients(result.gradients, cotangent, **tolerance)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"scale": (1,)}, r"`epilogue.scale` must have.*\(4,\).*\(1,\)"),
        ({"offset": (4, 1)}, r"`epilogue.offset` must have.*\(4, 1\)"),
        ({"pool": 0}, "`epilogue.pool` must be 1 or 2.*pool=0"),
        ({"pool": 3}, "`epilogue.pool` must be 1 or 2.*pool=3"),
    ],
)
def test_checks(change, words):
    inputs, weights = make_arrays((4, 5), use_bias=False)
    steps = {"pool": change["pool"]} if "pool" in change else {}
    for name, shape in change.items():
        if name != "pool":
            weights[name] = np.ones(shape)
    layer = AttentionWithEpilogue(weights, {}, steps, None, "float32")
    with pytest.raises(ValueError, match=words):
        layer(inputs)
