"""Local self-attention by the compiled kernel, a custom call of XLA on CPU.

The kernel (`keras_sasa/kernels`) never has the attention weights of a whole map
in memory: the forward pass keeps one number a query and head, log2 of the sum
of the exponentials, from which the backward pass computes them again.

Operands are the tensors that hold queries, keys and values (one tensor may hold
several side by side) and the embeddings; attributes describe the windows.
"""

import functools
import itertools

import keras
import numpy as np

from keras_sasa import kernels
from keras_sasa.local_attention import geometry, tiled


def why_not() -> str | None:
    """Returns why the kernel does not run here, or `None` if it does."""
    if kernels.switched_off():
        return f"the environment variable {kernels.SWITCH} turns it off"
    accelerator = _accelerator()
    if accelerator is not None:
        return f"it runs on CPU, and there is a {accelerator}"
    return kernels.load()


def expected() -> bool:
    """Returns whether it is no surprise that the kernel does not run."""
    return kernels.switched_off() or _accelerator() is not None


def _accelerator():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for kind in ("GPU", "TPU"):
            if tf.config.list_physical_devices(kind):
                return kind
    if keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return jax.default_backend().upper()
    return None


def local_attention(
    query,
    key,
    value,
    row_embedding,
    column_embedding,
    *,
    axes: tuple[geometry.Axis, geometry.Axis],
    num_heads: int,
    mask=None,
    dropout_mask=None,
    return_attention_scores: bool = False,
):
    """Attends within windows; arguments and results as in `patches`.

    Query, key and value are `Channels`, all in float32. Masks, dropout and
    scores are not for the kernel.
    """
    if mask is not None or dropout_mask is not None or return_attention_scores:
        raise ValueError(
            '`implementation="native"` takes no mask and no dropout and '
            "returns no attention scores."
        )
    sources, places = [], []
    for channels in (query, key, value):
        if channels is None:
            places += [-1, 0]
            continue
        number = _source(sources, channels)
        sources[number].append(channels)
        places += [number, channels.first]
    tensors = [source[0].tensor for source in sources]
    relative = row_embedding is not None
    rows, columns = axes
    attributes = {
        "sources": len(tensors),
        "places": tuple(places),
        "filters": value.count,
        "num_heads": num_heads,
        "kernel_size": (rows.kernel_size, columns.kernel_size),
        "strides": (rows.stride, columns.stride),
        "dilation_rate": (rows.dilation_rate, columns.dilation_rate),
        "padding": rows.padding,
        "relative": int(relative),
    }
    operands = tensors
    if relative:
        operands = [*tensors, row_embedding, column_embedding]

    def again(*operands):
        """The same from the same operands, but differentiable twice."""
        maps = [
            None
            if source < 0
            else operands[source][..., first : first + value.count]
            for source, first in zip(places[::2], places[1::2], strict=True)
        ]
        embeddings = operands[len(tensors) :] or (None, None)
        return tiled.local_attention(
            *maps,
            *embeddings,
            axes=axes,
            num_heads=num_heads,
            return_attention_scores=False,
        )[0]

    attend = {"tensorflow": _tensorflow, "jax": _jax}[keras.backend.backend()]
    return attend(operands, tuple(attributes.items()), again), None


def projected_attention(
    operands,
    *,
    kernel_size: tuple[int, int],
    num_heads: int,
    dilation_rate: tuple[int, int],
    content: bool,
    again,
):
    """Projects and attends in one call, for a query at every pixel.

    Queries, keys and values are never in memory; so the gradient, which needs
    them, is that of `again`, a function of the same operands.

    Args:
        operands: Image `(batch, height, width, channels)`, matrices `(channels,
            filters)` of queries, keys (if `content`) and values, and if there
            are any both embeddings, all in float32.
        kernel_size: Height and width of the window.
        num_heads: Number of heads.
        dilation_rate: Distance between keys.
        content: Whether the logits have q.k.
        again: Function of the operands that computes the same and can be
            differentiated.
    """
    attributes = {
        "filters": operands[1].shape[-1],
        "num_heads": num_heads,
        "kernel_size": kernel_size,
        "dilation_rate": dilation_rate,
        "content": int(content),
        "relative": int(len(operands) == (6 if content else 5)),
    }
    project = {
        "tensorflow": _tensorflow_projected,
        "jax": _jax_projected,
    }[keras.backend.backend()]
    return project(operands, tuple(attributes.items()), again)


def _source(sources, channels):
    """Number of the source that holds the channels, perhaps a new one.

    Channels that overlap are sources of their own: every source has a gradient,
    where each channel is written once.
    """
    for number, source in enumerate(sources):
        if source[0].tensor is channels.tensor and all(
            abs(other.first - channels.first) >= channels.count
            for other in source
        ):
            return number
    sources.append([])
    return len(sources) - 1


def _result_shapes(shapes, attributes):
    """Shapes of the output and of what the backward pass needs of it."""
    attributes = dict(attributes)
    batch, height, width, _ = shapes[attributes["places"][0]]
    filters, heads = attributes["filters"], attributes["num_heads"]
    return (batch, height, width, filters), (batch, heads, height, width)


def _tensorflow(operands, attributes, again):
    import tensorflow as tf

    # XLA's calls have no gradient of their own: `gradient` is that of the first
    # call, `second` that of the second.
    @tf.custom_gradient
    def attend(*operands):
        shapes = [tuple(operand.shape) for operand in operands]
        results = _result_shapes(shapes, attributes)
        output, log_sum_exp = _call_module(
            kernels.FORWARD, operands, results, attributes
        )

        @tf.custom_gradient
        def differentiate(*operands):
            gradients = _call_module(
                kernels.BACKWARD, operands, shapes, attributes
            )

            def second(*upstreams):
                *inputs, upstream, _ = operands
                with tf.GradientTape() as tape:
                    tape.watch([*inputs, upstream])
                    with tf.GradientTape() as first_tape:
                        first_tape.watch(inputs)
                        outputs = again(*inputs)
                    firsts = first_tape.gradient(outputs, inputs, upstream)
                seconds = tape.gradient(
                    firsts,
                    [*inputs, upstream],
                    upstreams,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                # That of `log_sum_exp`, which is in those of the inputs.
                return [*seconds, tf.zeros_like(log_sum_exp)]

            return gradients, second

        def gradient(upstream):
            return differentiate(
                *operands, upstream, tf.stop_gradient(log_sum_exp)
            )

        return output, gradient

    return attend(*operands)


def _tensorflow_projected(operands, attributes, again):
    import tensorflow as tf

    @tf.custom_gradient
    def attend(*operands):
        shape = (*operands[0].shape[:3], dict(attributes)["filters"])
        (output,) = _call_module(
            kernels.PROJECTED, operands, [shape], attributes
        )

        def gradient(upstream):
            with tf.GradientTape() as tape:
                tape.watch(operands)
                outputs = again(*operands)
            return tape.gradient(outputs, operands, upstream)

        return output, gradient

    return attend(*operands)


def _call_module(name, operands, result_shapes, attributes):
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    shapes = tuple(tuple(operand.shape) for operand in operands)
    return xla.call_module(
        list(operands),
        version=9,
        module=_module(name, shapes, tuple(result_shapes), attributes),
        Tout=[tf.float32] * len(result_shapes),
        Sout=[tf.TensorShape(shape) for shape in result_shapes],
        platforms=["CPU"],
        disabled_checks=[f"custom_call:{name}"],
    )


@functools.cache
def _module(name, shapes, result_shapes, attributes):
    """StableHLO of one custom call, for unknown sizes too.

    The shape of a result with unknown sizes is one more operand, put together
    from those of the operands: all sizes that are unknown are in some operand
    at the place they have in the result, or one after it (heads).
    """
    lines, shape_operands = [], []

    def new(line):
        lines.append(f"    %{len(lines)} = {line}")
        return f"%{len(lines) - 1}"

    dictionary = dict(attributes)

    def size(result, place):
        # Results of the forward pass have the sizes of the query, `log_sum_exp`
        # with the heads after the batch; gradients those of their operand.
        if name == kernels.BACKWARD:
            operand = result
        else:
            operand = dictionary.get("places", (0,))[0]
            place -= 1 if result == 1 and place > 0 else 0
        number = new(
            f"stablehlo.get_dimension_size %arg{operand}, dim = {place} : "
            f"({_type(shapes[operand])}) -> tensor<i32>"
        )
        return new(
            f"stablehlo.reshape {number} : (tensor<i32>) -> tensor<1xi32>"
        )

    for result, shape in enumerate(result_shapes):
        sizes = [
            size(result, place)
            if known is None
            else new(f"stablehlo.constant dense<{known}> : tensor<1xi32>")
            for place, known in enumerate(shape)
        ]
        if None in shape:
            types = ", ".join(["tensor<1xi32>"] * len(shape))
            shape_operands.append(
                (
                    new(
                        f"stablehlo.concatenate {', '.join(sizes)}, dim = 0 : "
                        f"({types}) -> tensor<{len(shape)}xi32>"
                    ),
                    f"tensor<{len(shape)}xi32>",
                )
            )
        else:
            # Every result or none: their order is that of the results.
            constant = ", ".join(map(str, shape))
            shape_operands.append(
                (
                    new(
                        f"stablehlo.constant dense<[{constant}]> : "
                        f"tensor<{len(shape)}xi32>"
                    ),
                    f"tensor<{len(shape)}xi32>",
                )
            )
    polymorphic = any(None in shape for shape in result_shapes)
    types = [_type(shape) for shape in shapes]
    values = [f"%arg{number}" for number in range(len(shapes))]
    indices = ""
    if polymorphic:
        numbers = range(len(shapes), len(shapes) + len(shape_operands))
        indices = (
            f", indices_of_shape_operands = dense<{list(numbers)}> : "
            f"tensor<{len(shape_operands)}xi64>"
        )
        values += [value for value, _ in shape_operands]
        types += [kind for _, kind in shape_operands]
    else:
        lines.clear()
    results = ", ".join(map(_type, result_shapes))
    signature = ", ".join(
        f"%arg{number}: {_type(shape)}" for number, shape in enumerate(shapes)
    )
    config = ", ".join(
        f"{key} = {_attribute(value)}" for key, value in attributes
    )
    count = len(result_shapes)
    returned = ", ".join(f"%result#{number}" for number in range(count))
    flag = "true" if polymorphic else "false"
    return "\n".join(
        [
            "module @keras_sasa attributes "
            f"{{jax.uses_shape_polymorphism = {flag}}} {{",
            f"  func.func public @main({signature}) -> ({results}) {{",
            *lines,
            f"    %result:{count} = stablehlo.custom_call @{name}"
            f"({', '.join(values)}) {{api_version = 4 : i32, "
            f"backend_config = {{{config}}}{indices}}} : "
            f"({', '.join(types)}) -> ({results})",
            f"    return {returned} : {results}",
            "  }",
            "}",
        ]
    )


def _type(shape):
    sizes = "x".join("?" if size is None else str(size) for size in shape)
    return f"tensor<{sizes}xf32>"


def _attribute(value):
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"array<i64: {', '.join(map(str, value))}>"
    return f"{value} : i64"


def _jax_call(name, operands, shapes, attributes):
    import jax

    if jax.device_count() > 1:
        ranks = tuple(len(operand.shape) for operand in operands)
        shapes = tuple(map(tuple, shapes))
        return _jax_divided(name, ranks, shapes, attributes)(*operands)
    return _jax_whole(name, operands, shapes, attributes)


@functools.cache
def _jax_divided(name, ranks, shapes, attributes):
    """The call, as one that XLA divides among devices by images.

    Maps, of rank 4, are divided; embeddings and matrices, of lower rank, are
    whole everywhere, and what devices add to their gradients is summed.
    """
    import jax
    from jax.experimental.custom_partitioning import custom_partitioning
    from jax.sharding import NamedSharding, PartitionSpec

    @custom_partitioning
    def call(*operands):
        return _jax_whole(name, operands, shapes, attributes)

    def partition(mesh, operands, results):
        spec = operands[0].sharding.spec
        axes = spec[0] if spec else None

        def sharding(rank):
            divided = axes if rank == 4 else None
            rest = [None] * (rank - 1)
            return NamedSharding(mesh, PartitionSpec(divided, *rest))

        def one_device(*operands):
            batch = operands[0].shape[0]
            local = [
                (batch, *shape[1:]) if len(shape) == 4 else shape
                for shape in shapes
            ]
            outputs = _jax_whole(name, operands, local, attributes)
            return tuple(
                output
                if len(shape) == 4 or axes is None
                else jax.lax.psum(output, axes)
                for output, shape in zip(outputs, shapes, strict=True)
            )

        return (
            mesh,
            one_device,
            tuple(sharding(len(shape)) for shape in shapes),
            tuple(sharding(rank) for rank in ranks),
        )

    names = (f"size{number}" for number in itertools.count())

    def factors(rank):
        # No size but that of the batch matters to the division.
        first = "batch" if rank == 4 else next(names)
        return " ".join([first, *itertools.islice(names, rank - 1)])

    inputs = ", ".join([factors(rank) for rank in ranks])
    outputs = ", ".join([factors(len(shape)) for shape in shapes])
    call.def_partition(
        partition=partition, sharding_rule=f"{inputs} -> {outputs}"
    )
    return call


def _jax_whole(name, operands, shapes, attributes):
    import jax

    options = {
        key: value
        if isinstance(value, str)
        else np.asarray(value, "int64")
        if isinstance(value, tuple)
        else np.int64(value)
        for key, value in attributes
    }
    types = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    return tuple(jax.ffi.ffi_call(name, types)(*operands, **options))


def _jax_projected(operands, attributes, again):
    import jax

    @jax.custom_vjp
    def attend(*operands):
        shape = (*operands[0].shape[:3], dict(attributes)["filters"])
        return _jax_call(kernels.PROJECTED, operands, [shape], attributes)[0]

    attend.defvjp(
        lambda *operands: (attend(*operands), operands),
        lambda operands, upstream: jax.vjp(again, *operands)[1](upstream),
    )
    return attend(*operands)


def _jax(operands, attributes, again):
    import jax

    def call(name, operands, shapes):
        return _jax_call(name, operands, shapes, attributes)

    shapes = [operand.shape for operand in operands]

    # As for TensorFlow: the gradient of the gradient is that of `again`.
    @jax.custom_vjp
    def differentiate(*operands):
        return call(kernels.BACKWARD, operands, shapes)

    def second(operands, upstreams):
        *inputs, upstream, log_sum_exp = operands

        def first(*inputs_and_upstream):
            *inputs, upstream = inputs_and_upstream
            return jax.vjp(again, *inputs)[1](upstream)

        _, transpose = jax.vjp(first, *inputs, upstream)
        return (*transpose(upstreams), jax.numpy.zeros_like(log_sum_exp))

    differentiate.defvjp(
        lambda *operands: (differentiate(*operands), operands), second
    )

    @jax.custom_vjp
    def attend(*operands):
        return call(
            kernels.FORWARD, operands, _result_shapes(shapes, attributes)
        )

    def forward(*operands):
        output, log_sum_exp = attend(*operands)
        log_sum_exp = jax.lax.stop_gradient(log_sum_exp)
        return (output, log_sum_exp), (operands, log_sum_exp)

    def backward(kept, upstreams):
        operands, log_sum_exp = kept
        return differentiate(*operands, upstreams[0], log_sum_exp)

    attend.defvjp(forward, backward)
    return attend(*operands)[0]
