"""Keras' batch normalization, faster on TensorFlow."""

from typing import Any

import keras
import numpy as np
from keras import ops
from keras.backend import standardize_dtype

from keras_sasa.ops.exporters import exporting
from keras_sasa.ops.fused_batch_normalization import (
    fused_operation_computes,
    normalize_by_batch,
    normalize_by_statistics,
)


@keras.saving.register_keras_serializable(package="keras_sasa")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` in fewer passes over the map.

    On TensorFlow, it takes the fused operation wherever that computes the same
    function: for maps `(batch, height, width, channels)` with `axis=-1`,
    without mask, `renorm` and `synchronized`, except in float64. Elsewhere, and
    in exported files, it is Keras' layer. Arguments, weights, config and
    results are those of Keras' layer.

    Args:
        Those of `keras.layers.BatchNormalization`.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.layers import BatchNormalization
    >>> maps = np.random.normal(size=(2, 8, 8, 3)).astype("float32")
    >>> outputs = BatchNormalization()(maps, training=True)
    >>> bool(np.allclose(np.mean(outputs, (0, 1, 2)), 0, atol=1e-5))
    True
    """

    def call(self, inputs, training=None, mask=None):
        if not self._fusible(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1:]
        scale = self.gamma if self.scale else ops.ones(channels)
        offset = self.beta if self.center else ops.zeros(channels)
        mean, variance = self.moving_mean, self.moving_variance
        scale, offset, mean, variance = (
            ops.cast(tensor, "float32")
            for tensor in (scale, offset, mean, variance)
        )
        if training and self.trainable:
            outputs, *current = normalize_by_batch(
                inputs, scale, offset, self.epsilon
            )
            for weight, moving, new in zip(
                (self.moving_mean, self.moving_variance),
                (mean, variance),
                current,
                strict=True,
            ):
                weight.assign(
                    moving * self.momentum + new * (1.0 - self.momentum)
                )
            return outputs
        return normalize_by_statistics(
            inputs, scale, offset, mean, variance, self.epsilon
        )

    def _fusible(self, inputs, mask):
        """Returns whether the fused operation computes the same function."""
        return (
            mask is None
            and self.axis in (-1, len(inputs.shape) - 1)
            and not self.synchronized
            and not self.renorm
            and standardize_dtype(inputs.dtype) == self.compute_dtype
            and fused_operation_computes(inputs)
            # Files stay as they are.
            and not exporting()
        )


def inference_scale_and_offset(
    normalization: keras.layers.BatchNormalization, dtype: str
) -> tuple[Any, Any]:
    """Returns the scale and the offset of a normalization in inference mode.

    Args:
        normalization: A built layer.
        dtype: Type of the results.

    Returns:
        Two tensors `(channels,)`.
    """
    return inference_scales_and_offsets([normalization], dtype)[0]


def inference_scales_and_offsets(
    normalizations: list[keras.layers.BatchNormalization], dtype: str
) -> list[tuple[Any, Any]]:
    """Returns the scales and the offsets of several normalizations.

    Their vectors are joined, because TensorFlow traces and optimizes a graph of
    few operations faster. The last bits of a root depend on whether processors
    compute it in a vector of their own, of up to 16 numbers: only with channels
    in multiples of 16 does each normalization have the same bits as alone.

    Args:
        normalizations: List of built layers, not empty.
        dtype: Type of the results.

    Returns:
        For each of them, two tensors `(channels,)`.
    """
    sizes = [layer.moving_mean.shape[0] for layer in normalizations]

    def weights(name, missing=None):
        return [
            ops.full((size,), missing, dtype)
            if getattr(layer, name) is None
            else ops.cast(getattr(layer, name), dtype)
            for layer, size in zip(normalizations, sizes, strict=True)
        ]

    epsilons = np.repeat([layer.epsilon for layer in normalizations], sizes)
    variances = _join(weights("moving_variance")) + epsilons.astype(dtype)
    scales = ops.rsqrt(variances) * _join(weights("gamma", missing=1.0))
    means = _join(weights("moving_mean"))
    # -0.0 - x is -x, also for 0.
    offsets = _join(weights("beta", missing=-0.0)) - means * scales
    return list(zip(_split(scales, sizes), _split(offsets, sizes), strict=True))


def _join(vectors):
    return ops.concatenate(vectors) if len(vectors) > 1 else vectors[0]


def _split(vector, sizes):
    if len(sizes) == 1:
        return [vector]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Keras computes the sizes from indices, in dozens of operations.
        return tf.split(vector, sizes)
    return ops.split(vector, np.cumsum(sizes)[:-1].tolist())
