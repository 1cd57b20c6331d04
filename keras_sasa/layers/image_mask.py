"""Masks of images in the shapes in which Keras and its users pass them."""

import keras
from keras import ops


def standardize_mask(mask, images_shape):
    """Returns a mask as booleans, without a last axis of one.

    Args:
        mask: Tensor or array, true where a pixel may be attended to:
            `(batch_size, height, width)`, the same with a last axis of one, or
            `(batch_size,)` for whole images, as `keras.layers.TimeDistributed`
            passes a mask of frames. A batch size of 1 stands for one mask for
            all images.
        images_shape: `(batch_size, height, width)` of the images. Unknown
            sizes are `None`.

    Returns:
        Booleans, of rank 3 or 1.

    Raises:
        ValueError: If the mask has another shape.
    """
    shape, expected = _known(ops.shape(mask)), _known(images_shape)
    allowed = (expected, (*expected, 1), expected[:1])
    if not any(_fits(shape, other) for other in allowed):
        raise ValueError(
            "`mask` must have the shape (batch_size, height, width), the same "
            "with a last axis of one, or (batch_size,) for whole images; the "
            "batch size may be 1 for one mask for all images. Received: "
            f"mask.shape={shape}, and images of (batch_size, "
            f"height, width) = {expected}."
        )
    mask = ops.cast(mask, "bool")
    if len(shape) != 4:
        return mask
    if shape[-1] is None and not isinstance(mask, keras.KerasTensor):
        # Fails in a graph where it turns out to be larger than one.
        return ops.reshape(mask, ops.shape(mask)[:3])
    return mask[..., 0]


def _fits(shape, expected):
    if len(shape) != len(expected):
        return False
    pairs = list(zip(shape, expected, strict=True))
    return (shape[0] == 1 or _same(*pairs[0])) and all(
        _same(*pair) for pair in pairs[1:]
    )


def _same(size, other):
    """Returns whether sizes are equal, as far as both are known."""
    return size == other or not (
        isinstance(size, int) and isinstance(other, int)
    )


def _known(shape):
    """Returns a shape with `None` for sizes that only a graph knows."""
    return tuple(size if isinstance(size, int) else None for size in shape)
