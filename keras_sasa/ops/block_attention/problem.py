"""The description of one block attention, passed as a whole."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BlockProblem:
    """What is to be computed, apart from the tensors.

    Attributes:
        block_size: Side of a block.
        num_heads: Number of heads.
        channels: Channels of the image.
        dtype: Type of the softmax, `"float32"` or `"float64"`.
        value_map: Whether values are a map of the size of the image, and not
            matrices that make them.
    """

    block_size: int
    num_heads: int
    channels: int
    dtype: str = "float32"
    value_map: bool = False
