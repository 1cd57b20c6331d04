"""Values and gradients of a layer, in every way a backend can compute them."""

import dataclasses
import functools

import keras
import numpy as np

BACKEND = keras.backend.backend()

# "eager" runs op by op; "jit" is compiled by XLA for known shapes; "graph" and
# "graph_jit" are a `tf.function` traced for an unknown batch, height and width.
# JAX compiles every operation of a new shape anyway: there all is compiled.
MODES = {
    "tensorflow": ("eager", "jit", "graph", "graph_jit"),
    "jax": ("jit",),
}[BACKEND]


@dataclasses.dataclass(frozen=True)
class Result:
    """Results of a function of inputs and of a layer's weights.

    Attributes:
        values: All arrays that the function returned.
        gradients: By array: `inputs`, and every trainable weight by name.
    """

    values: list[np.ndarray]
    gradients: dict[str, np.ndarray]

    @property
    def outputs(self):
        return self.values[0]

    @property
    def scores(self):
        return self.values[1]


def value_and_gradients(
    layer, inputs, *cotangents, mode=MODES[0], mask=None, function=None, **call
):
    """Calls a layer, and differentiates by its inputs and weights.

    Args:
        layer: A built layer.
        inputs: Array.
        *cotangents: Gradient of the loss by the outputs; and by the attention
            scores, which are asked for if it is there.
        mode: One of `MODES`.
        mask: Array of booleans or `None`.
        function: Called in the place of `layer`, of which it may use the
            weights.
        **call: Further arguments of the call.

    Returns:
        A `Result`, of arrays in the dtype in which they were computed.
    """
    assert mode in MODES
    function = function or layer
    if mask is not None:
        call["mask"] = mask
    if len(cotangents) == 2:
        call["return_attention_scores"] = True
    names = [weight.name for weight in layer.trainable_variables]
    assert len(set(names)) == len(names)
    dtype = layer.compute_dtype
    run = {"tensorflow": _tensorflow, "jax": _jax}[BACKEND]
    values, gradients = run(
        layer,
        function,
        np.asarray(inputs),
        [np.asarray(cotangent, dtype) for cotangent in cotangents],
        mode,
        call,
    )
    values = [keras.ops.convert_to_numpy(value) for value in values]
    gradients = [keras.ops.convert_to_numpy(value) for value in gradients]
    return Result(values, dict(zip(["inputs", *names], gradients, strict=True)))


def _listed(values):
    return list(values) if isinstance(values, (tuple, list)) else [values]


def _tensorflow(layer, function, inputs, cotangents, mode, call):
    import tensorflow as tf

    variables = [variable.value for variable in layer.trainable_variables]

    def compute(inputs, cotangents, arrays):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = _listed(function(inputs, **options, **arrays))
        gradients = tape.gradient(
            values,
            [inputs, *variables],
            output_gradients=cotangents,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return values, [tf.convert_to_tensor(value) for value in gradients]

    arrays = {
        name: tf.constant(value)
        for name, value in call.items()
        if isinstance(value, np.ndarray)
    }
    options = {
        name: value for name, value in call.items() if name not in arrays
    }
    arguments = (
        tf.constant(inputs),
        [tf.constant(cotangent) for cotangent in cotangents],
        arrays,
    )
    # Converting the source takes a tenth of a second, and changes nothing here.
    if mode == "jit":
        compute = tf.function(compute, autograph=False, jit_compile=True)
    elif mode != "eager":
        compute = tf.function(
            compute,
            autograph=False,
            input_signature=tf.nest.map_structure(
                functools.partial(_unknown, layer), arguments
            ),
            jit_compile=mode == "graph_jit",
        )
    return compute(*arguments)


def _unknown(layer, tensor):
    """Forgets all sizes but channels, heads and window."""
    import tensorflow as tf

    shape = [None, None, None, *tensor.shape[3:]]
    if getattr(layer, "data_format", None) == "channels_first":
        if tensor.shape.rank == 4:
            shape = [None, tensor.shape[1], None, None]
    return tf.TensorSpec(shape, tensor.dtype)


def _jax(layer, function, inputs, cotangents, mode, call):
    import jax

    arrays = {
        name: value
        for name, value in call.items()
        if isinstance(value, np.ndarray)
    }
    options = {
        name: value for name, value in call.items() if name not in arrays
    }
    variables = layer.trainable_variables

    def compute(inputs, weights, cotangents, arrays):
        def values_of(inputs, weights):
            state = list(zip(variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=state):
                return _listed(function(inputs, **options, **arrays))

        values, transpose = jax.vjp(values_of, inputs, weights)
        by_inputs, by_weights = transpose(cotangents)
        return values, [by_inputs, *by_weights]

    compute = jax.jit(compute)
    weights = [variable.value for variable in variables]
    return compute(jax.numpy.asarray(inputs), weights, cotangents, arrays)


def gradients_of_gradients(function, arrays):
    """Differentiates the sum of the sines of the gradients of a function.

    Args:
        function: Takes the arrays, returns one tensor, of which the sum of
            squares is differentiated.
        arrays: List of arrays.

    Returns:
        A list of arrays.
    """
    ops = keras.ops

    def loss(*tensors):
        return ops.sum(ops.square(function(*tensors)))

    if BACKEND == "jax":
        import jax

        numbers = tuple(range(len(arrays)))

        def sines(*tensors):
            gradients = jax.grad(loss, numbers)(*tensors)
            return sum(ops.sum(ops.sin(gradient)) for gradient in gradients)

        gradients = jax.jit(jax.grad(sines, numbers))(*arrays)
    else:
        import tensorflow as tf

        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as outer:
            outer.watch(tensors)
            with tf.GradientTape() as inner:
                inner.watch(tensors)
                value = loss(*tensors)
            gradients = inner.gradient(value, tensors)
            sines = sum(ops.sum(ops.sin(gradient)) for gradient in gradients)
        gradients = outer.gradient(sines, tensors)
    return [ops.convert_to_numpy(gradient) for gradient in gradients]
