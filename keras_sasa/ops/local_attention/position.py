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
        self, offsets: tuple[int, int], num_heads: int, filters: int
    ) -> tuple[tuple[int, ...], ...]:
        """Returns the shapes of the weights.

        Args:
            offsets: Numbers of different offsets between a query and its keys,
                vertically and horizontally; see `WindowAxis.offsets`.
            num_heads: Number of heads.
            filters: Channels of the queries of all heads.
        """
        raise NotImplementedError

    def check_heads(self, filters: int, num_heads: int) -> None:
        """Raises `ValueError` if the term does not fit the heads."""

    def logits(
        self, query: Any, weights: tuple, key_offsets: tuple[Any, Any]
    ) -> Any:
        """Computes the term for every key of the window.

        Args:
            query: `(batch, rows, columns, num_heads, head width)`.
            weights: The weights of the term.
            key_offsets: The numbers of the offsets of the keys, `(rows or 1,
                window height)` and `(columns or 1, window width)`; see
                `WindowAxis.key_offsets`.

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

    Weights are `row_embedding` and `column_embedding`, `(offsets, num_heads,
    head width / 2)`; index 0 is the farthest offset to the top or the left.
    """

    weight_names = ("row_embedding", "column_embedding")

    def weight_shapes(self, offsets, num_heads, filters):
        half = filters // num_heads // 2
        return tuple((number, num_heads, half) for number in offsets)

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

    def logits(self, query, weights, key_offsets):
        (top, rows), (bottom, columns) = (
            (half, ops.take(embedding, offsets, axis=0))
            for (half, embedding), offsets in zip(
                self.by_axis(query, weights), key_offsets, strict=True
            )
        )
        rows = _products("bpqnd,pknd->bpqnk", top, rows)
        columns = _products("bpqnd,qknd->bpqnk", bottom, columns)
        return rows[..., :, None] + columns[..., None, :]


def _products(equation, query, embeddings):
    """Products with an embedding of each query, or with one for all."""
    if embeddings.shape[0] == 1:
        return ops.einsum("bpqnd,knd->bpqnk", query, embeddings[0])
    return ops.einsum(equation, query, embeddings)


@dataclasses.dataclass(frozen=True)
class PositionBias(PositionTerm):
    """A number for each head and each offset, whatever the query.

    The weight is `position_bias`, `(num_heads, vertical offsets, horizontal
    offsets)`; indices 0 are the farthest offset to the top and to the left.

    Reference:
        [Hassani et al., 2023](https://arxiv.org/abs/2204.07143), equation 2.
    """

    weight_names = ("position_bias",)

    def weight_shapes(self, offsets, num_heads, filters):
        return ((num_heads, *offsets),)

    def logits(self, query, weights, key_offsets):
        (bias,) = weights
        rows, columns = key_offsets
        # (N, P, K, S), then (N, P, K, Q, L).
        bias = ops.take(ops.take(bias, rows, axis=1), columns, axis=3)
        return ops.transpose(bias, (1, 3, 0, 2, 4))[None]
