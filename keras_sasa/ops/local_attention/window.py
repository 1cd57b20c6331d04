"""The windows of queries, one image axis at a time.

Windows are centred on their query, so a strided output is the stride-1 output
`[::stride]` whatever the parity of the image. At the border of the image a
window either keeps its place, and the keys outside are masked, or it moves
inwards. Sizes are Python integers where they are known and scalar tensors where
they are not; the arithmetic here serves both.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_sasa.ops.sizes import arange, ceil_divide, clip

PADDINGS = ("same", "valid")
BORDERS = ("mask", "shift")


@dataclasses.dataclass(frozen=True)
class WindowAxis:
    """The windows along one axis of the image.

    Attributes:
        kernel_size: Number of keys in a window.
        stride: Distance between queries.
        padding: `"same"` for a query at every `stride`-th pixel, `"valid"` for
            the queries whose window lies inside the image.
        dilation_rate: Distance between the keys of a window.
        border: `"mask"` to mask keys outside the image, `"shift"` to move
            windows inwards, so that every window has all its keys.
    """

    kernel_size: int
    stride: int = 1
    padding: str = "same"
    dilation_rate: int = 1
    border: str = "mask"

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

    @property
    def shifts(self) -> bool:
        """Whether windows move inwards at the border."""
        return self.border == "shift"

    @property
    def smallest_size(self) -> int:
        """Pixels that an image must have along this axis."""
        return self.kernel_size * self.dilation_rate if self.shifts else 0

    @property
    def offsets(self) -> int:
        """Number of different offsets between a query and its keys.

        Offsets are counted in steps of the dilation. The keys of a window that
        moves are up to `kernel_size - 1` steps away in both directions.
        """
        return 2 * self.kernel_size - 1 if self.shifts else self.kernel_size

    def output_size(self, size: Any) -> Any:
        """Number of queries on an axis of `size` pixels; below 1 if none."""
        span = size - 2 * self.first_query
        return ceil_divide(span, self.stride)

    def queries(self) -> slice:
        """The slice of the image that holds the queries."""
        first = self.first_query
        return slice(first, -first or None, self.stride)

    def keys(self, queries: Any) -> Any:
        """Positions of the keys of every window.

        Windows that do not move have keys outside the image as well.

        Args:
            queries: Number of queries.

        Returns:
            Integers `(queries, kernel_size)`.
        """
        slots = np.arange(self.kernel_size, dtype="int32") * self.dilation_rate
        return self._first_key(queries)[:, None] + slots

    def key_offsets(self, queries: Any) -> Any:
        """Numbers of the offsets of keys, from 0 to `offsets - 1`.

        They index the tables of a position term.

        Args:
            queries: Number of queries.

        Returns:
            Integers `(queries, kernel_size)`. Windows that do not move all have
            the same, `(1, kernel_size)`.
        """
        slots = np.arange(self.kernel_size, dtype="int32")[None]
        if not self.shifts:
            return slots
        steps = arange(queries) - self._first_key(queries)
        first = self.kernel_size - 1 - steps // self.dilation_rate
        return first[:, None] + slots

    def _first_key(self, queries):
        """Positions of the first key of every window."""
        query = arange(queries)
        if not self.shifts:
            return query * self.stride - self.margin
        # A dilation divides the axis into subgrids that do not see each other.
        # Windows move within the subgrid of their query. There are as many
        # queries as keys.
        rate = self.dilation_rate
        subgrid, place = query % rate, query // rate
        last = ceil_divide(queries - subgrid, rate) - self.kernel_size
        first = clip(place - self.kernel_size // 2, 0, last)
        return first * rate + subgrid


def window_axes(
    kernel_size,
    strides=1,
    padding: str = "same",
    dilation_rate=1,
    border: str = "mask",
) -> tuple[WindowAxis, WindowAxis]:
    """Returns the vertical and the horizontal axis of checked windows.

    Args:
        kernel_size: Odd integer, or pair (height, width).
        strides: Integer or pair.
        padding: `"same"` or `"valid"`.
        dilation_rate: Integer or pair.
        border: `"mask"` or `"shift"`.

    Raises:
        ValueError: If an argument is not as above, if strides and dilation are
            combined, or if windows move that do not belong to every pixel.
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
    if border not in BORDERS:
        raise ValueError(
            f"`border` must be one of {BORDERS}. Received: border={border!r}."
        )
    if border == "shift" and (max(strides) > 1 or padding != "same"):
        raise ValueError(
            '`border="shift"` needs `strides=1` and `padding="same"`: every '
            "pixel is a query. "
            f"Received: strides={strides}, padding={padding!r}."
        )
    return tuple(
        WindowAxis(kernel, stride, padding, dilation, border)
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
