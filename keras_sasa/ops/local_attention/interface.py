"""The methods that every implementation of local attention has."""

from typing import Any

from keras import ops

from keras_sasa.ops.dispatch import Implementation
from keras_sasa.ops.local_attention.epilogue import Epilogue
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.projections import Projections, project


class LocalAttention(Implementation):
    """One way to compute local attention.

    B batch, H height, W width of keys, P height, Q width of queries, N heads,
    D channels per head, K window height, L window width.
    """

    def scales(self, problem: Problem) -> bool:
        """Returns whether it multiplies q.k by `problem.scale` itself.

        Other implementations get keys that were multiplied, and a scale of 1.
        """
        return False

    def compute(
        self,
        problem: Problem,
        query: Any,
        key: Any,
        value: Any,
        position: tuple = (),
        mask: Any = None,
        dropout_mask: Any = None,
    ) -> tuple[Any, Any]:
        """Lets every query attend to the keys of its window.

        Args:
            problem: Description of the call.
            query: `(B, P, Q, N * D)`, like all tensors in `problem.dtype`.
            key: `(B, H, W, N * D)`, or `None` without the term q.k.
            value: `(B, H, W, N * D)`.
            position: The weights of the position term, also in
                `problem.dtype`.
            mask: `(B, H, W)`, true where a pixel may be attended to, or `None`.
            dropout_mask: `(B, P, Q, N, K, L)`, factors of the weights, or
                `None`.

        Returns:
            The output `(B, P, Q, N * D)` and, if `problem.scores`, the weights
            before `dropout_mask`, `(B, P, Q, N, K, L)`.
        """
        raise NotImplementedError

    def compute_projected(
        self,
        problem: Problem,
        inputs: Any,
        projections: Projections,
        position: tuple = (),
        mask: Any = None,
        dropout_mask: Any = None,
        epilogue: Epilogue | None = None,
    ) -> tuple[Any, Any]:
        """Projects an image and attends; arguments and results as above.

        An implementation may override it to project in a way of its own.

        Args:
            problem: Description of the call.
            inputs: `(B, H, W, channels)`, of any floating point type. Products
                are in that type, all else is in `problem.dtype`.
            projections: The kernels and biases.
            position: The weights of the position term, in `problem.dtype`.
            mask: As in `compute`.
            dropout_mask: As in `compute`.
            epilogue: Further steps for the output, in `problem.dtype`.
        """
        filters = projections.filters
        # All parts of a tensor at once: a split has one gradient, but slices
        # have one each, as large as the tensor, and a sum.
        parts = {}

        def cut(part):
            if part is None:
                return None
            tensor, first = part
            if id(tensor) not in parts:
                count = tensor.shape[-1] // filters
                parts[id(tensor)] = ops.split(tensor, count, axis=-1)
            tensor = parts[id(tensor)][first // filters]
            return ops.cast(tensor, problem.dtype)

        output, scores = self.compute(
            problem,
            *map(cut, project(problem, inputs, projections)),
            position,
            mask,
            dropout_mask,
        )
        if epilogue is not None:
            output = epilogue.apply(output)
        return output, scores
