"""The description of one local attention, made once and passed as a whole."""

import dataclasses
import functools

from keras_sasa.ops.local_attention.position import PositionTerm
from keras_sasa.ops.local_attention.window import WindowAxis


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is to be computed, apart from the tensors.

    Attributes:
        rows: The windows along the height.
        columns: The windows along the width.
        num_heads: Number of heads.
        content: Whether the logits have the term q.k.
        position: The position term of the logits, or `None`.
        scale: Factor of q.k.
        dtype: Type of the computation, `"float32"` or `"float64"`.
        masked: Whether there is a mask of keys.
        dropout: Whether attention weights are multiplied by a dropout mask.
        scores: Whether the attention weights are returned as well.
        training: Whether a gradient is likely to follow. It never changes the
            result; an implementation may then keep more in memory.
    """

    rows: WindowAxis
    columns: WindowAxis
    num_heads: int
    content: bool = True
    position: PositionTerm | None = None
    scale: float = 1.0
    dtype: str = "float32"
    masked: bool = False
    dropout: bool = False
    scores: bool = False
    training: bool = True

    @property
    def axes(self) -> tuple[WindowAxis, WindowAxis]:
        return self.rows, self.columns

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the window."""
        return self.rows.kernel_size, self.columns.kernel_size

    @property
    def offsets(self) -> tuple[int, int]:
        """Numbers of different offsets between a query and its keys."""
        return self.rows.offsets, self.columns.offsets

    @property
    def shifts(self) -> bool:
        """Whether windows move inwards at the border."""
        return self.rows.shifts

    @property
    def query_everywhere(self) -> bool:
        """Whether every pixel is a query."""
        return self.rows.query_everywhere and self.columns.query_everywhere


@functools.cache
def request(problem: Problem, **outputs: str | bool) -> Problem:
    """Returns the problem with other requested outputs.

    Args:
        problem: The description that a layer made once.
        **outputs: New values of `scale`, `dtype`, `masked`, `dropout`, `scores`
            and `training`.
    """
    # Cached, because eager calls ask for the same few problems again and again.
    return dataclasses.replace(problem, **outputs)
