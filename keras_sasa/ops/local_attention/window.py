"""The windows of queries, one image axis at a time.

Windows are centred on their query, so a strided output is the stride-1 output
`[::stride]` whatever the parity of the image. Sizes are Python integers where
they are known and scalar tensors where they are not; the arithmetic here serves
both.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_sasa.ops.sizes import arange, ceil_divide

PADDINGS = ("same", "valid")


@dataclasses.dataclass(frozen=True)
class WindowAxis:
    """The windows along one axis of the image; keys outside it are masked.

    Attributes:
        kernel_size: Number of keys in a window.
        stride: Distance between queries.
        padding: `"same"` for a query at every `stride`-th pixel, `"valid"` for
            the queries whose window lies inside the image.
        dilation_rate: Distance between the keys of a window.
    """

    kernel_size: int
    stride: int = 1
    padding: str = "same"
    dilation_rate: int = 1

    @property
    def reach(self) -> int:
        """Pixels between a window's centre and its border."""
        return self.dilation_rate * (self.kernel_size // 2)

    @property
    def margin(self) -> int:
        """Pixels outside the image that the first window covers."""
        return self.reach if self.padding == "same" else 0

    @property
    def first_query(self) -> int:
        """Position in the image of the first query."""
        return self.reach - self.margin

    @property
    def query_everywhere(self) -> bool:
        """Whether every pixel is a query."""
        return self.stride == 1 and self.padding == "same"

    def output_size(self, size: Any) -> Any:
        """Number of queries on an axis of `size` pixels; below 1 if none."""
        span = size - 2 * self.first_query
        return ceil_divide(span, self.stride)

    def queries(self) -> slice:
        """The slice of the image that holds the queries."""
        first = self.first_query
        return slice(first, -first or None, self.stride)

    def keys(self, queries: Any) -> Any:
        """Positions of the keys of every window; outside the image as well.

        Args:
            queries: Number of queries.

        Returns:
            Integers `(queries, kernel_size)`.
        """
        # The first key of the window of every query.
        start = arange(queries) * self.stride - self.margin
        slots = np.arange(self.kernel_size, dtype="int32") * self.dilation_rate
        return start[:, None] + slots


def window_axes(
    kernel_size, strides=1, padding: str = "same", dilation_rate=1
) -> tuple[WindowAxis, WindowAxis]:
    """Returns the vertical and the horizontal axis of checked windows.

    Args:
        kernel_size: Odd integer, or pair (height, width).
        strides: Integer or pair.
        padding: `"same"` or `"valid"`.
        dilation_rate: Integer or pair.

    Raises:
        ValueError: If an argument is not as above, or strides and dilation are
            combined.
    """
    kernel_size = pair(kernel_size, "kernel_size")
    strides = pair(strides, "strides")
    dilation_rate = pair(dilation_rate, "dilation_rate")
    if any(size % 2 == 0 for size in kernel_size):
        raise ValueError(
            "`kernel_size` must be odd, so that every window has a centre "
            f"pixel. Received: kernel_size={kernel_size}."
        )
    if padding not in PADDINGS:
        raise ValueError(
            f"`padding` must be one of {PADDINGS}. "
            f"Received: padding={padding!r}."
        )
    if max(strides) > 1 and max(dilation_rate) > 1:
        raise ValueError(
            "`strides` > 1 and `dilation_rate` > 1 cannot be combined, as in "
            f"`keras.layers.Conv2D`. Received: strides={strides}, "
            f"dilation_rate={dilation_rate}."
        )
    return tuple(
        WindowAxis(kernel, stride, padding, dilation)
        for kernel, stride, dilation in zip(
            kernel_size, strides, dilation_rate, strict=True
        )
    )


def pair(value: Any, name: str) -> tuple[int, int]:
    """Returns `value` as `(height, width)`; both positive integers."""
    values = (value, value) if isinstance(value, (int, np.integer)) else value
    if (
        not isinstance(values, (tuple, list))
        or len(values) != 2
        or not all(isinstance(v, (int, np.integer)) for v in values)
        or any(isinstance(v, bool) or v < 1 for v in values)
    ):
        raise ValueError(
            f"`{name}` must be a positive integer or a pair of them "
            f"(height, width). Received: {name}={value!r}."
        )
    return int(values[0]), int(values[1])
