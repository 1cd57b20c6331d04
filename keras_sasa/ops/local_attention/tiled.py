"""Local self-attention on query tiles that share the keys of one halo.

The map is cut into tiles of neighbouring queries. A tile and its halo of keys
meet in one dense product, which masks the keys outside the exact window of a
query. Bands (a few rows of tiles) are computed one after the other and
recomputed in the gradient, so no more than one band of attention weights is
in memory at a time.

Almost everything that depends on the offset between query and key splits into
rows and columns: q.r, the border of the window, the border of the image. It is
computed for the rows and for the columns of a tile's keys, and a key gets the
sum of its two logits. The gradient sums over rows and columns by a product with
a constant matrix of zeros and ones. A table of biases does not split; its
entries lie in the same places of every tile.

B batch x heads (x phases of the dilation), T queries of a tile,
U keys of a tile, D channels per head, K and L window height and width.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sasa import _derivatives
from keras_sasa.ops.exporters import exporting, exporting_without_loops
from keras_sasa.ops.local_attention.dilation import DilationPhases
from keras_sasa.ops.local_attention.interface import LocalAttention
from keras_sasa.ops.local_attention.position import (
    PositionBias,
    RowColumnEmbeddings,
)
from keras_sasa.ops.local_attention.tile_plan import (
    TilePlan,
    make_plan,
    take_per_query,
)
from keras_sasa.ops.softmax import MASKED_LOGIT, masked_softmax, softmax


class TiledAttention(LocalAttention):
    """Local attention on query tiles.

    Without scores and dropout the attention weights are never all in memory.
    """

    name = "tiled"
    portable = True

    def unsupported_reason(self, problem):
        known = RowColumnEmbeddings | PositionBias | None
        if isinstance(problem.position, known):
            return None
        return "it knows no other positions than embeddings and biases"

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
        rows, columns = problem.axes
        num_heads = problem.num_heads
        batch, height, width, filters = ops.shape(query)
        _, key_height, key_width, _ = ops.shape(value)
        explicit_weights = problem.dropout or problem.scores
        # Exported files may be quantized, so there masks are not logits; where
        # windows move, they are different masks for every tile.
        exported = exporting() and not problem.shifts
        plan = make_plan(
            problem,
            keys=(key_height, key_width),
            queries=(height, width),
            one_band=explicit_weights or exporting_without_loops(),
        )
        phases = DilationPhases(rows.dilation_rate, columns.dilation_rate)

        def heads_first(maps):
            maps = ops.reshape(
                maps,
                (
                    batch,
                    ops.shape(maps)[1],
                    ops.shape(maps)[2],
                    num_heads,
                    maps.shape[-1] // num_heads,
                ),
            )
            maps = ops.transpose(maps, (0, 3, 1, 2, 4))
            shape = ops.shape(maps)
            return ops.reshape(maps, (batch * num_heads, *shape[2:]))

        query = plan.pad_queries(phases.split(heads_first(query)))
        value = plan.pad_keys(phases.split(heads_first(value)))
        bias = None
        if isinstance(problem.position, PositionBias):
            bias = _tile_bias(plan, *position)
        position = _position_logits(
            problem,
            plan,
            query,
            position,
            images=(batch, num_heads),
            phases=phases,
            sizes=None if exported else (key_height, key_width),
        )
        if key is not None:
            key = plan.pad_keys(phases.split(heads_first(key)))
        elif mask is None or exported:
            query, key = query[..., :1], ops.zeros_like(value[..., :1])
        attendable = None
        if exported:
            attendable = _attendable_keys(
                plan, phases, mask, (batch, num_heads), (key_height, key_width)
            )
        elif mask is not None:
            # A last channel, 1 in the query, meets one in the key that is 0
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
            output = _attend_by_bands(
                plan, query, key, value, position, bias, attendable
            )
        else:
            if dropout_mask is not None:
                dropout_mask = _to_offsets(problem, dropout_mask)
                dropout_mask = ops.transpose(dropout_mask, (0, 3, 1, 2, 4, 5))
                dropout_mask = ops.reshape(
                    dropout_mask,
                    (batch * num_heads, height, width, plan.window_size),
                )
                dropout_mask = plan.pad_queries(phases.split(dropout_mask))
            output, weights = _attend_at_once(
                plan,
                query,
                key,
                value,
                position,
                bias,
                dropout_mask,
                attendable,
            )
            weights = phases.join(plan.crop(weights), height, width)
            weights = ops.reshape(
                weights, (batch, num_heads, height, width, *problem.offsets)
            )
            weights = ops.transpose(weights, (0, 2, 3, 1, 4, 5))
            weights = _from_offsets(problem, weights)
        output = phases.join(plan.crop(output), height, width)
        output = ops.reshape(
            output, (batch, num_heads, height, width, filters // num_heads)
        )
        output = ops.transpose(output, (0, 2, 3, 1, 4))
        return ops.reshape(output, (batch, height, width, filters)), weights


def _position_logits(problem, plan, query, position, images, phases, sizes):
    """Logits that depend on the place of a key: q.r and `MASKED_LOGIT`.

    Args:
        problem: Description of the call.
        plan: The tiles.
        query: `(B, P, Q, D)`, padded.
        position: The weights of the position term, a sum over the axes.
        images: Batch size and N, number of heads.
        phases: Phases of the dilation.
        sizes: Height and width of the image, or `None` to mask nothing.

    Returns:
        `(B, P, Q, sides)`: one logit for each row and one for each column of
        the keys of the query's tile. Outside the window and outside the image
        either is `MASKED_LOGIT`.
    """
    maps, high, wide, channels = ops.shape(query)
    # Not -1, which has no value where there are no images.
    number = images[0] * images[1]
    lines = phases.rows * phases.columns * high
    if not isinstance(problem.position, RowColumnEmbeddings):
        zeros = ops.zeros_like(query[..., :1])
        rows = ops.repeat(zeros, plan.rows.tile_keys, axis=-1)
        columns = ops.repeat(zeros, plan.columns.tile_keys, axis=-1)
    else:
        (top, row_embedding), (bottom, column_embedding) = (
            problem.position.by_axis(query, position)
        )
        half = channels // 2
        # The embedding is moved to the place of the window in the tile, which
        # differs for every row (column) of the tile: one product for each.
        # LiteRT multiplies tensors of five axes at most.
        rows = ops.matmul(
            ops.reshape(top, (*images, lines, wide, half)),
            _for_each(row_embedding, plan.rows, lines),
        )
        columns = ops.reshape(bottom, (*images, lines, wide, half))
        columns = ops.transpose(columns, (0, 1, 3, 2, 4))
        columns = ops.matmul(
            columns, _for_each(column_embedding, plan.columns, wide)
        )
        columns = ops.transpose(columns, (0, 1, 3, 2, 4))
    if sizes is not None:
        row_mask, column_mask = _mask_logits(plan, wide, phases, sizes)
        rows = row_mask + ops.reshape(
            rows, (number, lines, wide, plan.rows.tile_keys)
        )
        columns = column_mask + ops.reshape(
            columns,
            (
                number * phases.rows,
                phases.columns,
                high,
                wide * plan.columns.tile_keys,
            ),
        )
    return ops.concatenate(
        [
            ops.reshape(rows, (maps, high, wide, plan.rows.tile_keys)),
            ops.reshape(columns, (maps, high, wide, plan.columns.tile_keys)),
        ],
        axis=-1,
    )


def _mask_logits(plan, wide, phases, sizes):
    """Returns the logits that mask rows and columns, to be added to q.r."""
    tiles = (
        dataclasses.replace(plan.rows, queries=plan.bands.padded_queries),
        plan.columns,
    )
    rows, columns = (
        axis.mask_logits(rate, size, plan.dtype)
        for axis, rate, size in zip(
            tiles, (phases.rows, phases.columns), sizes, strict=True
        )
    )
    # Few, large axes: TensorFlow does not broadcast many that alternate.
    rows = ops.repeat(rows, phases.columns, axis=0)
    return (
        ops.reshape(rows, (-1, 1, plan.rows.tile_keys)),
        ops.reshape(
            columns, (phases.columns, 1, wide * plan.columns.tile_keys)
        ),
    )


def _for_each(embedding, tiles, queries):
    """Moves the embedding to the window of every query in its tile.

    Args:
        embedding: `(K, N, C)`.
        tiles: The tiles along the axis.
        queries: Number of queries along it, whole tiles.

    Returns:
        `(N, queries, C, tile keys)`, 0 outside the window.
    """
    embedding = ops.pad(embedding, ((0, 1), (0, 0), (0, 0)))
    embedding = ops.take(embedding, tiles.relative_index(), axis=0)
    embedding = ops.transpose(embedding, (2, 0, 3, 1))
    return ops.tile(embedding, (1, queries // tiles.tile, 1, 1))


def _tile_bias(plan, table):
    """Returns the biases of the keys of a tile: `(N, T, U)`."""
    table = ops.reshape(table, (plan.num_heads, plan.window_size))
    return ops.take(table, plan.offset_index(), axis=1)


def _to_offsets(problem, windows):
    """Moves numbers of keys to the offsets of the keys, among zeros.

    Args:
        problem: Description of the call.
        windows: `(batch, P, Q, N, window height, window width)`.

    Returns:
        `(batch, P, Q, N, vertical offsets, horizontal offsets)`.
    """
    if not problem.shifts:
        return windows
    rows, columns = _offset_matrices(problem, windows)
    windows = ops.einsum("bpqnkl,pkr->bpqnrl", windows, rows)
    return ops.einsum("bpqnrl,qls->bpqnrs", windows, columns)


def _from_offsets(problem, offsets):
    """The inverse of `_to_offsets`."""
    if not problem.shifts:
        return offsets
    rows, columns = _offset_matrices(problem, offsets)
    offsets = ops.einsum("bpqnrs,pkr->bpqnks", offsets, rows)
    return ops.einsum("bpqnks,qls->bpqnkl", offsets, columns)


def _offset_matrices(problem, like):
    """Returns ones where a key has an offset: `(queries, keys, offsets)`."""
    return (
        ops.cast(
            axis.key_offsets(queries)[:, :, None]
            == np.arange(axis.offsets, dtype="int32"),
            like.dtype,
        )
        for axis, queries in zip(
            problem.axes, ops.shape(like)[1:3], strict=True
        )
    )


def _attendable_keys(plan, phases, mask, images, sizes):
    """Returns a map of the keys that may be attended to.

    Args:
        plan: The tiles.
        phases: Phases of the dilation.
        mask: The mask of the call, or `None`.
        images: Batch size and number of heads.
        sizes: Height and width of the image.

    Returns:
        `(B or 1, H, W, 1)`, 0 outside the image and where the mask is false,
        else 1.
    """
    batch, num_heads = images
    if mask is None:
        keys = ops.ones((1, *sizes, 1), dtype=plan.dtype)
    else:
        keys = ops.cast(mask, plan.dtype)[..., None]
        keys = ops.repeat(keys, num_heads, axis=0)
    keys = plan.pad_keys(phases.split(keys))
    if mask is None and phases.rows * phases.columns > 1:
        keys = ops.tile(keys, (batch * num_heads, 1, 1, 1))
    return keys


def _tile_weights(plan, query, key, position, bias=None, attendable=None):
    """Returns the attention weights `(B, tiles, T, U)`.

    `bias` is `(N, T, U)` or `None`. `attendable` is a mask of the keys, `(B or
    1, tiles, U, 1)`, or `None` if the position logits contain it.
    """
    batch, number, _, _ = ops.shape(query)
    # A sum, not a product with ones: for weights of 8 bits, LiteRT rounds the
    # other factor to 127 parts of its largest number, `MASKED_LOGIT`.
    position = ops.reshape(position, (-1, plan.sides))
    high = plan.rows.tile_keys
    position = position[:, :high, None] + position[:, None, high:]
    logits = ops.einsum("bntd,bnud->bntu", query, key) + ops.reshape(
        position, (batch, number, plan.tile_size, plan.tile_keys)
    )
    if bias is not None:
        shape = ops.shape(logits)
        logits = _divide_heads(plan, logits) + bias[:, None]
        logits = ops.reshape(logits, shape)
    if attendable is not None:
        attendable = ops.transpose(attendable, (0, 1, 3, 2))
        return masked_softmax(logits, plan.window_mask(), attendable)
    weights = softmax(logits)
    if plan.masked:
        # A query without any key has a uniform softmax, which means nothing.
        weights = ops.where(logits > 0.5 * MASKED_LOGIT, weights, 0.0)
    return weights


def _divide_heads(plan, tiles):
    """`(B, tiles, T, U)` -> `(batch, N, phases * tiles, T, U)`."""
    maps, number, *tile = ops.shape(tiles)
    images = maps // (plan.num_heads * plan.phases)
    return ops.reshape(
        tiles, (images, plan.num_heads, plan.phases * number, *tile)
    )


def _attend_at_once(
    plan, query, key, value, position, bias, dropout_mask, attendable
):
    """Attends to one band; differentiable, keeps the weights in memory.

    Returns:
        The output `(B, P, Q, D)` and the weights `(B, P, Q, K * L)`.
    """
    weights = _tile_weights(
        plan,
        plan.gather_queries(query),
        plan.gather_keys(key),
        plan.gather_queries(position),
        bias,
        None if attendable is None else plan.gather_keys(attendable),
    )
    scores = take_per_query(weights, plan.window_keys_index())
    if dropout_mask is not None:
        zero = ops.zeros_like(dropout_mask[..., :1])
        factors = ops.concatenate([dropout_mask, zero], axis=-1)
        weights = weights * take_per_query(
            plan.gather_queries(factors), plan.key_window_index()
        )
    output = ops.matmul(weights, plan.gather_keys(value))
    return plan.scatter_queries(output), plan.scatter_queries(scores)


def _attend_by_bands(plan, query, key, value, position, bias, attendable):
    """Attends band by band, and recomputes the bands in the gradient.

    Returns:
        The output `(B, P, Q, D)`.
    """

    def compute(query, key, value, position, bias=None):
        def band_output(band):
            query_tiles = band.queries(query)
            weights = _tile_weights(
                plan,
                query_tiles,
                band.keys(key),
                band.queries(position),
                bias,
                None if attendable is None else band.keys(attendable),
            )
            output = ops.matmul(weights, band.keys(value))
            return (plan.scatter_queries(output),)

        (output,) = _map_bands(
            plan, band_output, [_query_band(plan, query, value)]
        )
        return _stack_queries(output)

    operands = [query, key, value, position]
    if bias is not None:
        operands.append(bias)
    if exporting():
        # Otherwise TensorFlow writes the gradient to the file as well.
        return compute(*operands)

    def gradient(operands, outputs, kept, upstreams):
        return _attend_gradient(plan, operands, *outputs, *upstreams)

    (output,) = _derivatives.call(
        operands,
        lambda *operands: ([compute(*operands)], []),
        lambda *operands: [compute(*operands)],
        gradient,
    )
    return output


def _attend_gradient(plan, operands, output, upstream):
    """Returns the gradients of query, key, value, position logits and bias."""
    query, key, value, position, *bias = operands
    # With p the weights, o the output and g its gradient, the gradient of a
    # logit is p * (g.v - g.o). The last channels subtract within the product.
    correction = ops.sum(upstream * output, axis=-1, keepdims=True)
    upstream = ops.concatenate([upstream, -correction], axis=-1)
    value = ops.concatenate([value, ops.ones_like(value[..., :1])], axis=-1)
    key_sides = plan.key_sides()

    def band_gradient(band):
        queries, keys = band.queries(query), band.keys(key)
        weights = _tile_weights(
            plan, queries, keys, band.queries(position), *bias
        )
        gradient = band.queries(upstream)
        values = band.keys(value)
        logits = weights * ops.einsum("bntd,bnud->bntu", gradient, values)
        batch, number, tile_size, _ = ops.shape(logits)
        sides = ops.matmul(ops.reshape(logits, (-1, plan.tile_keys)), key_sides)
        sides = ops.reshape(sides, (batch, number, tile_size, plan.sides))
        wide = ops.shape(key)[2]
        return (
            plan.scatter_queries(ops.matmul(logits, keys)),
            plan.add_keys(ops.einsum("bntu,bntd->bnud", logits, queries), wide),
            plan.add_keys(
                ops.einsum("bntu,bntd->bnud", weights, gradient),
                wide,
            ),
            plan.scatter_queries(sides),
            *(ops.sum(_divide_heads(plan, logits), (0, 2)) for _ in bias),
        )

    queries, keys, values, sides, *biases = _map_bands(
        plan,
        band_gradient,
        [
            _query_band(plan, query, query),
            _key_band(plan, key),
            _key_band(plan, value),
            _query_band(plan, query, position),
            *(part.shape for part in bias),
        ],
    )
    high = ops.shape(key)[1]
    return (
        _stack_queries(queries),
        plan.add_bands(keys, high),
        plan.add_bands(values, high)[..., :-1],
        _stack_queries(sides),
        *(ops.sum(part, axis=0) for part in biases),
    )


@dataclasses.dataclass(frozen=True)
class _Band:
    """One band: cuts the tiles of whole maps that belong to it."""

    plan: TilePlan
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
        # JAX wants one integer type for all four.
        zero = start * 0
        return ops.slice(
            maps, (zero, start, zero, zero), (batch, number, wide, channels)
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
    """Calls `function(band)` for every band and stacks the results.

    Args:
        plan: The tiles.
        function: Takes a `_Band`, returns a tuple of tensors.
        shapes: Static shapes of these tensors.
    """
    number = plan.num_bands
    if isinstance(number, int) and number == 1:
        return [part[None] for part in function(_Band(plan, 0))]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        dtype = plan.dtype
        # `ops.map` computes the first band once more to learn its shape.
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
