"""FLOPs of layers as functions of shapes alone."""

import math

Shape = tuple[int, ...]


def convolution_flops(
    positions: int,
    kernel_size: Shape,
    channels: int,
    filters: int,
    groups: int = 1,
) -> int:
    """Returns the FLOPs of a convolution without bias, or of a projection.

    Args:
        positions: Number of pixels of the output (of the input, for a
            transposed convolution).
        kernel_size: Sizes of the window; `()` for a projection.
        channels: Channels of the input.
        filters: Channels of the output.
        groups: Number of groups of channels and filters.
    """
    window = math.prod(kernel_size)
    return 2 * positions * window * (channels // groups) * filters


def self_attention_flops(
    image: Shape,
    output: Shape,
    channels: int,
    filters: int,
    num_heads: int,
    kernel_size: Shape,
    position_encoding: str | None = "relative",
    use_content: bool = True,
    use_bias: bool = False,
    separable: bool = False,
) -> int:
    """Returns the FLOPs of `SelfAttention2D`.

    Args:
        image: Height and width of the input, of keys and values.
        output: Height and width of the output, of queries.
        channels: Channels of the input.
        filters: Channels of the output.
        num_heads: Number of heads.
        kernel_size: Height and width of the window.
        position_encoding: As in `SelfAttention2D`.
        use_content: As in `SelfAttention2D`.
        use_bias: As in `SelfAttention2D`.
        separable: Whether q.r is computed from its two halves.
    """
    pixels, queries = math.prod(image), math.prod(output)
    window = math.prod(kernel_size)
    projected = queries + (2 if use_content else 1) * pixels
    total = convolution_flops(projected, (), channels, filters)
    if use_bias:
        total += projected * filters
    if position_encoding == "absolute":
        total += pixels * channels
    # For one query and all heads: one product for each key.
    products = 2 * window * filters
    attend = products + num_heads * window  # Weighted sum and softmax.
    if use_content:
        attend += products
    if position_encoding == "relative" and not separable:
        attend += products
    elif position_encoding == "relative":
        terms = 2 if use_content else 1
        attend += sum(kernel_size) * filters + terms * num_heads * window
    return total + queries * attend


def neighborhood_attention_flops(
    image: Shape,
    channels: int,
    num_heads: int,
    kernel_size: Shape,
    use_bias: bool = True,
) -> int:
    """Returns the FLOPs of `NeighborhoodAttention2D`.

    Args:
        image: Height and width, at least those of a dilated window.
        channels: Channels of input and output.
        num_heads: Number of heads.
        kernel_size: Height and width of the window.
        use_bias: As in `NeighborhoodAttention2D`.
    """
    pixels = math.prod(image)
    total = self_attention_flops(
        image,
        image,
        channels,
        channels,
        num_heads,
        kernel_size,
        position_encoding=None,
        use_bias=use_bias,
    )
    # The position biases, and the projection of the output.
    total += pixels * num_heads * math.prod(kernel_size)
    total += convolution_flops(pixels, (), channels, channels)
    return total + (pixels * channels if use_bias else 0)


def halo_attention_flops(
    image: Shape,
    queries: Shape,
    channels: int,
    filters: int,
    key_filters: int,
    num_heads: int,
    window_size: int,
) -> int:
    """Returns the FLOPs of `HaloAttention2D`, without an average behind it.

    Args:
        image: Height and width of the input.
        queries: Numbers of rows and columns of queries.
        channels: Channels of the input.
        filters: Channels of the output.
        key_filters: Channels of queries and keys.
        num_heads: Number of heads.
        window_size: Side of the window.
    """
    pixels, window = math.prod(image), window_size**2
    total = convolution_flops(pixels, (), channels, key_filters + filters)
    # For one query and all heads: its projection; its products with keys and
    # with the embeddings of rows and columns; their two sums and the softmax;
    # the weighted sum.
    query = convolution_flops(1, (), channels, key_filters)
    query += 2 * (window + 2 * window_size) * key_filters
    query += 3 * num_heads * window
    query += 2 * window * filters
    return total + math.prod(queries) * query


def attention_stem_flops(
    image: Shape,
    channels: int,
    filters: int,
    block_size: int,
    num_heads: int,
    num_mixtures: int,
    values: str = "spatially_aware",
    separable: bool = False,
) -> int:
    """Returns the FLOPs of `AttentionStem` with normalization and pooling.

    Args:
        image: Height and width of the input.
        channels: Channels of the input.
        filters: Channels of the output.
        block_size: Side of a block.
        num_heads: Number of heads.
        num_mixtures: Number of matrices that are mixed into one.
        values: As in `AttentionStem`.
        separable: Whether the matrices are mixed once for each place in a
            block instead of once for each pixel.
    """
    pixels, block = math.prod(image), block_size**2
    project = convolution_flops(pixels, (), channels, filters)
    value = project
    if values == "conv":
        value = project * block
    elif values == "spatially_aware":
        width = filters // num_heads
        # p(a, b, m): the sum emb_row + emb_col, its product with nu^m, softmax.
        value += block * (width + num_mixtures * (2 * width + 1))
        places = block if separable else pixels
        value += convolution_flops(places, (), channels, filters) * num_mixtures
    # q.k, softmax, weighted sum over the pixels of a block.
    attend = pixels * block * (2 * filters + num_heads + 2 * filters)
    blocks = math.prod(-(-size // block_size) for size in image)
    pool = blocks * block * filters
    return 2 * project + value + attend + 2 * pixels * filters + pool
