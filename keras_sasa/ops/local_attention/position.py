"""Position terms: the part of a logit that depends on where the key is.

A term is a frozen part of the problem. It knows the names and shapes of its
weights and computes its logits; layers and implementations pass the weights on
as one opaque tuple.
"""

import dataclasses
from typing import Any

from keras import ops


class PositionTerm:
    """Base of position terms.

    Attributes:
        weight_names: Names of the weights, in the order of the tuple.
    """

    weight_names: tuple[str, ...]

    def weight_shapes(
        self, window: tuple[int, int], num_heads: int, filters: int
    ) -> tuple[tuple[int, ...], ...]:
        """Returns the shapes of the weights.

        Args:
            window: Height and width of the window.
            num_heads: Number of heads.
            filters: Channels of the queries of all heads.
        """
        raise NotImplementedError

    def check_heads(self, filters: int, num_heads: int) -> None:
        """Raises `ValueError` if the term does not fit the heads."""

    def logits(self, query: Any, weights: tuple) -> Any:
        """Computes the term for every key of the window.

        Args:
            query: `(batch, rows, columns, num_heads, head width)`.
            weights: The weights of the term.

        Returns:
            What broadcasts to `(batch, rows, columns, num_heads, window height,
            window width)`.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class RowColumnEmbeddings(PositionTerm):
    """q.r, with r the concatenation of a row and a column embedding.

    The first half of the query of a head meets the row embedding, the second
    half the column embedding. So the term is a sum over the two axes, which
    implementations may compute separately.

    Weights are `row_embedding` and `column_embedding`, `(size of the window,
    num_heads, head width / 2)`; index 0 is the top or the left of the window.
    """

    weight_names = ("row_embedding", "column_embedding")

    def weight_shapes(self, window, num_heads, filters):
        half = filters // num_heads // 2
        return tuple((size, num_heads, half) for size in window)

    def check_heads(self, filters, num_heads):
        if filters // num_heads % 2:
            raise ValueError(
                "With relative positions `filters / num_heads` must be even: "
                "half of a head meets the row embedding, the other half the "
                "column embedding. "
                f"Received: filters={filters}, num_heads={num_heads}."
            )

    def by_axis(self, query: Any, weights: tuple) -> tuple[Any, Any]:
        """Returns, for each axis, the queries and the embedding they meet.

        Args:
            query: `(..., head width)`.
            weights: Row and column embedding.

        Returns:
            Two pairs: queries `(..., head width / 2)` and an embedding. The
            logits are the sum of the products of the two pairs.
        """
        halves = ops.split(query, 2, axis=-1)
        return tuple(zip(halves, weights, strict=True))

    def logits(self, query, weights):
        rows, columns = (
            ops.einsum("bpqnd,knd->bpqnk", half, embedding)
            for half, embedding in self.by_axis(query, weights)
        )
        return rows[..., :, None] + columns[..., None, :]
