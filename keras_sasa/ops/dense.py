"""A dense layer on pixels, in steps that TensorFlow computes as one.

TensorFlow's graph optimizer replaces a product of two matrices, the addition of
a bias and a GELU by one operation. It finds them only one behind the other, and
a GELU only in these steps.
"""

import math
from typing import Any

from keras import ops


def dense(
    inputs: Any, kernel: Any, bias: Any | None = None, gelu: bool = False
) -> Any:
    """Multiplies the last axis by a matrix, and adds a bias.

    Args:
        inputs: `(..., channels)`.
        kernel: `(channels, units)`.
        bias: `(units,)`.
        gelu: Whether to apply the exact GELU.

    Returns:
        `(..., units)`.
    """
    channels, units = kernel.shape
    outputs = ops.matmul(ops.reshape(inputs, (-1, channels)), kernel)
    if bias is not None:
        outputs = ops.add(outputs, bias)
    if gelu:
        erf = ops.erf(outputs * math.sqrt(0.5))
        outputs = (erf + 1.0) * 0.5 * outputs
    return ops.reshape(outputs, (*ops.shape(inputs)[:-1], units))
