"""Calls of the compiled kernel by Keras' backend, with their gradients.

A call has operands, all float32, and attributes: integers, tuples of them or
strings by name. Shapes of results are tuples of integers and, where TensorFlow
traces sizes that it does not know, of `Size`.
"""

import functools
import itertools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sasa import _derivatives


class Size(NamedTuple):
    """That of an axis of an operand, divided and rounded up."""

    operand: int
    axis: int
    divisor: int = 1


def size(shapes, operand, axis, divisor=1):
    """Returns the `Size` as an integer, if it is known."""
    known = shapes[operand][axis]
    if known is None:
        return Size(operand, axis, divisor)
    return -(-known // divisor)


def differentiable(operands, *, forward, backward, results, attributes, again):
    """Makes a call whose gradient is another call.

    Args:
        operands: List of tensors.
        forward: Name of the call. Its first result is the output, further ones
            are kept for the gradient.
        backward: Name of the call that takes the operands, the gradient of the
            output and what was kept, and gives the gradients of the operands.
        results: Function of the shapes of the operands that returns those of
            the results of `forward`.
        attributes: Of both calls.
        again: Function of the operands that computes the output by operations
            of the backend: all other derivatives are those of it.

    Returns:
        The output.
    """
    attributes = tuple(attributes.items())

    def compute(*operands):
        shapes = [tuple(operand.shape) for operand in operands]
        output, *kept = _call(forward, operands, results(shapes), attributes)
        return [output], kept

    def portable(*operands):
        return [again(*operands)]

    def gradient(operands, outputs, kept, upstreams):
        shapes = [tuple(operand.shape) for operand in operands]
        # The shapes of gradients are those of the operands.
        gradient_shapes = [
            tuple(size(shapes, number, axis) for axis in range(len(shape)))
            for number, shape in enumerate(shapes)
        ]

        def compute(*arguments):
            return _call(backward, arguments, gradient_shapes, attributes), []

        def first(*arguments):
            operands = arguments[: len(shapes)]
            upstream = arguments[len(shapes)]
            return _derivatives.backpropagate(portable, operands, [upstream])

        # What was kept has its part in the gradients of the operands.
        constants = map(ops.stop_gradient, kept)
        return _derivatives.call(
            [*operands, *upstreams, *constants], compute, first
        )

    return _derivatives.call(operands, compute, portable, gradient)[0]


def recomputed(operands, *, forward, results, attributes, again):
    """Makes a call of one result, whose derivatives are those of `again`.

    Args:
        operands: List of tensors.
        forward: Name of the call.
        results: As in `differentiable`.
        attributes: Of the call.
        again: Function of the operands that computes the output and can be
            differentiated.

    Returns:
        The output.
    """

    def compute(*operands):
        shapes = [tuple(operand.shape) for operand in operands]
        return _call(
            forward, operands, results(shapes), tuple(attributes.items())
        ), []

    return _derivatives.call(
        operands, compute, lambda *operands: [again(*operands)]
    )[0]


def _call(name, operands, result_shapes, attributes):
    """Makes the call `name`, without derivatives. Returns its results."""
    call = {"tensorflow": call_tensorflow, "jax": call_jax}
    return list(
        call[keras.backend.backend()](name, operands, result_shapes, attributes)
    )


def call_tensorflow(name, operands, result_shapes, attributes):
    """Makes the call `name`, without a gradient. Returns its results."""
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    shapes = tuple(tuple(operand.shape) for operand in operands)
    result_shapes = tuple(map(tuple, result_shapes))
    return xla.call_module(
        # Of the call itself, forward mode would ask for a gradient.
        [tf.stop_gradient(operand) for operand in operands],
        version=9,
        module=_module(name, shapes, result_shapes, attributes),
        Tout=[tf.float32] * len(result_shapes),
        Sout=[tf.TensorShape(_static(shape)) for shape in result_shapes],
        platforms=["CPU"],
        disabled_checks=[f"custom_call:{name}"],
    )


def _static(shape):
    return tuple(None if isinstance(axis, Size) else axis for axis in shape)


@functools.cache
def _module(name, shapes, result_shapes, attributes):
    """StableHLO of one custom call, for unknown sizes too.

    With unknown sizes the shape of every result is one more operand, put
    together from those of the operands.
    """
    lines = []

    def new(line):
        lines.append(f"    %{len(lines)} = {line}")
        return f"%{len(lines) - 1}"

    def constant(number):
        return new(f"stablehlo.constant dense<{number}> : tensor<i32>")

    def scalar(size):
        if isinstance(size, int):
            return constant(size)
        number = new(
            f"stablehlo.get_dimension_size %arg{size.operand}, "
            f"dim = {size.axis} : ({_type(shapes[size.operand])}) "
            "-> tensor<i32>"
        )
        if size.divisor > 1:
            rest = constant(size.divisor - 1)
            number = new(f"stablehlo.add {number}, {rest} : tensor<i32>")
            divisor = constant(size.divisor)
            number = new(f"stablehlo.divide {number}, {divisor} : tensor<i32>")
        return number

    def shape_operand(shape):
        sizes = [
            new(
                f"stablehlo.reshape {scalar(size)} : "
                "(tensor<i32>) -> tensor<1xi32>"
            )
            for size in shape
        ]
        types = ", ".join(["tensor<1xi32>"] * len(shape))
        return new(
            f"stablehlo.concatenate {', '.join(sizes)}, dim = 0 : "
            f"({types}) -> tensor<{len(shape)}xi32>"
        )

    count = len(result_shapes)
    polymorphic = any(None in _static(shape) for shape in result_shapes)
    types = [_type(shape) for shape in shapes]
    values = [f"%arg{number}" for number in range(len(shapes))]
    indices = ""
    if polymorphic:
        # XLA takes them in the order of the results, so that all have one.
        numbers = list(range(len(shapes), len(shapes) + count))
        indices = (
            f", indices_of_shape_operands = dense<{numbers}> : "
            f"tensor<{count}xi64>"
        )
        values += map(shape_operand, result_shapes)
        types += [f"tensor<{len(shape)}xi32>" for shape in result_shapes]
    results = ", ".join(_type(_static(shape)) for shape in result_shapes)
    signature = ", ".join(
        f"%arg{number}: {_type(shape)}" for number, shape in enumerate(shapes)
    )
    config = ", ".join(
        f"{key} = {_attribute(value)}" for key, value in attributes
    )
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
    sizes = "".join("?x" if size is None else f"{size}x" for size in shape)
    return f"tensor<{sizes}f32>"


def _attribute(value):
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"array<i64: {', '.join(map(str, value))}>"
    return f"{value} : i64"


def call_jax(name, operands, shapes, attributes):
    """Makes the call `name`, without a gradient. Returns its results."""
    ranks = tuple(len(operand.shape) for operand in operands)
    shapes = tuple(map(tuple, shapes))
    return _jax_mapped(name, ranks, shapes, attributes)(*operands)


@functools.cache
def _jax_mapped(name, ranks, shapes, attributes):
    """The call, as one that `jax.vmap` can map."""
    import jax
    from jax import numpy as jnp

    @jax.custom_batching.custom_vmap
    def call(*operands):
        if _derivatives.in_shard_map():
            results = _jax_whole(name, operands, shapes, attributes)
            return tuple(_derivatives.vary_like(results, operands))
        if jax.device_count() > 1:
            return _jax_divided(name, ranks, shapes, attributes)(*operands)
        return _jax_whole(name, operands, shapes, attributes)

    @call.def_vmap
    def mapped(count, batched, *operands):
        everywhere = (True,) * len(shapes)
        maps = [rank == 4 for rank in ranks]
        if any(len(shape) != 4 for shape in shapes) or any(
            is_batched and not is_map
            for is_batched, is_map in zip(batched, maps, strict=True)
        ):
            # The weights differ, or their gradients: one call each.
            def one(chosen):
                chosen = iter(chosen)
                return call(
                    *(
                        next(chosen) if is_batched else operand
                        for operand, is_batched in zip(
                            operands, batched, strict=True
                        )
                    )
                )

            chosen = [
                operand
                for operand, is_batched in zip(operands, batched, strict=True)
                if is_batched
            ]
            return tuple(jax.lax.map(one, chosen)), everywhere

        # The same weights for all images, which one call takes.
        def fold(operand, is_batched):
            if not is_batched:
                operand = jnp.broadcast_to(operand, (count, *operand.shape))
            _, batch, *shape = operand.shape
            return operand.reshape(count * batch, *shape)

        operands = [
            fold(operand, is_batched) if is_map else operand
            for operand, is_batched, is_map in zip(
                operands, batched, maps, strict=True
            )
        ]
        folded = [(count * batch, *shape) for batch, *shape in shapes]
        results = call_jax(name, operands, folded, attributes)
        return tuple(
            result.reshape(count, *shape)
            for result, shape in zip(results, shapes, strict=True)
        ), everywhere

    return call


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
