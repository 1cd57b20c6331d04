"""Slices against slices of NumPy."""

import keras
import numpy as np
import pytest

from keras_sasa.ops.slices import subsample, take_range
from tests.support.backend import BACKEND, MODES, value_and_gradients


def check_slice(function, shape, index, mode):
    """Numbers go through unchanged, and gradients to where they came from."""
    random = np.random.default_rng(0)
    maps = random.normal(size=shape).astype("float32")
    maps[:, ::2, 1:] = np.nan
    maps[:, 1::2, :1] = np.inf
    expected = maps[index]
    cotangent = random.normal(size=expected.shape).astype("float32")
    gradient = np.zeros(shape, "float32")
    gradient[index] = cotangent
    result = value_and_gradients(
        keras.layers.Identity(),
        maps,
        cotangent,
        mode=mode,
        function=function,
    )
    np.testing.assert_array_equal(result.outputs, expected)
    np.testing.assert_array_equal(result.gradients["inputs"], gradient)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shape, rows, columns",
    [
        ((2, 7, 6, 3), slice(None, None, 2), slice(None, None, 3)),
        ((1, 9, 8, 2), slice(3, -3, 2), slice(2, -2, 1)),
        ((2, 1, 1, 4), slice(None, None, 2), slice(None, None, 2)),
        ((0, 5, 5, 2), slice(None, None, 2), slice(None, None, 2)),
    ],
)
def test_subsample(shape, rows, columns, mode):
    check_slice(
        lambda images: subsample(images, rows, columns),
        shape,
        (slice(None), rows, columns),
        mode,
    )


# XLA gives TensorFlow's gradient of an empty slice a wrong shape.
@pytest.mark.parametrize(
    "mode", [mode for mode in MODES if BACKEND == "jax" or "jit" not in mode]
)
@pytest.mark.parametrize(
    "shape, rows",
    [((2, 0, 3, 1), slice(None, None, 2)), ((2, 4, 3, 1), slice(0, 0, 2))],
)
def test_subsample_of_no_rows(shape, rows, mode):
    columns = slice(1, None, 2)
    check_slice(
        lambda images: subsample(images, rows, columns),
        shape,
        (slice(None), rows, columns),
        mode,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("axis, first, count", [(1, 2, 3), (3, 0, 1)])
def test_take_range(axis, first, count, mode):
    check_slice(
        lambda maps: take_range(maps, axis, first, count),
        (2, 7, 6, 3),
        (slice(None),) * axis + (slice(first, first + count),),
        mode,
    )
