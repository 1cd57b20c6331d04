"""The time of one call of a layer on its own."""

import statistics
import time

import keras
import numpy as np
from keras import ops, tree

_WARM_UP = 2


def milliseconds(operation, args, kwargs, repeats):
    """Returns the median time of one call, compiled as a graph of its own.

    The time of a graph that only returns its inputs is subtracted, because
    starting a graph takes longer than computing a small layer. The two graphs
    are called in turns.

    Args:
        operation: A layer, a model or an operation of Keras, called as in
            inference.
        args: Its positional arguments. Each `keras.KerasTensor` in them stands
            for a tensor of random numbers.
        kwargs: Its keyword arguments, likewise.
        repeats: Integer, number of timed calls.

    Returns:
        Float.
    """
    arguments = (args, kwargs)
    symbols = [
        leaf
        for leaf in tree.flatten(arguments)
        if isinstance(leaf, keras.KerasTensor)
    ]

    def call(*tensors):
        by_symbol = dict(zip(map(id, symbols), tensors, strict=True))
        args, kwargs = tree.map_structure(
            lambda leaf: by_symbol.get(id(leaf), leaf), arguments
        )
        return operation(*args, **kwargs)

    tensors = [_random(symbol) for symbol in symbols]
    times = {_compiled(call): [], _compiled(lambda *tensors: tensors): []}
    for _ in range(_WARM_UP + repeats):
        for compiled, seconds in times.items():
            start = time.perf_counter()
            outputs = compiled(*tensors)
            # Backends may return before the result has been computed.
            ops.convert_to_numpy(tree.flatten(outputs)[0])
            seconds.append(time.perf_counter() - start)
    whole, empty = (
        statistics.median(seconds[_WARM_UP:]) for seconds in times.values()
    )
    return max(0.0, 1e3 * (whole - empty))


def _compiled(function):
    """Compiles a function as Keras does for `predict` on a CPU."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    import jax

    return jax.jit(function)


def _random(symbol):
    numbers = np.random.default_rng(0).normal(size=symbol.shape)
    return ops.convert_to_tensor(numbers.astype("float32"), symbol.dtype)
