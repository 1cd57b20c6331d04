"""Keras' batch normalization, faster on TensorFlow."""

import keras
from keras import ops

from keras_sasa.ops.fused_batch_normalization import (
    fused_operation_computes,
    normalize_by_batch,
)


@keras.saving.register_keras_serializable(package="keras_sasa")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` in fewer passes over the map.

    While it trains on TensorFlow, it takes the fused operation wherever that
    computes the same function: for maps `(batch, height, width, channels)` with
    `axis=-1`, without mask, `renorm` and `synchronized`, except in float64.
    Elsewhere it is Keras' layer. Arguments, weights, config and results are
    those of Keras' layer.

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
        # Keras computes in float32 as well, or in float64.
        maps = ops.cast(
            inputs, keras.backend.result_type(inputs.dtype, "float32")
        )
        if not (
            training
            and self.trainable
            and mask is None
            and self.axis in (-1, len(maps.shape) - 1)
            and not self.synchronized
            and not getattr(self, "renorm", False)
            and fused_operation_computes(maps)
        ):
            return super().call(inputs, training=training, mask=mask)
        channels = maps.shape[-1:]
        outputs, mean, variance = normalize_by_batch(
            maps,
            ops.cast(self.gamma, "float32")
            if self.scale
            else ops.ones(channels),
            ops.cast(self.beta, "float32")
            if self.center
            else ops.zeros(channels),
            self.epsilon,
        )
        for statistic, current in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving = ops.cast(statistic, "float32")
            statistic.assign(
                moving * self.momentum + current * (1.0 - self.momentum)
            )
        return ops.cast(outputs, self.compute_dtype)
