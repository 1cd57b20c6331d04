"""Local self-attention by the compiled kernel, a custom call of XLA on CPU.

The kernel (`keras_sasa/kernels`) never has the attention weights of a whole map
in memory: the forward pass keeps one number per query and head, log2 of the sum
of the exponentials, from which the backward pass recomputes them.

Operands are the tensors that hold queries, keys and values (one tensor may hold
several side by side) and the embeddings; attributes describe the windows.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_sasa.kernels import custom_call, targets
from keras_sasa.kernels.dimensions import dimension
from keras_sasa.ops.local_attention.epilogue import Epilogue
from keras_sasa.ops.local_attention.interface import LocalAttention
from keras_sasa.ops.local_attention.position import RowColumnEmbeddings
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.projections import Projections, project
from keras_sasa.ops.native import NativeImplementation


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
            (problem.shifts, "moves no windows at the border"),
            (
                not isinstance(problem.position, RowColumnEmbeddings | None),
                "knows no other positions than row and column embeddings",
            ),
        ):
            if unsupported:
                return f"it {reason}"
        return super().unsupported_reason(problem)

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
        finish = None  # The part of the epilogue that is not in the call.
        if (
            # The gradient needs queries, keys and values in memory.
            problem.training
            or projections.use_bias
            or problem.rows.padding != "same"
        ):
            finish = epilogue
            output = self._project_and_attend(
                problem, inputs, projections, position
            )
        else:
            if epilogue is not None and not _finishes(problem, epilogue):
                finish, epilogue = epilogue, None
            output = self._fused(
                problem, inputs, projections, position, epilogue
            )
        return output if finish is None else finish.apply(output), None

    def _project_and_attend(self, problem, inputs, projections, position):
        """Projects by a product of the backend, in the type of the inputs."""
        filters = projections.filters
        # Channels of one tensor must be channels of one tensor after the cast.
        casts = {}

        def channels(part):
            if part is None:
                return None
            tensor, first = part
            if id(tensor) not in casts:
                casts[id(tensor)] = ops.cast(tensor, "float32")
            return Channels(casts[id(tensor)], first, filters)

        return self.attend(
            problem,
            *map(channels, project(problem, inputs, projections)),
            position,
        )

    def _fused(self, problem, inputs, projections, position, epilogue):
        """Projects, attends and finishes in one call, all in float32.

        Queries, keys and values are never in memory. A gradient, which needs
        them, computes them again.
        """
        kernels = projections.kernels
        operands = [
            *(ops.cast(operand, "float32") for operand in (inputs, *kernels)),
            *position,
        ]
        relu, pool = False, 1
        if epilogue is not None:
            operands += [epilogue.scale, epilogue.offset]
            relu, pool = epilogue.relu, epilogue.pool
        attributes = {
            "filters": projections.filters,
            "num_heads": problem.num_heads,
            "kernel_size": problem.window,
            "strides": _strides(problem),
            "dilation_rate": _dilation_rate(problem),
            "content": int(problem.content),
            "relative": int(problem.position is not None),
            "epilogue": int(epilogue is not None),
            "relu": int(relu),
            "pool_size": pool,
        }

        def recompute(inputs, *weights):
            query, *key, value = weights[: len(kernels)]
            weights = weights[len(kernels) :]
            output = self._project_and_attend(
                problem,
                inputs,
                Projections(query, key[0] if key else None, value),
                weights[: len(position)],
            )
            if epilogue is None:
                return output
            return Epilogue(*weights[len(position) :], relu, pool).apply(output)

        def results(shapes):
            batch = dimension(shapes, 0, 0)
            sizes = (
                dimension(shapes, 0, number + 1, axis.stride * pool)
                for number, axis in enumerate(problem.axes)
            )
            return [(batch, *sizes, projections.filters)]

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
    ) -> Any:
        """Attends to channels of float32 tensors.

        Args:
            problem: Description of the call.
            query: The queries.
            key: The keys, or `None` without the term q.k.
            value: The values.
            position: The weights of the position term.

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
            "relative": int(problem.position is not None),
        }

        def recompute(*operands):
            maps = [
                None
                if source < 0
                else operands[source][..., first : first + value.count]
                for source, first in zip(places[::2], places[1::2], strict=True)
            ]
            output, _ = self._recompute.compute(
                problem, *maps, operands[len(tensors) :]
            )
            return output

        def results(shapes):
            """Shapes of the output and of the sums kept for the gradient."""
            batch, height, width = (
                dimension(shapes, places[0], axis) for axis in range(3)
            )
            return (
                (batch, height, width, value.count),
                (batch, problem.num_heads, height, width),
            )

        return custom_call.with_gradient(
            [*tensors, *position],
            forward=targets.FORWARD,
            backward=targets.BACKWARD,
            results=results,
            attributes=attributes,
            recompute=recompute,
        )


def _finishes(problem, epilogue):
    """Returns whether the call that projects computes the epilogue, too."""
    # A task computes rows that are `dilation_rate` apart, but averages are of
    # adjacent rows.
    return epilogue.pool == 1 or problem.rows.dilation_rate == 1


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
