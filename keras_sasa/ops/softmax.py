"""A softmax that leaves entries out and survives quantization."""

import keras
import numpy as np
from keras import ops


def masked_softmax(logits, *masks):
    """Softmax over the entries of the last axis that all masks keep.

    The scale of a quantized tensor is that of its largest number, so a large
    negative logit for masked entries leaves no bits for the others. Here no
    number is much larger than the logits: they are moved up, and masked ones
    are set to 0, so far below the rest that together they change the sum by
    less than rounding does. Products alone are used, since LiteRT selects in 8
    bits, but not in 16.

    Args:
        logits: Tensor of a floating point type.
        *masks: Ones and zeros of that type, which broadcast to `logits`; an
            entry is kept where their product is 1. Several are multiplied one
            after the other, so that no exported file holds their product.

    Returns:
        The weights, exactly 0 where an entry is masked. Where all are, they are
        all 0.
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
    """Softmax over the last axis, for one key as well.

    Keras warns of a softmax over one entry; a window of one pixel is fine.
    """
    if logits.shape[-1] == 1:
        # A constant that still depends on the logits, with the gradient 0.
        return 0.0 * logits + 1.0
    return ops.softmax(logits, axis=-1)
