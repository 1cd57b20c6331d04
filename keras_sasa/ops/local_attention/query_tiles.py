"""Query tiles along one axis, and the tables of where their keys are."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_sasa.ops.sizes import arange, ceil_divide, clip
from keras_sasa.ops.softmax import MASKED_LOGIT


@dataclasses.dataclass(frozen=True)
class AxisTiles:
    """Query tiles and the keys they see (tile and halo) along one axis.

    They belong to one dilation phase, in which neighbours in a window are
    neighbours in memory. A window that moves at the border is part of one that
    does not move and has the keys of every offset.

    Attributes:
        kernel_size: Keys of a window that does not move.
        stride: Keys between two queries.
        margin: Padding before the first key of the image.
        size: Keys of the image.
        queries: Number of queries.
        tile: Queries of a tile.
        moving: Keys of a window that moves, or `None` if windows do not move.
    """

    kernel_size: int
    stride: int
    margin: int
    size: Any
    queries: Any
    tile: int
    moving: int | None = None

    @property
    def tiles(self) -> Any:
        return ceil_divide(self.queries, self.tile)

    @property
    def padded_queries(self) -> Any:
        return self.tiles * self.tile

    @property
    def step(self) -> int:
        """Keys between the starts of two neighbouring tiles."""
        return self.tile * self.stride

    @property
    def tile_keys(self) -> int:
        """Keys that one tile of queries sees."""
        return (self.tile - 1) * self.stride + self.kernel_size

    @property
    def padded_keys(self) -> Any:
        return (self.tiles - 1) * self.step + self.tile_keys

    @property
    def overlap(self) -> int:
        """Tiles, at most, that see the same key."""
        return ceil_divide(self.tile_keys, self.step)

    def key_padding(self) -> tuple[int, Any]:
        """Pixels to add before and after the image.

        A stride may leave the last keys unseen. They stay in the map, unused,
        so the second number is never negative.
        """
        after = self.padded_keys - self.margin - self.size
        if isinstance(after, int):
            return self.margin, max(after, 0)
        return self.margin, ops.maximum(after, 0)

    def relative_index(self) -> np.ndarray:
        """Offset of every key of a tile in the window of every query.

        Returns:
            Integers `(tile, tile_keys)`; `kernel_size` where a key is not in
            the window of the query.
        """
        query = np.arange(self.tile)[:, None] * self.stride
        offset = np.arange(self.tile_keys)[None, :] - query
        inside = (offset >= 0) & (offset < self.kernel_size)
        return np.where(inside, offset, self.kernel_size)

    def mask_logits(self, phases: int, size: Any, dtype: str) -> Any:
        """Returns 0 where a key is in the window and in the image.

        Args:
            phases: Number of dilation phases; phase n holds the pixels n,
                n + phases, n + 2 phases, ...
            size: Pixels of the image.
            dtype: Floating point type of the result.

        Returns:
            `(phases, padded_queries, tile_keys)`, `MASKED_LOGIT` elsewhere.
        """
        window = (self.relative_index() < self.kernel_size)[None, None]
        place = (self.tile_key_index() - self.margin)[None, :, None, :]
        phase = np.arange(phases, dtype="int32")[:, None, None, None]
        if self.moving is None:
            inside = (place >= 0) & (place * phases + phase < size) & window
        else:
            # The window of every query, among the pixels of its phase.
            last = ceil_divide(size - phase, phases) - self.moving
            query = self.tile_query_index()[None, :, :, None]
            first = clip(query - self.moving // 2, 0, last)
            inside = (place >= first) & (place < first + self.moving)
        mask = ops.cast(ops.where(inside, 0.0, MASKED_LOGIT), dtype)
        return ops.reshape(mask, (phases, -1, self.tile_keys))

    def window_index(self) -> np.ndarray:
        """Place in the tile's keys of every offset in a query's window.

        Returns:
            Integers `(tile, kernel_size)`.
        """
        query = np.arange(self.tile)[:, None] * self.stride
        return query + np.arange(self.kernel_size)[None, :]

    def tile_query_index(self) -> Any:
        """Position of every query of every tile: `(tiles, tile)`."""
        starts = arange(self.tiles) * self.tile
        return starts[:, None] + np.arange(self.tile, dtype="int32")[None, :]

    def tile_key_index(self) -> Any:
        """Padded position of every key of every tile: `(tiles, tile_keys)`."""
        starts = arange(self.tiles) * self.step
        keys = np.arange(self.tile_keys, dtype="int32")
        return starts[:, None] + keys[None, :]

    def overlap_index(self) -> tuple[Any, Any]:
        """Inverse of `tile_key_index`, for adding up gradients of keys.

        Returns:
            `(places, exists)`, both `(overlap, padded_keys)`: the places of a
            key in the flattened `(tiles, tile_keys)`, and which of them exist.
        """
        key = arange(self.padded_keys)[None, :]
        back = np.arange(self.overlap, dtype="int32")[:, None]
        tile = key // self.step - back
        place = key - tile * self.step
        exists = (tile >= 0) & (tile < self.tiles) & (place < self.tile_keys)
        flat = tile * self.tile_keys + place
        where = np.where if isinstance(exists, np.ndarray) else ops.where
        return where(exists, flat, 0), exists


def choose_tile(queries: Any, stride: int) -> int:
    """Number of queries along one side of a tile.

    A small map is one tile: dense masked attention. On a larger map, small
    tiles compute fewer products that the mask discards, and large tiles copy
    fewer keys of the halo. The numbers were measured with
    `benchmarks/local_attention.py`.
    """
    if not isinstance(queries, int):
        return 4
    target = 8 if queries < 28 else 4
    target = max(target // stride, 2)
    tiles = max(ceil_divide(queries, target), 1)
    return max(ceil_divide(queries, tiles), 1)


def choose_band(tiles: Any) -> int:
    """Number of rows of tiles that are computed together.

    Tall bands make few, large products; low bands keep memory small.
    """
    return max(tiles, 1) if isinstance(tiles, int) and tiles <= 8 else 2
