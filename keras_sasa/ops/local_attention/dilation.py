"""Dilated windows as ordinary windows of several smaller maps."""

import dataclasses

from keras import ops

from keras_sasa.ops.sizes import ceil_divide


@dataclasses.dataclass(frozen=True)
class DilationPhases:
    """Maps cut into `rows * columns` maps of every n-th row and column.

    Inside each of them, a dilated window is an ordinary one.
    """

    rows: int
    columns: int

    def split(self, maps):
        """`(B, H, W, C)` -> `(B * rows * columns, H / rows, W / columns, C)`"""
        if self.rows == self.columns == 1:
            return maps
        batch, height, width, channels = ops.shape(maps)
        high = ceil_divide(height, self.rows)
        wide = ceil_divide(width, self.columns)
        maps = ops.pad(
            maps,
            (
                (0, 0),
                (0, high * self.rows - height),
                (0, wide * self.columns - width),
                (0, 0),
            ),
        )
        maps = ops.reshape(
            maps, (batch, high, self.rows, wide, self.columns, channels)
        )
        maps = ops.transpose(maps, (0, 2, 4, 1, 3, 5))
        return ops.reshape(
            maps, (batch * self.rows * self.columns, high, wide, channels)
        )

    def join(self, maps, height, width):
        """The inverse of `split`, back to `height` x `width`."""
        if self.rows == self.columns == 1:
            return maps
        batch, high, wide, channels = ops.shape(maps)
        batch = batch // (self.rows * self.columns)
        maps = ops.reshape(
            maps, (batch, self.rows, self.columns, high, wide, channels)
        )
        maps = ops.transpose(maps, (0, 3, 1, 4, 2, 5))
        maps = ops.reshape(
            maps, (batch, high * self.rows, wide * self.columns, channels)
        )
        return maps[:, :height, :width]
