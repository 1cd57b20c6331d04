"""Batch normalization as one operation of TensorFlow.

Keras computes moments, a product and a sum, and their gradients, one operation
after the other. Each of them reads and writes the whole map.
"""

from typing import Any

import keras
from keras import ops

# Half precision is computed in float32.
_DTYPES = ("float32", "bfloat16", "float16")


def fused_operation_computes(inputs: Any) -> bool:
    """Returns whether the operation takes these inputs here.

    Args:
        inputs: A tensor with the channels on its last axis.
    """
    return (
        keras.backend.backend() == "tensorflow"
        and len(inputs.shape) == 4
        and keras.backend.standardize_dtype(inputs.dtype) in _DTYPES
    )


def normalize_by_batch(
    inputs: Any, scale: Any, offset: Any, epsilon: float
) -> tuple[Any, Any, Any]:
    """Normalizes with the moments of the batch; TensorFlow only.

    Args:
        inputs: `(batch, height, width, channels)`.
        scale: `(channels,)` in float32.
        offset: `(channels,)`.
        epsilon: Float that is added to the variance.

    Returns:
        The outputs in the type of the inputs; the mean and the (biased)
        variance of the batch in float32.
    """
    outputs, mean, variance = _fused_operation(
        inputs, scale, offset, [], [], epsilon, is_training=True
    )
    # The operation divides the sum of squares by `pixels - 1`, but a single
    # pixel by 1.
    *sizes, _ = ops.shape(inputs)
    pixels = ops.cast(sizes[0] * sizes[1] * sizes[2], "float32")
    return outputs, mean, variance * (ops.maximum(pixels - 1, 1) / pixels)


def normalize_by_statistics(
    inputs: Any,
    scale: Any,
    offset: Any,
    mean: Any,
    variance: Any,
    epsilon: float,
) -> Any:
    """Normalizes with given moments; arguments as above."""
    outputs, _, _ = _fused_operation(
        inputs, scale, offset, mean, variance, epsilon, is_training=False
    )
    return outputs


def _fused_operation(*operands, is_training):
    import tensorflow as tf

    # `tf.nn.fused_batch_norm` would raise `epsilon` to 1.001e-5.
    x, scale, offset, mean, variance, epsilon = operands
    results = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        data_format="NHWC",
        is_training=is_training,
    )
    return results.y, results.batch_mean, results.batch_variance
