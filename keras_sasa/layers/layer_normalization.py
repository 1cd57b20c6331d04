"""Keras' layer normalization, faster on TensorFlow."""

import keras
from keras import ops
from keras.backend import standardize_dtype

from keras_sasa.ops.exporters import exporting
from keras_sasa.ops.layer_normalization import (
    kernel_normalizes,
    normalize_pixels,
)


@keras.saving.register_keras_serializable(package="keras_sasa")
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` in one pass over the map.

    In inference mode, the compiled kernel computes it on TensorFlow for maps
    `(batch, height, width, channels)` with `axis=-1`, in float32. Elsewhere,
    and in exported files, it is Keras' layer. Arguments, weights, config and
    results are those of Keras' layer.

    Args:
        As for `keras.layers.LayerNormalization`.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.layers import LayerNormalization
    >>> maps = np.random.normal(size=(2, 8, 8, 64)).astype("float32")
    >>> outputs = LayerNormalization()(maps)
    >>> bool(np.allclose(np.mean(outputs, -1), 0, atol=1e-5))
    True
    """

    def call(self, inputs, training=None):
        if training or not self._fits_kernel(inputs):
            return super().call(inputs)
        channels = inputs.shape[-1:]
        scale = ops.ones(channels) if self.gamma is None else self.gamma
        offset = ops.zeros(channels) if self.beta is None else self.beta
        return normalize_pixels(
            ops.convert_to_tensor(inputs),
            ops.cast(scale, "float32"),
            ops.cast(offset, "float32"),
            self.epsilon,
        )

    def _fits_kernel(self, inputs):
        """Returns whether the kernel computes the same function."""
        return (
            tuple(self.axis) in ((-1,), (len(inputs.shape) - 1,))
            and not self.rms_scaling
            and standardize_dtype(inputs.dtype) == self.compute_dtype
            and kernel_normalizes(inputs)
            # Files stay as they are.
            and not exporting()
        )
