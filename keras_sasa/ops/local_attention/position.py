"""Position terms: the part of a logit that knows where a key is.

A position term owns the shapes of its weights and computes its logits. Layers
and implementations pass its weights along as one tuple.
"""

import dataclasses
from typing import Any

from keras import ops


@dataclasses.dataclass(frozen=True)
class RowColumnEmbeddings:
    """q.r, with r the row embedding and the column embedding concatenated.

    The first half of the query of a head meets the row embedding, the second
    half the column embedding. So the term is a sum over the two axes, which
    implementations may compute apart.
    """

    # The weights by name, in the order in which they are passed.
    weight_names = ("row_embedding", "column_embedding")

    def check_heads(self, filters: int, num_heads: int) -> None:
        """Raises `ValueError` unless a head has two halves."""
        if filters // num_heads % 2:
            raise ValueError(
                "With relative positions `filters / num_heads` must be even: "
                "half of a head meets the row, half the column embedding. "
                f"Received: filters={filters}, num_heads={num_heads}."
            )

    def weight_shapes(
        self, window: tuple[int, int], num_heads: int, filters: int
    ) -> tuple[tuple[int, ...], ...]:
        """Returns the shapes of the weights.

        Args:
            window: Height and width of the window.
            num_heads: Number of heads.
            filters: Channels of the queries, of all heads.

        Returns:
            For each weight `(size of the window, num_heads, half a head)`;
            index 0 is the top or the left of the window.
        """
        half = filters // num_heads // 2
        return tuple((size, num_heads, half) for size in window)

    def by_axis(self, query: Any, weights: Any) -> tuple[Any, Any]:
        """Returns, for each axis, the queries and the embedding they meet.

        Args:
            query: `(..., head width)`.
            weights: Row and column embedding.

        Returns:
            Two pairs of queries `(..., head width / 2)` and an embedding
            `(size of the window, num_heads, head width / 2)`. The logits of
            the term are the sum of the products of the two pairs.
        """
        halves = ops.split(query, 2, axis=-1)
        return tuple(zip(halves, weights, strict=True))

    def logits(self, query: Any, weights: Any) -> Any:
        """Computes the term for every key of the window.

        Args:
            query: `(batch, rows, columns, num_heads, head width)`.
            weights: Row and column embedding.

        Returns:
            `(batch, rows, columns, num_heads, window height, window width)`.
        """
        rows, columns = (
            ops.einsum("bpqnd,knd->bpqnk", half, embedding)
            for half, embedding in self.by_axis(query, weights)
        )
        return rows[..., :, None] + columns[..., None, :]
