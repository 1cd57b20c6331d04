"""The softmax of attention weights: masked, quantizable, and of one key."""

import keras
import numpy as np
from keras import ops

# Logit of a masked key. exp(-1e30 - maximum) is exactly 0 in float32 and
# float64, and unlike -inf it never turns into NaN.
MASKED_LOGIT = -1e30


def masked_softmax(logits, *masks):
    """Softmax over the unmasked entries of the last axis, for quantized files.

    The scale of a quantized tensor is set by its largest number, so a large
    negative logit for masked entries leaves no bits for the others. Here no
    number is much larger than the logits: they are shifted up, and masked
    logits become 0, so far below the rest that all of them together change the
    sum by less than the rounding error. Masks are applied by multiplication,
    because LiteRT selects in 8 bits, but not in 16.

    Args:
        logits: Tensor of a floating point type.
        *masks: Ones and zeros of that type, which broadcast to `logits`; an
            entry is kept where their product is 1. The masks are multiplied one
            after the other, so that no exported file stores their product.

    Returns:
        The weights, exactly 0 where an entry is masked. If all entries are
        masked, all weights are 0.
    """
    precision = np.finfo(keras.backend.standardize_dtype(logits.dtype)).eps
    distance = float(np.log(logits.shape[-1] / precision))
    lowest = ops.min(logits, axis=-1, keepdims=True)
    logits = logits - (lowest - distance)
    for mask in masks:
        logits = logits * mask
    weights = softmax(logits)
    for mask in masks:
        weights = weights * mask
    return weights


def softmax(logits):
    """Softmax over the last axis, without Keras' warning about one entry."""
    if logits.shape[-1] == 1:
        # A constant that still depends on the logits, with the gradient 0.
        return 0.0 * logits + 1.0
    return ops.softmax(logits, axis=-1)
