"""Layer normalization by the compiled kernel.

TensorFlow computes moments, differences, products and sums one after the other,
and each of them reads and writes the whole map.
"""

from typing import Any

import keras
from keras import ops

from keras_sasa.kernels import custom_call, targets
from keras_sasa.kernels.dimensions import Spec, dimension
from keras_sasa.ops.native import NativeImplementation

_KERNEL = NativeImplementation()


def kernel_normalizes(inputs: Any) -> bool:
    """Returns whether the kernel normalizes the pixels of these images here.

    Args:
        inputs: A tensor with the channels on its last axis.
    """
    return (
        # On JAX, XLA makes one pass of the steps.
        keras.backend.backend() == "tensorflow"
        and len(inputs.shape) == 4
        and keras.backend.standardize_dtype(inputs.dtype) == "float32"
        and _KERNEL.unavailable_reason() is None
    )


def normalize_pixels(
    inputs: Any, scale: Any, offset: Any, epsilon: float
) -> Any:
    """Normalizes each pixel to mean 0 and variance 1, then scales and shifts.

    Args:
        inputs: `(batch, height, width, channels)`, float32.
        scale: `(channels,)`.
        offset: `(channels,)`.
        epsilon: Float that is added to the variance.

    Returns:
        Images of the same shape.
    """

    def results(shapes):
        shape = tuple(dimension(shapes, 0, axis) for axis in range(4))
        return [Spec(shape)]

    def recompute(inputs, scale, offset):
        return ops.layer_normalization(inputs, scale, offset, epsilon=epsilon)

    return custom_call.with_recomputed_gradient(
        [inputs, scale, offset],
        forward=targets.NORMALIZE,
        results=results,
        attributes={"epsilon": float(epsilon)},
        recompute=recompute,
    )
