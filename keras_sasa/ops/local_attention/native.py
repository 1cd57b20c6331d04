"""Local self-attention by the compiled kernel, a custom call of XLA on CPU.

The kernel (`keras_sasa/kernels`) never has the attention weights of a whole map
in memory: the forward pass keeps one number per query and head, log2 of the sum
of the exponentials, from which the backward pass recomputes them.

Operands are the tensors that hold queries, keys and values (one tensor may hold
several side by side) and the embeddings; attributes describe the windows.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_sasa.kernels import custom_call, targets
from keras_sasa.kernels.dimensions import Spec, dimension
from keras_sasa.ops.local_attention.epilogue import Epilogue
from keras_sasa.ops.local_attention.interface import LocalAttention
from keras_sasa.ops.local_attention.position import (
    PositionBias,
    RowColumnEmbeddings,
)
from keras_sasa.ops.local_attention.problem import Problem, request
from keras_sasa.ops.local_attention.projections import Projections, project
from keras_sasa.ops.native import NativeImplementation
from keras_sasa.ops.slices import take_range


class Channels(NamedTuple):
    """Some of the channels of a tensor `(batch, height, width, channels)`.

    One product makes queries, keys and values side by side; the kernel reads
    them where they are.
    """

    tensor: Any
    first: int
    count: int


class NativeAttention(NativeImplementation, LocalAttention):
    """Local attention by the compiled kernel.

    Args:
        recompute: The portable implementation that provides the derivatives
            other than the gradient.
    """

    def __init__(self, recompute: LocalAttention):
        self._recompute = recompute

    def unsupported_reason(self, problem: Problem) -> str | None:
        for unsupported, reason in (
            (problem.masked, "takes no mask"),
            (problem.dropout, "takes no dropout"),
            (problem.scores, "returns no attention scores"),
            (
                not isinstance(
                    problem.position, RowColumnEmbeddings | PositionBias | None
                ),
                "knows no other positions than row and column embeddings and "
                "position biases",
            ),
            (
                problem.shifts and _relative(problem),
                "takes no row and column embeddings of windows that move at "
                "the border",
            ),
        ):
            if unsupported:
                return f"it {reason}"
        return super().unsupported_reason(problem)

    def scales(self, problem):
        return not _relative(problem)

    def compute(
        self,
        problem,
        query,
        key,
        value,
        position=(),
        mask=None,
        dropout_mask=None,
    ):
        query, key, value = (
            None if tensor is None else Channels(tensor, 0, tensor.shape[-1])
            for tensor in (query, key, value)
        )
        return self.attend(problem, query, key, value, position), None

    def compute_projected(
        self,
        problem,
        inputs,
        projections,
        position=(),
        mask=None,
        dropout_mask=None,
        epilogue=None,
    ):
        fused = (
            # The gradient needs queries, keys and values in memory.
            not problem.training and problem.rows.padding == "same"
        )
        finish = None  # The part of the epilogue that is not in the call.
        if epilogue is not None and not (
            fused and _finishes(problem, epilogue)
        ):
            finish, epilogue = epilogue, None
        arguments = problem, inputs, projections, position
        # Further steps are in float32.
        dtype = _map_dtype(inputs) if finish is None else "float32"
        if fused:
            output = self._fused(*arguments, epilogue, dtype)
        else:
            output = self._project_and_attend(*arguments, dtype)
        return output if finish is None else finish.apply(output), None

    def _project_and_attend(
        self, problem, inputs, projections, position, dtype
    ):
        """Projects by a product of the backend, in the type of the inputs."""
        filters = projections.filters
        # Channels of one tensor must be channels of one tensor after the cast.
        casts = {}

        def channels(part):
            if part is None:
                return None
            tensor, first = part
            if id(tensor) not in casts:
                casts[id(tensor)] = ops.cast(tensor, _map_dtype(tensor))
            return Channels(casts[id(tensor)], first, filters)

        return self.attend(
            problem,
            *map(channels, project(problem, inputs, projections)),
            position,
            dtype,
        )

    def _fused(self, problem, inputs, projections, position, epilogue, dtype):
        """Projects, attends and finishes in one call.

        Queries, keys and values are never in memory. A gradient, which needs
        them, computes them again.
        """
        kernels, biases = projections.kernels, []
        if projections.use_bias:
            # The same number in all logits of a query changes no weight, and
            # weights add up to 1: the bias of the values is an offset.
            epilogue = _with_offset(epilogue, projections.value_bias)
            biases = [projections.query_bias]
        # The call ignores what follows the operands that it knows.
        ignored = [projections.key_bias] if _key_bias(projections) else []
        operands = [
            ops.cast(inputs, _map_dtype(inputs)),
            *(ops.cast(weight, "float32") for weight in (*kernels, *biases)),
            *position,
        ]
        relu, pool = False, 1
        if epilogue is not None:
            operands += [epilogue.scale, epilogue.offset]
            relu, pool = epilogue.relu, epilogue.pool
        operands += [ops.cast(bias, "float32") for bias in ignored]
        attributes = {
            "filters": projections.filters,
            "num_heads": problem.num_heads,
            "kernel_size": problem.window,
            "strides": _strides(problem),
            "dilation_rate": _dilation_rate(problem),
            "border": problem.rows.border,
            "content": int(problem.content),
            "query_bias": len(biases),
            "relative": int(_relative(problem)),
            "position_bias": int(isinstance(problem.position, PositionBias)),
            "scale": float(problem.scale),
            "epilogue": int(epilogue is not None),
            "relu": int(relu),
            "pool_size": pool,
        }

        def recompute(inputs, *weights):
            """The same by a product of the backend, also in float32."""
            weights = iter(weights)
            query, *key, value = itertools.islice(weights, len(kernels))
            query_bias = next(weights) if biases else None
            terms = tuple(itertools.islice(weights, len(position)))
            steps = itertools.islice(weights, 0 if epilogue is None else 2)
            finish = Epilogue(*steps, relu, pool) if epilogue else None
            output = self._project_and_attend(
                problem,
                ops.cast(inputs, "float32"),
                Projections(
                    query,
                    key[0] if key else None,
                    value,
                    query_bias,
                    next(weights, None),
                    ops.zeros_like(query_bias) if biases else None,
                ),
                terms,
                "float32",
            )
            if finish is not None:
                output = finish.apply(output)
            return ops.cast(output, dtype)

        def results(shapes):
            batch = dimension(shapes, 0, 0)
            sizes = (
                dimension(shapes, 0, number + 1, axis.stride * pool)
                for number, axis in enumerate(problem.axes)
            )
            return [Spec((batch, *sizes, projections.filters), dtype)]

        return custom_call.with_recomputed_gradient(
            operands,
            forward=targets.PROJECTED,
            results=results,
            attributes=attributes,
            recompute=recompute,
        )

    def attend(
        self,
        problem: Problem,
        query: Channels,
        key: Channels | None,
        value: Channels,
        position: tuple = (),
        dtype: str = "float32",
    ) -> Any:
        """Attends to channels of float32 or bfloat16 tensors.

        Args:
            problem: Description of the call.
            query: The queries.
            key: The keys, or `None` without the term q.k.
            value: The values.
            position: The weights of the position term, in float32.
            dtype: Type of the output, `"float32"` or `"bfloat16"`. All
                computations are in float32.

        Returns:
            The output `(batch, rows, columns, filters)`.
        """
        sources, places = [], []
        for channels in (query, key, value):
            if channels is None:
                places += [-1, 0]
                continue
            number = _source(sources, channels)
            sources[number].append(channels)
            places += [number, channels.first]
        tensors = [source[0].tensor for source in sources]
        attributes = {
            "sources": len(tensors),
            "places": tuple(places),
            "filters": value.count,
            "num_heads": problem.num_heads,
            "kernel_size": problem.window,
            "strides": _strides(problem),
            "dilation_rate": _dilation_rate(problem),
            "padding": problem.rows.padding,
            "border": problem.rows.border,
            "relative": int(_relative(problem)),
            "position_bias": int(isinstance(problem.position, PositionBias)),
            "scale": float(problem.scale),
        }

        def recompute(*operands):
            maps = [
                None
                if source < 0
                else ops.cast(
                    take_range(operands[source], 3, first, value.count),
                    "float32",
                )
                for source, first in zip(places[::2], places[1::2], strict=True)
            ]
            if maps[1] is not None and problem.scale != 1:
                maps[1] = maps[1] * problem.scale
            output, _ = self._recompute.compute(
                request(problem, scale=1.0), *maps, operands[len(tensors) :]
            )
            return ops.cast(output, dtype)

        def results(shapes):
            """The output and the sums kept for the gradient."""
            batch, height, width = (
                dimension(shapes, places[0], axis) for axis in range(3)
            )
            return (
                Spec((batch, height, width, value.count), dtype),
                Spec((batch, problem.num_heads, height, width)),
            )

        return custom_call.with_gradient(
            [*tensors, *position],
            forward=targets.FORWARD,
            backward=targets.BACKWARD,
            results=results,
            attributes=attributes,
            recompute=recompute,
        )


def _relative(problem):
    return isinstance(problem.position, RowColumnEmbeddings)


def _key_bias(projections):
    """Returns whether there are keys and they have a bias."""
    return projections.use_bias and projections.key_kernel is not None


def _with_offset(epilogue, bias):
    """Returns the epilogue of an output to which a bias is added first."""
    bias = ops.cast(bias, "float32")
    if epilogue is None:
        return Epilogue(ops.ones_like(bias), bias)
    offset = epilogue.offset + bias * epilogue.scale
    return dataclasses.replace(epilogue, offset=offset)


def _finishes(problem, epilogue):
    """Returns whether the call that projects computes the epilogue, too."""
    # A task computes rows that are `dilation_rate` apart, but averages are of
    # adjacent rows.
    return epilogue.pool == 1 or problem.rows.dilation_rate == 1


def _map_dtype(tensor):
    """Returns the type in which the kernel takes a map."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return dtype if dtype == "bfloat16" else "float32"


def _strides(problem):
    return tuple(axis.stride for axis in problem.axes)


def _dilation_rate(problem):
    return tuple(axis.dilation_rate for axis in problem.axes)


def _source(sources, channels):
    """Number of the source that holds the channels, perhaps a new one.

    Channels that overlap are sources of their own: each source has a gradient,
    in which every channel is written once.
    """
    for number, source in enumerate(sources):
        if source[0].tensor is channels.tensor and all(
            abs(other.first - channels.first) >= channels.count
            for other in source
        ):
            return number
    sources.append([])
    return len(sources) - 1
