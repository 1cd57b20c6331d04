"""Encodings of positions that are added to an image."""

import numpy as np
from keras import ops


def sinusoidal_encoding(height, width, channels, dtype="float32"):
    """Sinusoidal encoding of rows and of columns.

    An axis has n channels: first sines, `sin(position / 10000 ** (2 i / n))`,
    one more if n is odd, then cosines of the same frequencies (Vaswani et al.,
    2017, section 3.5). The paper says only "sinusoidal".

    Args:
        height: Number of rows.
        width: Number of columns.
        channels: Number of channels; half of them (rounded up) are for rows.
        dtype: Floating point type of the result.

    Returns:
        `(height, width, channels)`.
    """

    def encode(size, number):
        half = -(-number // 2)
        frequencies = 10000.0 ** (-2.0 * np.arange(half) / max(number, 1))
        numpy = np if isinstance(size, int) else ops
        positions = numpy.arange(size, dtype=dtype)
        angles = positions[:, None] * frequencies.astype(dtype)[None, :]
        return numpy.concatenate(
            [numpy.sin(angles), numpy.cos(angles[:, : number - half])], axis=-1
        )

    for_rows = -(-channels // 2)
    rows = encode(height, for_rows)[:, None]
    columns = encode(width, channels - for_rows)[None]
    return ops.concatenate(
        [
            ops.broadcast_to(rows, (height, width, for_rows)),
            ops.broadcast_to(columns, (height, width, channels - for_rows)),
        ],
        axis=-1,
    )
