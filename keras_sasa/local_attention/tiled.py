"""Local self-attention on query tiles that share the keys of one halo.

The map is cut into tiles of neighbouring queries. A tile and its halo of keys
meet in one dense product, whose entries outside the exact window of a query
are masked. Bands (a few rows of tiles) are computed one after the other and
recomputed in the gradient, so no more than one band of attention weights is
in memory at a time.

What depends on the offset between query and key splits into rows and columns:
q.r, the border of the window, the border of the image. It is computed for the
rows and for the columns of a tile's keys and spread over the keys by a product
with a constant matrix of zeros and ones.

B batch x heads (x phases of the dilation), T queries of a tile,
U keys of a tile, D channels per head, K and L window height and width.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sasa.local_attention import geometry
from keras_sasa.local_attention.geometry import MASKED_LOGIT
from keras_sasa.local_attention.patches import softmax


def local_attention(
    query,
    key,
    value,
    row_embedding,
    column_embedding,
    *,
    axes: tuple[geometry.Axis, geometry.Axis],
    num_heads: int,
    mask=None,
    dropout_mask=None,
    return_attention_scores: bool = True,
):
    """Attends within windows; arguments and results as in `patches`.

    Without scores and dropout the attention weights are never all in memory;
    then the second result is `None`.
    """
    rows, columns = axes
    batch, height, width, filters = ops.shape(query)
    _, key_height, key_width, _ = ops.shape(value)
    explicit_weights = dropout_mask is not None or return_attention_scores
    plan = _plan(
        axes,
        keys=(key_height, key_width),
        queries=(height, width),
        one_band=explicit_weights,
        dtype=keras.backend.standardize_dtype(value.dtype),
        masked=mask is not None,
    )
    phases = _Phases(rows.dilation_rate, columns.dilation_rate)

    def heads_first(maps):
        maps = ops.reshape(
            maps, (batch, ops.shape(maps)[1], ops.shape(maps)[2], num_heads, -1)
        )
        maps = ops.transpose(maps, (0, 3, 1, 2, 4))
        shape = ops.shape(maps)
        return ops.reshape(maps, (batch * num_heads, *shape[2:]))

    query = plan.pad_queries(phases.split(heads_first(query)))
    value = plan.pad_keys(phases.split(heads_first(value)))
    position = _position_logits(
        plan,
        query,
        row_embedding,
        column_embedding,
        images=(batch, num_heads),
        phases=phases,
        sizes=(key_height, key_width),
    )
    if key is not None:
        key = plan.pad_keys(phases.split(heads_first(key)))
    elif mask is None:
        query, key = query[..., :1], ops.zeros_like(value[..., :1])
    if mask is not None:
        # A last channel of 1 in the query meets one in the key that is 0
        # where the key may be attended to.
        excluded = (1.0 - ops.cast(mask, value.dtype)) * MASKED_LOGIT
        excluded = ops.repeat(excluded[..., None], num_heads, axis=0)
        excluded = plan.pad_keys(phases.split(excluded))
        ones = ops.ones_like(query[..., :1])
        if key is None:
            query, key = ones, excluded
        else:
            query = ops.concatenate([query, ones], axis=-1)
            key = ops.concatenate([key, excluded], axis=-1)

    weights = None
    if not explicit_weights:
        output = _attend_by_bands(plan, query, key, value, position)
    else:
        if dropout_mask is not None:
            dropout_mask = ops.transpose(dropout_mask, (0, 3, 1, 2, 4, 5))
            dropout_mask = ops.reshape(
                dropout_mask,
                (batch * num_heads, height, width, plan.window_size),
            )
            dropout_mask = plan.pad_queries(phases.split(dropout_mask))
        output, weights = _attend_at_once(
            plan, query, key, value, position, dropout_mask
        )
        weights = phases.join(plan.crop(weights), height, width)
        weights = ops.reshape(
            weights,
            (
                batch,
                num_heads,
                height,
                width,
                rows.kernel_size,
                columns.kernel_size,
            ),
        )
        weights = ops.transpose(weights, (0, 2, 3, 1, 4, 5))
    output = phases.join(plan.crop(output), height, width)
    output = ops.reshape(
        output, (batch, num_heads, height, width, filters // num_heads)
    )
    output = ops.transpose(output, (0, 2, 3, 1, 4))
    return ops.reshape(output, (batch, height, width, filters)), weights


def _position_logits(
    plan, query, row_embedding, column_embedding, images, phases, sizes
):
    """Logits that depend on the place of a key: q.r and `MASKED_LOGIT`.

    Args:
        plan: The tilings.
        query: `(B, P, Q, D)`, padded.
        row_embedding: `(K, N, D / 2)` or `None`.
        column_embedding: `(L, N, D / 2)` or `None`.
        images: Batch size and N, number of heads.
        phases: Phases of the dilation.
        sizes: Height and width of the image.

    Returns:
        `(B, P, Q, sides)`: one logit for each row and one for each column of
        the keys of the query's tile. Outside the window and outside the image
        either is `MASKED_LOGIT`.
    """
    _, high, wide, channels = ops.shape(query)
    tiles = (
        dataclasses.replace(plan.rows, queries=plan.bands.padded_queries),
        plan.columns,
    )
    row_mask, column_mask = (
        tiling.mask_logits(rate, size, plan.dtype)
        for tiling, rate, size in zip(
            tiles, (phases.rows, phases.columns), sizes, strict=True
        )
    )
    # Few, large axes: TensorFlow does not broadcast many that alternate.
    row_mask = ops.repeat(row_mask, phases.columns, axis=0)
    row_mask = ops.reshape(row_mask, (-1, 1, plan.rows.tile_keys))
    column_mask = ops.reshape(
        column_mask, (phases.columns, 1, wide * plan.columns.tile_keys)
    )
    if row_embedding is None:
        zeros = ops.zeros_like(query[..., :1])
        rows = ops.repeat(zeros, plan.rows.tile_keys, axis=-1)
        columns = ops.repeat(zeros, plan.columns.tile_keys, axis=-1)
    else:
        top, bottom = ops.split(query, 2, axis=-1)
        half = channels // 2
        # The embedding is moved to the place of the window in the tile, which
        # is another one for every row (column) of the tile: one product each.
        rows = ops.reshape(top, (*images, -1, plan.rows.tile, wide, half))
        rows = ops.matmul(rows, _in_tile(row_embedding, plan.rows))
        columns = ops.reshape(
            bottom,
            (*images, -1, plan.columns.tiles, plan.columns.tile, half),
        )
        columns = ops.transpose(columns, (0, 1, 3, 4, 2, 5))
        columns = ops.matmul(columns, _in_tile(column_embedding, plan.columns))
        columns = ops.transpose(columns, (0, 1, 4, 2, 3, 5))
    rows = row_mask + ops.reshape(
        rows,
        (
            -1,
            phases.rows * phases.columns * high,
            wide,
            plan.rows.tile_keys,
        ),
    )
    columns = column_mask + ops.reshape(
        columns, (-1, phases.columns, high, wide * plan.columns.tile_keys)
    )
    return ops.concatenate(
        [
            ops.reshape(rows, (-1, high, wide, plan.rows.tile_keys)),
            ops.reshape(columns, (-1, high, wide, plan.columns.tile_keys)),
        ],
        axis=-1,
    )


def _in_tile(embedding, tiling):
    """`(K, N, C)` -> `(N, 1, tile, C, tile keys)`, 0 outside the window."""
    embedding = ops.pad(embedding, ((0, 1), (0, 0), (0, 0)))
    embedding = ops.take(embedding, tiling.relative_index(), axis=0)
    return ops.transpose(embedding, (2, 0, 3, 1))[:, None]


@dataclasses.dataclass(frozen=True)
class _Phases:
    """Maps cut into `rows * columns` maps of every n-th row and column.

    Inside one of them a dilated window is an ordinary one.
    """

    rows: int
    columns: int

    def split(self, maps, fill=0.0):
        """`(B, H, W, C)` -> `(B * rows * columns, H / rows, W / columns, C)`"""
        if self.rows == self.columns == 1:
            return maps
        batch, height, width, channels = ops.shape(maps)
        maps = ops.pad(
            maps,
            ((0, 0), (0, -height % self.rows), (0, -width % self.columns))
            + ((0, 0),),
            constant_values=fill,
        )
        high = -(-height // self.rows)
        wide = -(-width // self.columns)
        maps = ops.reshape(
            maps, (batch, high, self.rows, wide, self.columns, channels)
        )
        maps = ops.transpose(maps, (0, 2, 4, 1, 3, 5))
        return ops.reshape(
            maps, (batch * self.rows * self.columns, high, wide, channels)
        )

    def join(self, maps, height, width):
        """The inverse of `split`, back to `height` x `width`."""
        if self.rows == self.columns == 1:
            return maps
        batch, high, wide, channels = ops.shape(maps)
        batch = batch // (self.rows * self.columns)
        maps = ops.reshape(
            maps, (batch, self.rows, self.columns, high, wide, channels)
        )
        maps = ops.transpose(maps, (0, 3, 1, 4, 2, 5))
        maps = ops.reshape(
            maps, (batch, high * self.rows, wide * self.columns, channels)
        )
        return maps[:, :height, :width]


def _plan(axes, keys, queries, one_band, dtype, masked):
    """Chooses tiles and bands for maps of these sizes."""
    (rows, columns), phases = axes, [axis.dilation_rate for axis in axes]
    keys = [-(-size // phase) for size, phase in zip(keys, phases, strict=True)]
    queries = [
        -(-size // phase) for size, phase in zip(queries, phases, strict=True)
    ]
    tile = geometry.choose_tile(queries[0], rows.stride)
    tiles = -(-queries[0] // tile)
    band = tiles if one_band else geometry.choose_band(tiles)
    bands = _tiling(rows, keys[0], queries[0], band * tile)
    return _Plan(
        bands=bands,
        rows=dataclasses.replace(bands, queries=band * tile, tile=tile),
        columns=_tiling(
            columns,
            keys[1],
            queries[1],
            geometry.choose_tile(queries[1], columns.stride),
        ),
        dtype=dtype,
        masked=masked,
    )


def _tiling(axis, keys, queries, tile):
    return geometry.Tiling(
        kernel_size=axis.kernel_size,
        stride=axis.stride,
        margin=axis.margin // axis.dilation_rate,
        size=keys,
        queries=queries,
        tile=tile,
    )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How maps are cut: into bands, and these into tiles.

    Attributes:
        bands: The rows of the map, cut into bands.
        rows: The rows of one band, cut into tiles.
        columns: The columns of the map, cut into tiles.
        dtype: That of the computation.
        masked: Whether a query may be left without any key.
    """

    bands: geometry.Tiling
    rows: geometry.Tiling
    columns: geometry.Tiling
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

    def pad_keys(self, maps, fill=0.0):
        return ops.pad(
            maps,
            (
                (0, 0),
                self.bands.key_padding(),
                self.columns.key_padding(),
                (0, 0),
            ),
            constant_values=fill,
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
        row = self.columns.tiles * high * _range(self.rows.tiles)[:, None]
        row = row + np.arange(high, dtype="int32")
        row = ops.reshape(row, (-1, 1)) if _dynamic(row) else row.reshape(-1, 1)
        index = (places // width * high)[:, None] + row
        index = index * width + (places % width)[:, None]
        tiles = ops.reshape(tiles, (batch, -1, channels))
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

    def _add_rows(self, maps, tiling):
        batch, rows, wide, channels = ops.shape(maps)
        maps = ops.reshape(maps, (batch, rows, wide * channels))
        total = _take_and_add(maps, *tiling.overlap_index())
        return ops.reshape(total, (batch, -1, wide, channels))

    def spread(self) -> np.ndarray:
        """Ones that spread rows and columns over keys: `(sides, U)`."""
        high, wide = self.rows.tile_keys, self.columns.tile_keys
        return np.concatenate(
            [np.repeat(np.eye(high), wide, 1), np.tile(np.eye(wide), high)]
        ).astype(self.dtype)

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
    index = (
        ops.reshape(index, (-1, pixels))
        if _dynamic(index)
        else index.reshape(-1, pixels)
    )
    return ops.take(maps, index, axis=1)


def _range(size):
    if isinstance(size, int):
        return np.arange(size, dtype="int32")
    return ops.arange(size, dtype="int32")


def _dynamic(index):
    return not isinstance(index, np.ndarray)


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
    zero = ops.zeros((batch, 1, channels), dtype=maps.dtype)
    maps = ops.concatenate([maps, zero], axis=1)
    total = None
    for number in range(index.shape[0]):
        places = ops.where(exists[number], index[number], entries)
        taken = ops.take(maps, ops.reshape(places, (-1,)), axis=1)
        total = taken if total is None else total + taken
    return ops.reshape(total, (batch, *shape, channels))


def _take_per_query(tiles, index):
    """Takes within `(T, C)` of every tile: `(B, tiles, T, index columns)`."""
    batch, number, queries, entries = ops.shape(tiles)
    tiles = ops.reshape(tiles, (batch, number, queries * entries))
    return ops.take(tiles, index, axis=2)


def _tile_weights(plan, query, key, position):
    """Returns the attention weights `(B, tiles, T, U)`."""
    batch, number, _, _ = ops.shape(query)
    position = ops.matmul(
        ops.reshape(position, (-1, plan.sides)), plan.spread()
    )
    logits = ops.einsum("bntd,bnud->bntu", query, key) + ops.reshape(
        position, (batch, number, plan.tile_size, plan.tile_keys)
    )
    weights = softmax(logits)
    if plan.masked:
        # A query without any key has a uniform softmax, which means nothing.
        weights = ops.where(logits > 0.5 * MASKED_LOGIT, weights, 0.0)
    return weights


def _attend_at_once(plan, query, key, value, position, dropout_mask):
    """Attends in one band; differentiable, and keeps the weights in memory.

    Returns:
        The output `(B, P, Q, D)` and the weights `(B, P, Q, K * L)`.
    """
    weights = _tile_weights(
        plan,
        plan.gather_queries(query),
        plan.gather_keys(key),
        plan.gather_queries(position),
    )
    scores = _take_per_query(weights, plan.window_keys_index())
    if dropout_mask is not None:
        zero = ops.zeros_like(dropout_mask[..., :1])
        factors = ops.concatenate([dropout_mask, zero], axis=-1)
        weights = weights * _take_per_query(
            plan.gather_queries(factors), plan.key_window_index()
        )
    output = ops.matmul(weights, plan.gather_keys(value))
    return plan.scatter_queries(output), plan.scatter_queries(scores)


def _attend_by_bands(plan, query, key, value, position):
    """Attends band by band, and again in the gradient.

    Returns:
        The output `(B, P, Q, D)`.
    """

    @ops.custom_gradient
    def attend(query, key, value, position):
        def band_output(band):
            query_tiles = band.queries(query)
            weights = _tile_weights(
                plan,
                query_tiles,
                band.keys(key),
                band.queries(position),
            )
            output = ops.matmul(weights, band.keys(value))
            return (plan.scatter_queries(output),)

        (output,) = _map_bands(
            plan, band_output, [_query_band(plan, query, value)]
        )
        output = _stack_queries(output)

        def gradient(*upstream):
            return _attend_gradient(
                plan, query, key, value, position, output, upstream[-1]
            )

        return output, gradient

    return attend(query, key, value, position)


def _attend_gradient(plan, query, key, value, position, output, upstream):
    """Returns the gradients of query, key, value and position logits."""
    # With p the weights, o the output and g its gradient, the gradient of a
    # logit is p * (g.v - g.o); the last channels subtract inside the product.
    correction = ops.sum(upstream * output, axis=-1, keepdims=True)
    upstream = ops.concatenate([upstream, -correction], axis=-1)
    value = ops.concatenate([value, ops.ones_like(value[..., :1])], axis=-1)
    spread = plan.spread()

    def band_gradient(band):
        queries, keys = band.queries(query), band.keys(key)
        weights = _tile_weights(plan, queries, keys, band.queries(position))
        gradient = band.queries(upstream)
        values = band.keys(value)
        logits = weights * ops.einsum("bntd,bnud->bntu", gradient, values)
        batch, number, tile_size, _ = ops.shape(logits)
        sides = ops.matmul(ops.reshape(logits, (-1, plan.tile_keys)), spread.T)
        sides = ops.reshape(sides, (batch, number, tile_size, plan.sides))
        wide = ops.shape(key)[2]
        return (
            plan.scatter_queries(ops.matmul(logits, keys)),
            plan.add_keys(ops.einsum("bntu,bntd->bnud", logits, queries), wide),
            plan.add_keys(
                ops.einsum("bntu,bntd->bnud", weights, gradient[..., :-1]),
                wide,
            ),
            plan.scatter_queries(sides),
        )

    queries, keys, values, sides = _map_bands(
        plan,
        band_gradient,
        [
            _query_band(plan, query, query),
            _key_band(plan, key),
            _key_band(plan, value[..., :-1]),
            _query_band(plan, query, position),
        ],
    )
    high = ops.shape(key)[1]
    return (
        _stack_queries(queries),
        plan.add_bands(keys, high),
        plan.add_bands(values, high),
        _stack_queries(sides),
    )


@dataclasses.dataclass(frozen=True)
class _Band:
    """One band: cuts the tiles of whole maps that belong to it."""

    plan: _Plan
    index: Any

    def queries(self, maps):
        """`(B, P, Q, C)` -> `(B, tiles, T, C)`."""
        bands = self.plan.bands
        return self.plan.gather_queries(
            self._cut(maps, self.index * bands.tile, bands.tile)
        )

    def keys(self, maps):
        """`(B, H, W, C)` -> `(B, tiles, U, C)`."""
        bands = self.plan.bands
        return self.plan.gather_keys(
            self._cut(maps, self.index * bands.step, bands.tile_keys)
        )

    def _cut(self, maps, start, number):
        batch, _, wide, channels = ops.shape(maps)
        return ops.slice(
            maps, (0, start, 0, 0), (batch, number, wide, channels)
        )


def _query_band(plan, query, like):
    """Static shape of a band of queries with the channels of `like`."""
    return (query.shape[0], plan.bands.tile, query.shape[2], like.shape[3])


def _key_band(plan, like):
    """Static shape of a band of keys with the channels of `like`."""
    return (like.shape[0], plan.bands.tile_keys, like.shape[2], like.shape[3])


def _stack_queries(bands):
    """`(bands, B, rows of a band, Q, C)` -> `(B, P, Q, C)`."""
    number, batch, high, wide, channels = ops.shape(bands)
    if isinstance(number, int) and number == 1:
        return bands[0]
    bands = ops.transpose(bands, (1, 0, 2, 3, 4))
    return ops.reshape(bands, (batch, number * high, wide, channels))


def _map_bands(plan, function, shapes):
    """Calls `function(band)` for every strip and stacks what it returns.

    Args:
        plan: The tilings.
        function: Takes a `_Band`, returns a tuple of tensors.
        shapes: Static shapes of these tensors.
    """
    number = plan.bands.tiles
    if isinstance(number, int) and number == 1:
        return [part[None] for part in function(_Band(plan, 0))]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        dtype = plan.dtype
        # `ops.map` would compute the first band once more to see its shape.
        return tf.map_fn(
            lambda index: function(_Band(plan, index)),
            tf.range(number),
            fn_output_signature=tuple(
                tf.TensorSpec(shape, dtype) for shape in shapes
            ),
        )
    return ops.map(
        lambda index: function(_Band(plan, index)), ops.arange(number)
    )
