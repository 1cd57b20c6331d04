"""Keras' dense layer, faster on TensorFlow."""

import keras
from keras.backend import standardize_dtype

from keras_sasa.ops.dense import dense
from keras_sasa.ops.exporters import exporting, exporting_to_onnx


@keras.saving.register_keras_serializable(package="keras_sasa")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense` on maps in one step, with its bias and GELU.

    In inference mode, in float32, TensorFlow's graphs compute a matrix product,
    its bias and an exact GELU as one operation where oneDNN runs. The exact
    GELU can be exported to ONNX; with Keras' own, the export fails on
    TensorFlow 2.21. Elsewhere, it is Keras' layer. Arguments, weights, config
    and results do not differ.

    Args:
        As for `keras.layers.Dense`.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.layers import Dense
    >>> outputs = Dense(96, "gelu")(np.ones((2, 8, 8, 32), "float32"))
    >>> tuple(outputs.shape)
    (2, 8, 8, 96)
    """

    def call(self, inputs, training=None):
        if training or not self._can_fuse(inputs):
            return super().call(inputs, training=training)
        gelu = self.activation is keras.activations.gelu
        outputs = dense(inputs, self.kernel, self.bias, gelu)
        if gelu or self.activation is None:
            return outputs
        return self.activation(outputs)

    def quantize(self, mode=None, type_check=True, **options):
        # Keras refuses classes that are not its own.
        own = type(self) is Dense
        return super().quantize(mode, type_check and not own, **options)

    def _can_fuse(self, inputs):
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) > 2
            and standardize_dtype(inputs.dtype) == "float32"
            and self.compute_dtype == "float32"
            # Other files stay as they are: LiteRT knows Keras' GELU, but ONNX
            # lacks a function in it.
            and (not exporting() or exporting_to_onnx())
        )
