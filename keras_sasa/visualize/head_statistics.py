"""Statistics of attention heads: distance, entropy, preferred positions."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_sasa.layers import NeighborhoodAttention2D, SelfAttention2D
from keras_sasa.visualize.attention_calls import (
    attention_calls,
    find_calls,
    offsets,
)
from keras_sasa.visualize.model_inputs import in_parts, to_numpy


@dataclasses.dataclass(frozen=True)
class AttentionStatistics:
    """Mean attention distance and entropy of the heads of one layer.

    Args:
        distance: Array `(batch, num_heads)`, in pixels of the layer's input.
        entropy: Array `(batch, num_heads)`, in nats. Equal weights on
            `exp(entropy)` pixels have this entropy.
        uniform_distance: Float, distance of equal weights on the part of each
            window that lies in the image.
        uniform_entropy: Float, their entropy, which is the maximum.
    """

    distance: np.ndarray
    entropy: np.ndarray
    uniform_distance: float
    uniform_entropy: float


def attention_statistics(
    model: keras.Model,
    images: Any,
    layers: str | Sequence[str] | None = None,
) -> dict[str, AttentionStatistics]:
    """Computes the mean attention distance and the entropy of each head.

    With the attention weights `w` of a head, for each image

    ```
    distance = mean over queries (i, j) of sum over keys (a, b) of
               w_ij,ab * sqrt((a - i)^2 + (b - j)^2)
    entropy  = mean over queries (i, j) of - sum over keys (a, b) of
               w_ij,ab * log(w_ij,ab)
    ```

    where (i, j) and (a, b) are rows and columns of the input of the layer.
    Masked keys and keys outside the image have weight 0 and add nothing;
    queries without keys do not count. An image without keys, because it is
    masked completely, has NaN.

    The number of images is not limited by memory: a few are computed at a time,
    with the weights of only one layer in memory.

    Args:
        model: A model as for `attention_maps`, with `SelfAttention2D` or
            `NeighborhoodAttention2D` layers.
        images: Inputs of the model.
        layers: As for `attention_maps`.

    Returns:
        A dict from the name of the layer, in the order of the model, to an
        `AttentionStatistics`.

    Raises:
        ValueError: As in `attention_maps`.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.visualize import attention_statistics
    >>> model = ResNet((1, 1), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> statistics = attention_statistics(model, np.ones((2, 16, 16, 3)))
    >>> for name, heads in statistics.items():
    ...     print(name, heads.distance.shape, f"{heads.uniform_distance:.2f}")
    group1_block1_attention (2, 8) 2.53
    group2_block1_attention (2, 8) 2.53

    Reference:
        [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), section
        4.5 and appendix D.7, for the distance.
    """
    calls = find_calls(
        model, layers, (SelfAttention2D, NeighborhoodAttention2D)
    )
    parts = collections.defaultdict(list)
    for part in in_parts(model, images):
        for call in attention_calls(model, part, calls):
            parts[call.name].append(_statistics(call))
    return {
        name: AttentionStatistics(
            np.concatenate([part.distance for part in parts[name]]),
            np.concatenate([part.entropy for part in parts[name]]),
            parts[name][0].uniform_distance,
            parts[name][0].uniform_entropy,
        )
        for name in calls
    }


def _statistics(call):
    if call.windows_move:
        # From query to query.
        rows, columns = (
            keys - queries[:, None]
            for keys, queries in zip(call.keys(), call.queries(), strict=True)
        )
        far = np.hypot(rows[:, None, :, None], columns[:, None])
    else:
        rows, columns = offsets(call.layer)
        far = np.hypot(rows[:, None], columns)
    weights = call.weights()
    uniform = _uniform_weights(call)
    return AttentionStatistics(
        _distance(weights, far),
        _entropy(weights),
        _distance(uniform, far).item(),
        _entropy(uniform).item(),
    )


def _uniform_weights(call):
    """Returns equal weights on the part of each window inside the image.

    Windows that move have all their keys, including padded ones.
    """
    inside_rows, inside_columns = (
        call.windows_move | ((keys >= 0) & (keys < size))
        for keys, size in zip(call.keys(), call.input_size, strict=True)
    )
    inside = (
        inside_rows[:, None, :, None] & inside_columns[None, :, None, :]
    ).astype("float32")
    uniform = inside / inside.sum(axis=(-2, -1), keepdims=True)
    return uniform[None, :, :, None]


def _distance(weights, far):
    """Returns means over queries.

    Args:
        weights: `(batch, height, width, num_heads, kernel_height,
            kernel_width)`.
        far: Distances in a window, or in the window of each query, `(height,
            width, kernel_height, kernel_width)`.
    """
    if far.ndim == 4:
        totals = [
            np.einsum("ijnuv,ijuv->n", image, far, dtype="float64")
            for image in weights
        ]
        queries = weights.sum(axis=(1, 2, 4, 5), dtype="float64")
        return _ratio(np.stack(totals), queries)
    window = weights.sum(axis=(1, 2), dtype="float64")
    # The weights of a query sum to 1, or to 0 if it has no key. Hence the sum
    # of all weights is the number of queries with keys.
    return _ratio((window * far).sum(axis=(-2, -1)), window.sum(axis=(-2, -1)))


def _entropy(weights):
    queries = weights.sum(axis=(1, 2, 4, 5), dtype="float64")
    # Image by image, since the logarithms take as much memory as the weights.
    return _ratio(
        np.stack([_sum_of_entropies(image) for image in weights]), queries
    )


def _ratio(numbers, queries):
    return np.divide(
        numbers, queries, out=np.full_like(numbers, np.nan), where=queries > 0
    )


def _sum_of_entropies(weights):
    logarithms = np.log(np.where(weights > 0, weights, 1))
    return -np.sum(weights * logarithms, axis=(0, 1, 3, 4), dtype="float64")


def position_logits(
    model: keras.Model,
    images: Any,
    layers: str | Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Computes the places of its window that each head prefers.

    The logit of a key has a term of content, `q . k`, and a term of relative
    position, `q . r_{a-i, b-j}`, where `r` is the learned row and column
    embedding. This function returns the second term, averaged over all queries
    of all images. It is linear in the query, so its average is exactly the term
    of the mean query:

    ```
    mean(q) . concat(row_embedding[a-i], column_embedding[b-j])
    ```

    Its mean over the window, which the softmax ignores, is subtracted. If a
    logit is higher by 1, the place gets e = 2.7 times the weight of another
    place with the same content.

    Args:
        model: A model as for `attention_maps`, with `SelfAttention2D` layers.
        images: Inputs of the model. A few images are computed at a time, so
            their number is not limited by memory.
        layers: As for `attention_maps`, but only layers with
            `position_encoding="relative"`; `None` for all such layers.

    Returns:
        A dict from the name of the layer, in the order of the model, to a
        float64 array `(num_heads, kernel_height, kernel_width)`, whose last
        two axes have mean 0. Index 0 of a window axis is the top or left.

    Raises:
        ValueError: If one of the named layers, or all layers of the model,
            have no relative positions, or as in `attention_maps`.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.visualize import position_logits
    >>> model = ResNet((1, 1), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10)
    >>> logits = position_logits(model, np.ones((2, 16, 16, 3), "float32"))
    >>> logits["group1_block1_attention"].shape
    (8, 7, 7)
    """
    calls = find_calls(model, layers)
    others = [
        name
        for name, (*_, call) in calls.items()
        if call.operation.position_encoding != "relative"
    ]
    if others and (layers is not None or len(others) == len(calls)):
        raise ValueError(
            "Only layers with `position_encoding='relative'` have embeddings "
            f"of relative positions. Received: layers={layers!r}, of which "
            f"{others} have none."
        )
    calls = {name: call for name, call in calls.items() if name not in others}
    queries = collections.defaultdict(list)
    for part in in_parts(model, images):
        for call in attention_calls(model, part, calls):
            queries[call.name].append(_queries(call))
    return {
        name: _position_logits(
            np.concatenate(queries[name]).mean(axis=0), call.operation
        )
        for name, (*_, call) in calls.items()
    }


def _queries(call):
    """Returns the mean query of each image, `(batch, filters)`."""
    inputs = to_numpy(call.inputs)[:, *np.ix_(*call.queries())]
    # The projection is linear: the mean input gives the mean query.
    means = inputs.mean(axis=(1, 2), dtype="float64")
    queries = means @ to_numpy(call.layer.query_kernel)
    if call.layer.use_bias:
        queries = queries + to_numpy(call.layer.query_bias)
    return queries


def _position_logits(query, layer):
    heads = query.reshape(layer.num_heads, 2, -1)
    rows, columns = (
        np.einsum("nd,knd->nk", heads[:, half], to_numpy(embedding))
        for half, embedding in enumerate(
            (layer.row_embedding, layer.column_embedding)
        )
    )
    logits = rows[:, :, None] + columns[:, None, :]
    return logits - logits.mean(axis=(-2, -1), keepdims=True)
