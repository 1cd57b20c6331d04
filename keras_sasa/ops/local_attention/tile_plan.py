"""Maps cut into bands and tiles, and put together again.

B batch x heads (x phases of the dilation), P and Q padded rows and columns of
queries, H and W padded rows and columns of keys, T queries of a tile, U keys
of a tile, K and L window height and width, C channels.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.query_tiles import (
    AxisTiles,
    choose_band,
    choose_tile,
)
from keras_sasa.ops.sizes import arange, ceil_divide, reshape


def make_plan(problem: Problem, keys, queries, one_band: bool) -> "TilePlan":
    """Chooses tiles and bands.

    Args:
        problem: Description of the call.
        keys: Height and width of the map of keys.
        queries: Height and width of the map of queries.
        one_band: Whether all rows are computed together.
    """
    (rows, columns), phases = (
        problem.axes,
        [axis.dilation_rate for axis in problem.axes],
    )
    keys, queries = (
        [
            ceil_divide(size, phase)
            for size, phase in zip(sizes, phases, strict=True)
        ]
        for sizes in (keys, queries)
    )
    tile = choose_tile(queries[0], rows.stride)
    tiles = ceil_divide(queries[0], tile)
    band = tiles if one_band else choose_band(tiles)
    bands = _axis_tiles(rows, keys[0], queries[0], band * tile)
    return TilePlan(
        bands=bands,
        num_bands=1 if one_band else bands.tiles,
        rows=dataclasses.replace(bands, queries=band * tile, tile=tile),
        columns=_axis_tiles(
            columns,
            keys[1],
            queries[1],
            choose_tile(queries[1], columns.stride),
        ),
        num_heads=problem.num_heads,
        phases=phases[0] * phases[1],
        dtype=problem.dtype,
        masked=problem.masked,
    )


def _axis_tiles(axis, keys, queries, tile):
    return AxisTiles(
        kernel_size=axis.offsets,
        stride=axis.stride,
        margin=(
            axis.offsets // 2
            if axis.shifts
            else axis.margin // axis.dilation_rate
        ),
        size=keys,
        queries=queries,
        tile=tile,
        moving=axis.kernel_size if axis.shifts else None,
    )


@dataclasses.dataclass(frozen=True)
class TilePlan:
    """How maps are cut: into bands, and these into tiles.

    Attributes:
        bands: The rows of the map, cut into bands.
        num_bands: Number of bands. If all rows are one band, it is known even
            where sizes are not.
        rows: The rows of one band, cut into tiles.
        columns: The columns of the map, cut into tiles.
        num_heads: Number of heads.
        phases: Number of phases of the dilation.
        dtype: Type of the computation.
        masked: Whether a query may be left without any key.
    """

    bands: AxisTiles
    num_bands: Any
    rows: AxisTiles
    columns: AxisTiles
    num_heads: int
    phases: int
    dtype: str
    masked: bool

    @property
    def tile_size(self) -> int:
        return self.rows.tile * self.columns.tile

    @property
    def tile_keys(self) -> int:
        return self.rows.tile_keys * self.columns.tile_keys

    @property
    def sides(self) -> int:
        """Rows and columns of a tile's keys."""
        return self.rows.tile_keys + self.columns.tile_keys

    @property
    def window_size(self) -> int:
        return self.rows.kernel_size * self.columns.kernel_size

    def pad_queries(self, maps):
        return ops.pad(
            maps,
            (
                (0, 0),
                (0, self.bands.padded_queries - self.bands.queries),
                (0, self.columns.padded_queries - self.columns.queries),
                (0, 0),
            ),
        )

    def pad_keys(self, maps):
        return ops.pad(
            maps,
            (
                (0, 0),
                self.bands.key_padding(),
                self.columns.key_padding(),
                (0, 0),
            ),
        )

    def crop(self, maps):
        return maps[:, : self.bands.queries, : self.columns.queries]

    def gather_queries(self, band):
        """`(B, rows of a band, Q, C)` -> `(B, tiles, T, C)`."""
        return _gather_tiles(
            band, self.rows.tile_query_index(), self.columns.tile_query_index()
        )

    def scatter_queries(self, tiles):
        """The inverse of `gather_queries`."""
        batch, _, _, channels = ops.shape(tiles)
        high, wide = self.rows.tiles, self.columns.tiles
        tiles = ops.reshape(
            tiles,
            (batch, high, wide, self.rows.tile, self.columns.tile, channels),
        )
        tiles = ops.transpose(tiles, (0, 1, 3, 2, 4, 5))
        return ops.reshape(
            tiles,
            (
                batch,
                high * self.rows.tile,
                wide * self.columns.tile,
                channels,
            ),
        )

    def gather_keys(self, band):
        """`(B, rows of keys, W, C)` -> `(B, tiles, U, C)`."""
        return _gather_tiles(
            band, self.rows.tile_key_index(), self.columns.tile_key_index()
        )

    def add_keys(self, tiles, wide):
        """The transpose of `gather_keys`: adds where tiles overlap.

        Args:
            tiles: `(B, tiles, U, C)`.
            wide: W, the columns of the padded map of keys.

        Returns:
            `(B, rows of keys of a band, W, C)`.
        """
        batch, _, _, channels = ops.shape(tiles)
        high, width = self.rows.tile_keys, self.columns.tile_keys
        places, exists = self.columns.overlap_index()
        # From (tile column, key column) to (tile row, tile column, key row,
        # key column), for every (tile row, key row).
        row = arange(self.rows.tiles)[:, None]
        row = row * self.columns.tiles * high + np.arange(high, dtype="int32")
        row = reshape(row, (-1, 1))
        index = (places // width * high)[:, None] + row
        index = index * width + (places % width)[:, None]
        number = self.rows.tiles * self.columns.tiles * high * width
        tiles = ops.reshape(tiles, (batch, number, channels))
        band = _take_and_add(tiles, index, exists[:, None])
        band = _pad_to(band, wide, axis=2)
        if isinstance(self.rows.tiles, int) and self.rows.tiles == 1:
            return band
        return self._add_rows(band, self.rows)

    def add_bands(self, bands, high):
        """`(bands, B, rows of keys, W, C)` -> `(B, high, W, C)`, adding up."""
        number, batch, rows, wide, channels = ops.shape(bands)
        if isinstance(number, int) and number == 1:
            return _pad_to(bands[0], high, axis=1)
        bands = ops.reshape(
            ops.transpose(bands, (1, 0, 2, 3, 4)),
            (batch, number * rows, wide, channels),
        )
        return _pad_to(self._add_rows(bands, self.bands), high, axis=1)

    def _add_rows(self, maps, tiles):
        batch, rows, wide, channels = ops.shape(maps)
        maps = ops.reshape(maps, (batch, rows, wide * channels))
        total = _take_and_add(maps, *tiles.overlap_index())
        return ops.reshape(total, (batch, tiles.padded_keys, wide, channels))

    def key_sides(self) -> np.ndarray:
        """Ones where a key is in a row or a column: `(U, sides)`."""
        high, wide = self.rows.tile_keys, self.columns.tile_keys
        return np.concatenate(
            [
                np.repeat(np.eye(high), wide, 0),
                np.tile(np.eye(wide), (high, 1)),
            ],
            axis=1,
        ).astype(self.dtype)

    def offset_index(self) -> np.ndarray:
        """`(T, U)`: the offset of a key in the flattened `(K * L,)`.

        Keys outside the window, which are masked, have any offset.
        """
        rows, columns = (
            np.minimum(axis.relative_index(), axis.kernel_size - 1)
            for axis in (self.rows, self.columns)
        )
        index = (
            rows[:, None, :, None] * self.columns.kernel_size
            + columns[None, :, None, :]
        )
        return index.reshape(self.tile_size, self.tile_keys).astype("int32")

    def window_mask(self) -> np.ndarray:
        """1 where a key is in the window of a query, else 0: `(T, U)`."""
        rows, columns = (
            axis.relative_index() < axis.kernel_size
            for axis in (self.rows, self.columns)
        )
        return (
            np.einsum("ik,jl->ijkl", rows, columns)
            .reshape(self.tile_size, self.tile_keys)
            .astype(self.dtype)
        )

    def window_keys_index(self) -> np.ndarray:
        """`(T, K * L)`: a query's window, in the flattened `(T, U)`."""
        rows, columns = self.rows.window_index(), self.columns.window_index()
        index = (
            rows[:, None, :, None] * self.columns.tile_keys
            + columns[None, :, None, :]
        ).reshape(self.tile_size, self.window_size)
        start = np.arange(self.tile_size)[:, None] * self.tile_keys
        return (index + start).astype("int32")

    def key_window_index(self) -> np.ndarray:
        """`(T, U)`: a key's place in the flattened `(T, K * L + 1)`."""
        index = np.full((self.tile_size, self.tile_keys), self.window_size)
        index += np.arange(self.tile_size)[:, None] * (self.window_size + 1)
        window = self.window_keys_index()
        order = np.arange(self.tile_size)[:, None] * (self.window_size + 1)
        index.reshape(-1)[window] = order + np.arange(self.window_size)
        return index.astype("int32")


def _gather_tiles(maps, rows, columns):
    """Takes the tiles of these rows and columns.

    Args:
        maps: `(B, high, wide, C)`.
        rows: `(tiles down, rows of a tile)`.
        columns: `(tiles across, columns of a tile)`.

    Returns:
        `(B, tiles, pixels of a tile, C)`.
    """
    batch, high, wide, channels = ops.shape(maps)
    index = rows[:, None, :, None] * wide + columns[None, :, None, :]
    pixels = rows.shape[1] * columns.shape[1]
    maps = ops.reshape(maps, (batch, high * wide, channels))
    return ops.take(maps, reshape(index, (-1, pixels)), axis=1)


def _pad_to(maps, size, axis):
    missing = size - ops.shape(maps)[axis]
    if isinstance(missing, int) and missing == 0:
        return maps
    padding = [(0, 0)] * 4
    padding[axis] = (0, missing)
    return ops.pad(maps, padding)


def _take_and_add(maps, index, exists):
    """Sums `maps[:, index[n]]` over n; entries that do not exist count 0.

    Taking is deterministic on every device, scattering is not.
    """
    batch, entries, channels = ops.shape(maps)
    _, *shape = ops.shape(index)
    # Entries that do not exist take a row of zeros. XLA on CPU (TensorFlow
    # 2.21) appends it to float64 maps wrongly; these are masked, which is
    # slower.
    append = keras.backend.standardize_dtype(maps.dtype) != "float64"
    if append:
        zero = ops.zeros((batch, 1, channels), dtype=maps.dtype)
        maps = ops.concatenate([maps, zero], axis=1)
    total = None
    for number in range(index.shape[0]):
        places, exist = index[number], exists[number]
        if append:
            places = ops.where(exist, places, entries)
        taken = ops.take(maps, ops.reshape(places, (-1,)), axis=1)
        if not append:
            exist = ops.broadcast_to(exist, ops.shape(places))
            taken = ops.where(ops.reshape(exist, (-1, 1)), taken, 0.0)
        total = taken if total is None else total + taken
    return ops.reshape(total, (batch, *shape, channels))


def take_per_query(tiles, index):
    """Takes within `(T, C)` of every tile: `(B, tiles, T, index columns)`."""
    batch, number, queries, entries = ops.shape(tiles)
    tiles = ops.reshape(tiles, (batch, number, queries * entries))
    return ops.take(tiles, index, axis=2)
