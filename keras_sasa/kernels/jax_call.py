"""One call of the compiled kernel by JAX, and its registration.

A call can be mapped by `jax.vmap` and divided among devices by images.
"""

import ctypes
import functools
import itertools

import numpy as np

from keras_sasa import _derivatives
from keras_sasa.kernels.dimensions import Spec
from keras_sasa.kernels.targets import TARGETS


def register(library: ctypes.CDLL) -> None:
    """Registers the custom calls of the library with JAX."""
    import jax

    for target in TARGETS:
        jax.ffi.register_ffi_target(
            target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu"
        )


def call(target: str, operands, results, attributes):
    """Makes one custom call, without a gradient.

    Args:
        target: Name of the custom call.
        operands: List of arrays.
        results: List of the `Spec`s of the results.
        attributes: Tuple of pairs (name, value).

    Returns:
        The tuple of results.
    """
    ranks = tuple(len(operand.shape) for operand in operands)
    return _mappable(target, ranks, tuple(results), attributes)(*operands)


@functools.cache
def _mappable(target, ranks, results, attributes):
    """Returns the call as a function that `jax.vmap` can map."""
    import jax
    from jax import numpy as jnp

    @jax.custom_batching.custom_vmap
    def function(*operands):
        if _derivatives.in_shard_map():
            outputs = _on_one_device(target, operands, results, attributes)
            return tuple(_derivatives.vary_like(outputs, operands))
        if jax.device_count() > 1:
            return _divisible(target, ranks, results, attributes)(*operands)
        return _on_one_device(target, operands, results, attributes)

    def one_by_one(batched, operands):
        def one(chosen):
            chosen = iter(chosen)
            return function(
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
        return tuple(jax.lax.map(one, chosen))

    def as_one_batch(count, batched, operands):
        def fold(operand, is_batched, rank):
            if rank != 4:
                return operand
            if not is_batched:
                operand = jnp.broadcast_to(operand, (count, *operand.shape))
            _, batch, *shape = operand.shape
            return operand.reshape(count * batch, *shape)

        operands = list(map(fold, operands, batched, ranks))
        folded = [
            Spec((count * shape[0], *shape[1:]), dtype)
            for shape, dtype in results
        ]
        outputs = call(target, operands, folded, attributes)
        return tuple(
            output.reshape(count, *shape)
            for output, (shape, _) in zip(outputs, results, strict=True)
        )

    @function.def_vmap
    def mapped(count, batched, *operands):
        everywhere = (True,) * len(results)
        weights_differ = any(
            is_batched and rank != 4
            for is_batched, rank in zip(batched, ranks, strict=True)
        )
        # Gradients of weights, whose rank is not 4, are apart as well.
        if weights_differ or any(len(shape) != 4 for shape, _ in results):
            return one_by_one(batched, operands), everywhere
        return as_one_batch(count, batched, operands), everywhere

    return function


@functools.cache
def _divisible(target, ranks, results, attributes):
    """Returns the call as a function that XLA divides among devices.

    Maps, of rank 4, are divided by images. Embeddings and matrices, of lower
    rank, are whole on every device, and their gradients are summed over the
    devices.
    """
    import jax
    from jax.experimental.custom_partitioning import custom_partitioning
    from jax.sharding import NamedSharding, PartitionSpec

    @custom_partitioning
    def function(*operands):
        return _on_one_device(target, operands, results, attributes)

    def partition(mesh, operands, _):
        spec = operands[0].sharding.spec
        axes = spec[0] if spec else None

        def sharding(rank):
            divided = axes if rank == 4 else None
            rest = [None] * (rank - 1)
            return NamedSharding(mesh, PartitionSpec(divided, *rest))

        def one_device(*operands):
            batch = operands[0].shape[0]
            local = [
                Spec((batch, *shape[1:]), dtype)
                if len(shape) == 4
                else Spec(shape, dtype)
                for shape, dtype in results
            ]
            outputs = _on_one_device(target, operands, local, attributes)
            return tuple(
                output
                if len(shape) == 4 or axes is None
                else jax.lax.psum(output, axes)
                for output, (shape, _) in zip(outputs, results, strict=True)
            )

        return (
            mesh,
            one_device,
            tuple(sharding(len(shape)) for shape, _ in results),
            tuple(sharding(rank) for rank in ranks),
        )

    names = (f"size{number}" for number in itertools.count())

    def factors(rank):
        # Only the size of the batch matters to the division.
        first = "batch" if rank == 4 else next(names)
        return " ".join([first, *itertools.islice(names, rank - 1)])

    inputs = ", ".join([factors(rank) for rank in ranks])
    outputs = ", ".join([factors(len(shape)) for shape, _ in results])
    function.def_partition(
        partition=partition, sharding_rule=f"{inputs} -> {outputs}"
    )
    return function


def _on_one_device(target, operands, results, attributes):
    """Makes the call itself."""
    import jax

    options = {
        key: value
        if isinstance(value, str)
        else np.asarray(value, "int64")
        if isinstance(value, tuple)
        else np.float32(value)
        if isinstance(value, float)
        else np.int64(value)
        for key, value in attributes
    }
    types = [jax.ShapeDtypeStruct(*result) for result in results]
    return tuple(jax.ffi.ffi_call(target, types)(*operands, **options))
