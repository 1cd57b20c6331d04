"""What a network does with the output of attention before the next layer."""

import dataclasses
from typing import Any

from keras import ops


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """The steps `relu(average(y, pool) * scale + offset)` behind attention.

    Scale and offset are those of a batch normalization in inference mode.

    Attributes:
        scale: `(filters,)`, the factor of each channel.
        offset: `(filters,)`.
        relu: Whether negative numbers become 0.
        pool: 2 to average squares of 2 x 2 pixels that do not overlap, 1 to
            keep every pixel. Squares begin at the top left. At the bottom and
            at the right, only pixels inside the map count, as in
            `keras.layers.AveragePooling2D(2, padding="same")`.
    """

    scale: Any
    offset: Any
    relu: bool = False
    pool: int = 1

    def check(self, filters: int) -> None:
        """Raises `ValueError` unless it fits a map of `filters` channels."""
        for name in ("scale", "offset"):
            shape = tuple(getattr(self, name).shape)
            if shape != (filters,):
                raise ValueError(
                    f"`epilogue.{name}` must have the shape (filters,) = "
                    f"{(filters,)}. Received: epilogue.{name}.shape={shape}."
                )
        # Larger squares would not begin at the top left with "same" padding.
        if self.pool not in (1, 2):
            raise ValueError(
                "`epilogue.pool` must be 1 or 2. "
                f"Received: epilogue.pool={self.pool!r}."
            )

    def cast(self, dtype: str) -> "Epilogue":
        """Returns it with scale and offset in another type."""
        return dataclasses.replace(
            self,
            scale=ops.cast(self.scale, dtype),
            offset=ops.cast(self.offset, dtype),
        )

    def apply(self, outputs: Any) -> Any:
        """Computes the steps with operations of the backend.

        Args:
            outputs: `(batch, height, width, filters)` in the type of `scale`.

        Returns:
            `(batch, ceil(height / pool), ceil(width / pool), filters)`.
        """
        if self.pool == 2:
            outputs = ops.average_pool(
                outputs,
                2,
                2,
                padding="same",
                data_format="channels_last",
            )
        outputs = outputs * self.scale + self.offset
        return ops.relu(outputs) if self.relu else outputs
