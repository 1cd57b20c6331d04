"""Where windows lie: sizes, offsets and tiles, one image axis at a time.

Windows are centred on their query, so that a strided output is the stride-1
output `[::stride]` whatever the parity of the image. Sizes are Python integers
where they are known and scalar tensors where they are not; the arithmetic here
serves both.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

PADDINGS = ("same", "valid")

# Logit of a key that takes no part. exp(-1e30 - maximum) is exactly 0 in
# float32 and float64, and unlike -inf it never turns into NaN.
MASKED_LOGIT = -1e30


def pair(value: Any, name: str) -> tuple[int, int]:
    """Returns `value` as `(height, width)`; both positive integers."""
    values = (value, value) if isinstance(value, (int, np.integer)) else value
    if (
        not isinstance(values, (tuple, list))
        or len(values) != 2
        or not all(isinstance(v, (int, np.integer)) for v in values)
        or any(isinstance(v, bool) or v < 1 for v in values)
    ):
        raise ValueError(
            f"`{name}` must be a positive integer or a pair of them "
            f"(height, width). Received: {name}={value!r}."
        )
    return int(values[0]), int(values[1])


def check_window(
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    dilation_rate: tuple[int, int],
) -> None:
    """Raises `ValueError` for windows that have no centre or no meaning."""
    if any(size % 2 == 0 for size in kernel_size):
        raise ValueError(
            "`kernel_size` must be odd, so that every window has a centre "
            f"pixel. Received: kernel_size={kernel_size}."
        )
    if padding not in PADDINGS:
        raise ValueError(
            f"`padding` must be one of {PADDINGS}. "
            f"Received: padding={padding!r}."
        )
    if max(strides) > 1 and max(dilation_rate) > 1:
        raise ValueError(
            "`strides` > 1 and `dilation_rate` > 1 cannot be combined, as in "
            f"`keras.layers.Conv2D`. Received: strides={strides}, "
            f"dilation_rate={dilation_rate}."
        )


def ceil_divide(size: Any, divisor: int) -> Any:
    """Divides and rounds up, without what ONNX rounds to zero.

    tf2onnx 1.17 writes `//` and `%` of negative integers as a division that
    rounds to zero, so that the usual `-(-size // divisor)` rounds down there.
    """
    return (size + divisor - 1) // divisor


@dataclasses.dataclass(frozen=True)
class Axis:
    """The windows along one axis of the image."""

    kernel_size: int
    stride: int
    padding: str
    dilation_rate: int

    @property
    def reach(self) -> int:
        """Pixels between a window's centre and its border."""
        return self.dilation_rate * (self.kernel_size // 2)

    @property
    def margin(self) -> int:
        """Pixels outside the image that the first window covers."""
        return self.reach if self.padding == "same" else 0

    @property
    def first_query(self) -> int:
        """Position in the image of the first query."""
        return self.reach - self.margin

    def output_size(self, size: Any) -> Any:
        """Number of queries on an axis of `size` pixels; below 1 if none."""
        span = size - 2 * self.first_query
        return ceil_divide(span, self.stride)

    def queries(self) -> slice:
        """The slice of the image that holds the queries."""
        first = self.first_query
        return slice(first, -first or None, self.stride)


def axes(
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    dilation_rate: tuple[int, int],
) -> tuple[Axis, Axis]:
    """Returns the vertical and the horizontal axis."""
    return tuple(
        Axis(kernel, stride, padding, dilation)
        for kernel, stride, dilation in zip(
            kernel_size, strides, dilation_rate, strict=True
        )
    )


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Query tiles and the keys they see (tile and halo) along one axis.

    Queries and keys are those of one dilation phase, where neighbours in a
    window are neighbours in memory.
    """

    kernel_size: int
    stride: int
    margin: int
    size: Any
    queries: Any
    tile: int

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

        A stride may leave the last keys unseen; they stay, unused, so that
        the second number is never negative.
        """
        after = self.padded_keys - self.margin - self.size
        if isinstance(after, int):
            return self.margin, max(after, 0)
        return self.margin, ops.maximum(after, 0)

    def relative_index(self) -> np.ndarray:
        """Offset of every key of a tile in the window of every query.

        Returns:
            Integers `(tile, tile_keys)`; `kernel_size` stands for "not in the
            window of this query".
        """
        query = np.arange(self.tile)[:, None] * self.stride
        offset = np.arange(self.tile_keys)[None, :] - query
        inside = (offset >= 0) & (offset < self.kernel_size)
        return np.where(inside, offset, self.kernel_size)

    def mask_logits(self, phases: int, size: Any, dtype: str) -> Any:
        """0 where a key is in the window and in the image.

        Args:
            phases: Phases of the dilation; phase n holds pixels n, n + phases,
                n + 2 phases.
            size: Pixels of the image.
            dtype: Floating point type of the result.

        Returns:
            `(phases, padded_queries, tile_keys)`, `MASKED_LOGIT` elsewhere.
        """
        window = (self.relative_index() < self.kernel_size)[None, None]
        place = (self.tile_key_index() - self.margin)[None, :, None, :]
        phase = np.arange(phases, dtype="int32")[:, None, None, None]
        inside = (place >= 0) & (place * phases + phase < size) & window
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
            key in the flattened `(tiles, tile_keys)`, and whether there are
            that many.
        """
        key = arange(self.padded_keys)[None, :]
        back = np.arange(self.overlap, dtype="int32")[:, None]
        tile = key // self.step - back
        place = key - tile * self.step
        exists = (tile >= 0) & (tile < self.tiles) & (place < self.tile_keys)
        flat = tile * self.tile_keys + place
        where = np.where if isinstance(exists, np.ndarray) else ops.where
        return where(exists, flat, 0), exists


def arange(size: Any) -> Any:
    """`0, 1, ... size - 1`, in NumPy where `size` is known."""
    if isinstance(size, int):
        return np.arange(size, dtype="int32")
    return ops.arange(size, dtype="int32")


def reshape(index: Any, shape: tuple[int, ...]) -> Any:
    """Reshapes an index table, in NumPy where it is known."""
    known = isinstance(index, np.ndarray)
    return index.reshape(shape) if known else ops.reshape(index, shape)


def choose_tile(queries: Any, stride: int) -> int:
    """Number of queries along one side of a tile.

    A small map is one tile: dense masked attention. On a larger one, small
    tiles compute fewer keys that the mask throws away, large tiles copy fewer
    keys of the halo; the numbers were measured with
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

    Many make few, large products, few keep memory small.
    """
    return max(tiles, 1) if isinstance(tiles, int) and tiles <= 8 else 2
