"""The methods that every implementation of block attention has."""

from typing import Any

from keras import ops

from keras_sasa.ops.block_attention.blocks import pool
from keras_sasa.ops.block_attention.problem import BlockProblem
from keras_sasa.ops.dispatch import Implementation


class BlockAttention(Implementation):
    """One way to compute attention within blocks."""

    def compute(
        self,
        problem: BlockProblem,
        inputs: Any,
        query_kernel: Any,
        key_kernel: Any,
        value: Any,
    ) -> Any:
        """Lets the pixels of every block attend to each other.

        Args:
            problem: Description of the call.
            inputs: `(batch, height, width, channels)`.
            query_kernel: `(channels, filters)`.
            key_kernel: `(channels, filters)`.
            value: `(block_size ** 2, channels, filters)` or `(1, channels,
                filters)`; if `problem.value_map`, `(batch, height, width,
                filters)`.

        Returns:
            `(batch, height, width, filters)` in the dtype of `inputs`.
        """
        raise NotImplementedError

    def compute_pooled(
        self,
        problem: BlockProblem,
        inputs: Any,
        query_kernel: Any,
        key_kernel: Any,
        value: Any,
        scale: Any,
        offset: Any,
    ) -> Any:
        """Attends, computes `scale * y + offset` and pools every block.

        An implementation may override it to fuse these steps.

        Args:
            problem: Description of the call.
            inputs: As in `compute`, as are the next three.
            query_kernel: `(channels, filters)`.
            key_kernel: `(channels, filters)`.
            value: Matrices or a map.
            scale: `(filters,)`, of the type of `problem.dtype`.
            offset: `(filters,)`, the same.

        Returns:
            `(batch, block rows, block columns, filters)` in the dtype of
            `inputs`.
        """
        maps = self.compute(problem, inputs, query_kernel, key_kernel, value)
        maps = ops.cast(maps, scale.dtype) * scale + offset
        return pool(ops.cast(maps, inputs.dtype), problem.block_size)
