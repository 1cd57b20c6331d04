"""Functions with a hand-written gradient and all other derivatives.

A hand-written gradient saves memory or calls a compiled kernel. Backends use it
in reverse mode only. Forward mode, and derivatives of the gradient, come from a
portable function that computes the same.
"""

import functools
import itertools

import keras

# Numbers in the names of gradients that graphs look up.
_gradient_numbers = itertools.count()


def call(operands, compute, portable, gradient=None):
    """Calls `compute`, with the derivatives of `gradient` and `portable`.

    Args:
        operands: List of floating point tensors.
        compute: Function of the operands that returns a list of outputs and a
            list of further tensors that the gradient needs.
        portable: Function of the operands that returns the outputs, made of
            operations of the backend and calls of this function.
        gradient: Function of the operands, the outputs, the further tensors
            and the gradients of the outputs (four lists) that returns the
            gradients of the operands. `None` recomputes and differentiates
            `portable`.

    Returns:
        The list of outputs.
    """

    def recompute(operands, outputs, kept, upstreams):
        return backpropagate(portable, operands, upstreams)

    functions = compute, portable, gradient or recompute
    if keras.backend.backend() == "tensorflow":
        return _call_tensorflow(list(operands), *functions)
    if keras.backend.backend() == "jax":
        return _call_jax(operands, *functions)
    # PyTorch itself differentiates the operations of `compute`.
    return compute(*operands)[0]


def backpropagate(function, operands, upstreams):
    """Returns the gradients of the operands of a function.

    Args:
        function: Function of the operands that returns a list.
        operands: List of tensors.
        upstreams: Gradients of its results.
    """
    if keras.backend.backend() == "jax":
        import jax

        return list(jax.vjp(function, *operands)[1](list(upstreams)))
    import tensorflow as tf

    operands, upstreams = list(operands), list(upstreams)
    if not tf.executing_eagerly():
        # A graph computes everything as soon as possible: it would call the
        # function in the forward pass, and keep the results until here.
        with tf.control_dependencies(upstreams):
            operands = [tf.identity(operand) for operand in operands]
    with tf.GradientTape() as tape:
        tape.watch(operands)
        outputs = function(*operands)
    return tape.gradient(
        outputs,
        operands,
        upstreams,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )


def _call_tensorflow(operands, compute, portable, gradient):
    import tensorflow as tf
    from tensorflow.python.eager import forwardprop_util, record

    # Forward mode would differentiate `gradient` by the upstreams, during which
    # a `tf.GradientTape` inside it records nothing.
    if forwardprop_util.pack_tangents(operands).tangents:
        return portable(*operands)

    # Instead of `tf.custom_gradient`: in a graph, that looks for variables that
    # `compute` reads, which takes longer than adding a call of the kernel.
    with record.stop_recording():
        outputs, kept = compute(*operands)

    def differentiate(*upstreams):
        return gradient(operands, outputs, kept, upstreams)

    results = outputs
    if not tf.executing_eagerly():
        results = _identity_with_gradient(operands, outputs, differentiate)
    # For tapes.
    record.record_operation("keras_sasa", results, operands, differentiate)
    return results


def _identity_with_gradient(operands, outputs, differentiate):
    """Returns outputs with which a graph finds their gradient.

    It is registered by a name that an operation carries. The operation takes
    the operands, too, because they get its gradients. TensorFlow calls the
    gradient of an `IdentityN` when it saves a model.
    """
    import tensorflow as tf
    from tensorflow.python.eager import record

    name = f"KerasSasaGradient{next(_gradient_numbers)}"
    nothing = [None] * len(outputs)

    @tf.RegisterGradient(name)
    def gradient(_, *upstreams):
        return nothing + list(differentiate(*upstreams[: len(outputs)]))

    graph = tf.compat.v1.get_default_graph()
    with (
        record.stop_recording(),
        graph.gradient_override_map({"IdentityN": name}),
    ):
        return tf.identity_n([*outputs, *operands])[: len(outputs)]


def _call_jax(operands, compute, portable, gradient):
    import jax

    number = len(operands)

    @jax.custom_jvp
    def function(*operands):
        return tuple(map(list, compute(*operands)))

    @function.defjvp
    def differentiate(operands, tangents):
        outputs, kept = function(*operands)
        ends = number, number + len(outputs)

        def forward(residuals, tangents):
            return jax.jvp(portable, residuals[:number], tangents)[1]

        def transpose(residuals, upstreams):
            first, second = ends
            return gradient(
                list(residuals[:first]),
                list(residuals[first:second]),
                list(map(jax.lax.stop_gradient, residuals[second:])),
                list(upstreams),
            )

        moved = _linear_primitive().bind(
            *operands,
            *outputs,
            *kept,
            *tangents,
            ends=ends,
            forward=forward,
            transpose=transpose,
        )
        # The kept tensors count as constants: the gradient accounts for them.
        return (outputs, kept), (moved, list(map(jax.numpy.zeros_like, kept)))

    return function(*_varying_in_shard_map(operands))[0]


@functools.cache
def _linear_primitive():
    """Makes a primitive of JAX: a linear map with a transpose of its own.

    Its operands are residuals, on which the map depends, and the tangents that
    it maps. The residuals between `ends` are the outputs of the differentiated
    function; the results have their shapes and types. JAX has such a map,
    `jax.custom_derivatives.linear_call`, but can neither batch it nor
    differentiate it by its residuals.
    """
    import jax
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    primitive = Primitive("keras_sasa_linear")
    primitive.multiple_results = True

    def split(arguments, ends):
        # The operands come first, and each of them has one tangent.
        return tuple(arguments[: -ends[0]]), tuple(arguments[-ends[0] :])

    def compute(*arguments, ends, forward, transpose):
        return list(forward(*split(arguments, ends)))

    def differentiate(primals, changes, **parameters):
        residuals, tangents = split(primals, parameters["ends"])
        outputs = primitive.bind(*primals, **parameters)
        of_residuals, of_tangents = split(changes, parameters["ends"])
        # The map is linear in the tangents, so they keep its transpose.
        total = primitive.bind(
            *residuals, *map(ad.instantiate_zeros, of_tangents), **parameters
        )
        if any(type(change) is not ad.Zero for change in of_residuals):
            _, moved = jax.jvp(
                lambda *residuals: parameters["forward"](residuals, tangents),
                residuals,
                tuple(map(ad.instantiate_zeros, of_residuals)),
            )
            total = list(map(jax.numpy.add, total, moved))
        return outputs, total

    def backpropagate(upstreams, *arguments, ends, forward, transpose):
        residuals, _ = split(arguments, ends)
        upstreams = map(ad.instantiate_zeros, upstreams)
        gradients = transpose(residuals, list(upstreams))
        return [None] * len(residuals) + list(gradients)

    def batch(arguments, axes, *, ends, forward, transpose):
        (size,) = {
            argument.shape[axis]
            for argument, axis in zip(arguments, axes, strict=True)
            if axis is not None
        }

        def first_axis(argument, axis):
            if axis is None:
                return jax.numpy.broadcast_to(argument, (size, *argument.shape))
            return jax.numpy.moveaxis(argument, axis, 0)

        # Mapped arguments, and residuals that show the shapes of the results,
        # have the new axis; other residuals need not be copied.
        count = len(arguments) - ends[0]
        needed = [*range(*ends), *range(count, len(arguments))]
        arguments = [
            argument
            if axis is None and number not in needed
            else first_axis(argument, axis)
            for number, (argument, axis) in enumerate(
                zip(arguments, axes, strict=True)
            )
        ]
        axes = [
            None if axis is None and number not in needed else 0
            for number, axis in enumerate(axes[:count])
        ]
        results = primitive.bind(
            *arguments,
            ends=ends,
            forward=jax.vmap(forward, (tuple(axes), 0)),
            transpose=jax.vmap(transpose, (tuple(axes), 0)),
        )
        return results, [0] * len(results)

    primitive.def_impl(compute)
    primitive.def_abstract_eval(
        lambda *arguments, ends, **_: list(arguments[slice(*ends)])
    )
    mlir.register_lowering(
        primitive, mlir.lower_fun(compute, multiple_results=True)
    )
    ad.primitive_jvps[primitive] = differentiate
    ad.primitive_transposes[primitive] = backpropagate
    batching.primitive_batchers[primitive] = batch
    return primitive


def in_shard_map():
    """Returns whether JAX traces the part of one device in `shard_map`."""
    import jax

    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _varying_in_shard_map(operands):
    """Converts operands that are equal on all devices to the varying type.

    The types of `shard_map` distinguish arrays that are equal on all devices
    from arrays that vary. The gradient of the conversion sums over the devices.
    """
    if not in_shard_map():
        return operands
    return vary_like(operands, operands)


def vary_like(arrays, others):
    """Gives arrays the `shard_map` type of results computed from others.

    Args:
        arrays: List of arrays.
        others: List of arrays.
    """
    # Only `lax`: functions of `jax.numpy` become functions of the program,
    # which XLA rejects where all their arguments are constants.
    from jax import lax

    # An empty sum has the type, and a selection by a constant costs nothing.
    nothing = lax.full((), 0.0, "float32")
    for other in others:
        corner = (0,) * len(other.shape)
        none = lax.slice(
            lax.convert_element_type(other, "float32"), corner, corner
        )
        nothing += lax.reduce(none, 0.0, lax.add, tuple(range(len(corner))))
    return [
        lax.select(
            lax.full(array.shape, True),
            array,
            lax.broadcast(
                lax.convert_element_type(nothing, array.dtype), array.shape
            ),
        )
        for array in arrays
    ]
