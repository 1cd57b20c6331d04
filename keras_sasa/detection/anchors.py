"""Anchors: boxes to which predictions are relative.

Lin et al., 2017 (RetinaNet, https://arxiv.org/abs/1708.02002), section 4: nine
for each pixel of each level, three sizes by three aspect ratios.

They are written here because the `AnchorGenerator`s of keras-cv 0.9.0 and
keras-hub 0.32.0 do not support images of unknown size: both require Python
integers ("must be real number, not SymbolicTensor").
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_sasa.detection.feature_pyramid import STRIDES

# Sides of the square anchors of each level, in pixels.
SIZES = (32, 64, 128, 256, 512)
# Factors of these sides; each level has all of them.
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
# Height divided by width.
ASPECT_RATIOS = (0.5, 1.0, 2.0)


def make_anchors(
    height: Any,
    width: Any,
    sizes: Sequence[float] = SIZES,
    scales: Sequence[float] = SCALES,
    aspect_ratios: Sequence[float] = ASPECT_RATIOS,
) -> Any:
    """Makes the anchors of an image, from the finest level to the coarsest.

    Args:
        height: Height of the image in pixels, an integer or a scalar tensor.
        width: Width of the image in pixels, an integer or a scalar tensor.
        sizes: Sides in pixels of the square anchors of the levels P3 to P7.
        scales: Factors of these sides; each level has all of them.
        aspect_ratios: Heights divided by widths, at equal area.

    Returns:
        Boxes `(num_anchors, 4)` in pixels, `"xyxy"`, in float32, ordered by
        level, row, column, scale and aspect ratio. They may reach beyond the
        image.

    Example:

    >>> from keras_sasa.detection.anchors import make_anchors
    >>> # 8 x 4, 4 x 2, 2 x 1, 1 x 1 and 1 x 1 pixels of nine anchors.
    >>> tuple(make_anchors(64, 32).shape)
    (396, 4)
    """
    return ops.concatenate(
        [
            _level(height, width, stride, size, scales, aspect_ratios)
            for size, stride in zip(sizes, STRIDES.values(), strict=True)
        ],
        axis=0,
    )


def _level(height, width, stride, size, scales, aspect_ratios):
    halves = [
        (size * scale * ratio**-0.5 / 2, size * scale * ratio**0.5 / 2)
        for scale in scales
        for ratio in aspect_ratios
    ]
    offsets = ops.convert_to_tensor(
        [(-x, -y, x, y) for x, y in halves], "float32"
    )
    y, x = ops.meshgrid(
        _centres(height, stride), _centres(width, stride), indexing="ij"
    )
    centres = ops.stack([x, y, x, y], axis=-1)
    return ops.reshape(centres[:, :, None] + offsets, (-1, 4))


def _centres(size, stride):
    count = (size + stride - 1) // stride
    numbers = ops.arange(count, dtype="int32")
    return (ops.cast(numbers, "float32") + 0.5) * stride
