"""Slow, obvious reference of stand-alone local self-attention.

Written from the equations alone, one pixel, one head and one key at a time,
in float64 NumPy, so that the fast computations can be checked against
something that shares none of their tricks.

Layouts: d = filters // num_heads is the width of a head; head n owns channels
n * d up to (n + 1) * d of every projection.
"""

import math

import numpy as np


def self_attention_2d(
    inputs,
    weights,
    *,
    num_heads,
    kernel_size,
    strides=(1, 1),
    padding="same",
    dilation_rate=(1, 1),
    data_format="channels_last",
    position_encoding="relative",
    mask=None,
):
    """Local self-attention over the window around every query pixel.

    Args:
        inputs: (batch, height, width, channels), or (batch, channels, height,
            width) with `data_format="channels_first"`.
        weights: dict of arrays:
            `query_kernel`, `value_kernel`: (channels, filters);
            `key_kernel`: (channels, filters), optional; without it the
            content term q.k is dropped;
            `row_embedding`: (kernel_height, num_heads, d / 2) and
            `column_embedding`: (kernel_width, num_heads, d / 2), needed with
            `position_encoding="relative"`, else not read;
            `query_bias`, `key_bias`, `value_bias`: (filters,), optional.
        num_heads: number of heads.
        kernel_size: odd integer, or pair of them (height, width).
        strides: integer or pair, the subsampling of the queries.
        padding: `"same"` or `"valid"`.
        dilation_rate: integer or pair, the distance between window pixels.
        data_format: `"channels_last"` or `"channels_first"`.
        position_encoding: `"relative"`, `"absolute"` or `None`.
        mask: (batch, height, width) bool, True where a pixel may be attended
            to as a key; `None` allows every pixel.

    Returns:
        outputs: (batch, out_height, out_width, filters), or (batch, filters,
            out_height, out_width) with `data_format="channels_first"`.
        scores: (batch, out_height, out_width, num_heads, kernel_height,
            kernel_width), the softmax weights, exactly 0 for keys outside the
            image or masked.
    """
    kernel_height, kernel_width = _pair(kernel_size)
    row_stride, column_stride = _pair(strides)
    row_dilation, column_dilation = _pair(dilation_rate)
    if kernel_height % 2 == 0 or kernel_width % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")
    if position_encoding not in ("relative", "absolute", None):
        raise ValueError(f"unknown position_encoding {position_encoding!r}")
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"unknown data_format {data_format!r}")

    images = np.asarray(inputs, dtype=np.float64)
    if data_format == "channels_first":
        images = np.transpose(images, (0, 2, 3, 1))
    batch, height, width, _ = images.shape
    if mask is None:
        allowed = np.ones((batch, height, width), dtype=bool)
    else:
        allowed = np.asarray(mask, dtype=bool)
        if allowed.shape != (batch, height, width):
            raise ValueError(f"mask has shape {allowed.shape}")
    weights = _as_float64(weights)
    if position_encoding == "absolute":
        images = _add_absolute_encoding(images)

    queries = _project(
        images, weights["query_kernel"], weights.get("query_bias")
    )
    values = _project(
        images, weights["value_kernel"], weights.get("value_bias")
    )
    keys = None
    if "key_kernel" in weights:
        keys = _project(images, weights["key_kernel"], weights.get("key_bias"))

    filters = queries.shape[-1]
    head_width = _head_width(filters, num_heads)
    half = head_width // 2
    if position_encoding == "relative":
        row_embedding = weights["row_embedding"]
        column_embedding = weights["column_embedding"]
        if head_width % 2:
            raise ValueError(f"the width of a head is odd: {head_width}")
        _check_shape(row_embedding, (kernel_height, num_heads, half))
        _check_shape(column_embedding, (kernel_width, num_heads, half))

    query_rows = _query_positions(
        height, kernel_height, row_stride, row_dilation, padding
    )
    query_columns = _query_positions(
        width, kernel_width, column_stride, column_dilation, padding
    )
    out_height, out_width = len(query_rows), len(query_columns)
    outputs = np.zeros((batch, out_height, out_width, filters))
    scores = np.zeros(
        (batch, out_height, out_width, num_heads, kernel_height, kernel_width)
    )

    for image in range(batch):
        for out_row, query_row in enumerate(query_rows):
            for out_column, query_column in enumerate(query_columns):
                for head in range(num_heads):
                    first = head * head_width
                    last = first + head_width
                    query = queries[image, query_row, query_column, first:last]

                    window = []
                    logits = []
                    for a in range(kernel_height):
                        for b in range(kernel_width):
                            row = query_row + row_dilation * (
                                a - kernel_height // 2
                            )
                            column = query_column + column_dilation * (
                                b - kernel_width // 2
                            )
                            # A negative index would silently wrap round to
                            # the other edge of the image.
                            if not 0 <= row < height:
                                continue
                            if not 0 <= column < width:
                                continue
                            if not allowed[image, row, column]:
                                continue
                            logit = 0.0
                            if keys is not None:
                                key = keys[image, row, column, first:last]
                                logit += np.dot(query, key)
                            if position_encoding == "relative":
                                logit += np.dot(
                                    query[:half], row_embedding[a, head]
                                )
                                logit += np.dot(
                                    query[half:], column_embedding[b, head]
                                )
                            window.append((a, b, row, column))
                            logits.append(logit)

                    for (a, b, row, column), score in zip(
                        window, _softmax(logits), strict=True
                    ):
                        value = values[image, row, column, first:last]
                        scores[image, out_row, out_column, head, a, b] = score
                        outputs[image, out_row, out_column, first:last] += (
                            score * value
                        )

    if data_format == "channels_first":
        outputs = np.transpose(outputs, (0, 3, 1, 2))
    return outputs, scores


def epilogue(outputs, scale, offset, *, relu=False, pool=1):
    """Mean over squares of pixels, scale and offset, then perhaps a ReLU.

    Args:
        outputs: (batch, height, width, filters).
        scale: (filters,).
        offset: (filters,).
        relu: whether negative numbers become 0.
        pool: side of the squares and the distance between them; at the bottom
            and at the right, the mean is that of the pixels in the map.

    Returns:
        (batch, ceil(height / pool), ceil(width / pool), filters).
    """
    batch, height, width, filters = outputs.shape
    out_height, out_width = math.ceil(height / pool), math.ceil(width / pool)
    results = np.zeros((batch, out_height, out_width, filters))
    for image in range(batch):
        for out_row in range(out_height):
            for out_column in range(out_width):
                for channel in range(filters):
                    total, pixels = 0.0, 0
                    for row in range(pool * out_row, pool * (out_row + 1)):
                        for column in range(
                            pool * out_column, pool * (out_column + 1)
                        ):
                            if row < height and column < width:
                                total += outputs[image, row, column, channel]
                                pixels += 1
                    result = total / pixels * scale[channel] + offset[channel]
                    if relu and result < 0:
                        result = 0.0
                    results[image, out_row, out_column, channel] = result
    return results


def neighborhood_attention(
    inputs,
    weights,
    *,
    num_heads,
    kernel_size,
    dilation_rate=(1, 1),
    data_format="channels_last",
):
    """Attention to the nearest pixels, with an output projection.

    Along each axis, a query sees the pixels whose distance from it is a
    multiple of the dilation. Of all `kernel_size` successive ones, it attends
    to those whose middle is nearest to it.

    Args:
        inputs: (batch, height, width, channels), or (batch, channels, height,
            width) with `data_format="channels_first"`.
        weights: dict of arrays: `query_kernel`, `key_kernel`, `value_kernel`,
            `output_kernel` (channels, channels); `query_bias` and so on
            (channels,), optional; `position_bias` (num_heads,
            2 * kernel_height - 1, 2 * kernel_width - 1).
        num_heads: number of heads.
        kernel_size: odd integer, or pair of them (height, width).
        dilation_rate: integer or pair.
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        outputs: of the shape of `inputs`.
        scores: (batch, height, width, num_heads, kernel_height, kernel_width).
    """
    kernel_height, kernel_width = _pair(kernel_size)
    row_dilation, column_dilation = _pair(dilation_rate)
    images = np.asarray(inputs, dtype=np.float64)
    if data_format == "channels_first":
        images = np.transpose(images, (0, 2, 3, 1))
    batch, height, width, channels = images.shape
    weights = _as_float64(weights)
    # Zeros to the right and below, up to the size of a window.
    high = max(height, kernel_height * row_dilation)
    wide = max(width, kernel_width * column_dilation)
    padded = np.zeros((batch, high, wide, channels))
    padded[:, :height, :width] = images
    queries, keys, values = (
        _project(padded, weights[f"{name}_kernel"], weights.get(f"{name}_bias"))
        for name in ("query", "key", "value")
    )
    position_bias = weights["position_bias"]
    _check_shape(
        position_bias, (num_heads, 2 * kernel_height - 1, 2 * kernel_width - 1)
    )

    head_width = _head_width(channels, num_heads)
    attended = np.zeros((batch, height, width, channels))
    scores = np.zeros(
        (batch, height, width, num_heads, kernel_height, kernel_width)
    )
    for image in range(batch):
        for query_row in range(height):
            rows = _nearest(query_row, high, kernel_height, row_dilation)
            for query_column in range(width):
                columns = _nearest(
                    query_column, wide, kernel_width, column_dilation
                )
                for head in range(num_heads):
                    first = head * head_width
                    last = first + head_width
                    query = queries[image, query_row, query_column, first:last]
                    logits = []
                    for row in rows:
                        for column in columns:
                            key = keys[image, row, column, first:last]
                            below = (row - query_row) // row_dilation
                            right = (column - query_column) // column_dilation
                            logits.append(
                                np.dot(query, key) / math.sqrt(head_width)
                                + position_bias[
                                    head,
                                    below + kernel_height - 1,
                                    right + kernel_width - 1,
                                ]
                            )
                    shares = iter(_softmax(logits))
                    for a, row in enumerate(rows):
                        for b, column in enumerate(columns):
                            score = next(shares)
                            value = values[image, row, column, first:last]
                            scores[
                                image, query_row, query_column, head, a, b
                            ] = score
                            attended[
                                image, query_row, query_column, first:last
                            ] += score * value
    outputs = _project(
        attended, weights["output_kernel"], weights.get("output_bias")
    )
    if data_format == "channels_first":
        outputs = np.transpose(outputs, (0, 3, 1, 2))
    return outputs, scores


def _nearest(query, size, kernel, dilation):
    """Coordinates of the `kernel` keys of a query along one axis."""
    visible = [
        position
        for position in range(size)
        if (position - query) % dilation == 0
    ]
    windows = [
        visible[start : start + kernel]
        for start in range(len(visible) - kernel + 1)
    ]
    return min(windows, key=lambda window: abs(window[kernel // 2] - query))


def halo_attention(
    inputs,
    weights,
    *,
    num_heads,
    block_size,
    halo_size,
    strides=1,
    data_format="channels_last",
):
    """Attention to the pixels of a block and of the halo around it.

    Args:
        inputs: (batch, height, width, channels), or (batch, channels, height,
            width) with `data_format="channels_first"`; height and width are
            multiples of `block_size`.
        weights: dict of arrays: `query_kernel`, `key_kernel` (channels,
            key_filters), `value_kernel` (channels, filters), `row_embedding`,
            `column_embedding` (2 * window - 1, key_filters / num_heads), with
            window = block_size + 2 * halo_size.
        num_heads: number of heads.
        block_size: height and width of a block.
        halo_size: pixels of the halo on each side.
        strides: distance between queries, or side of the squares that are
            averaged if it does not divide `block_size`.
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        outputs: (batch, height // strides, width // strides, filters), or
            channels first.
        scores: (batch, query rows, query columns, num_heads, window, window).
    """
    images = np.asarray(inputs, dtype=np.float64)
    if data_format == "channels_first":
        images = np.transpose(images, (0, 2, 3, 1))
    batch, height, width, _ = images.shape
    weights = _as_float64(weights)
    queries, keys, values = (
        _project(images, weights[f"{name}_kernel"], None)
        for name in ("query", "key", "value")
    )
    window = block_size + 2 * halo_size
    filters = values.shape[-1]
    key_width = _head_width(keys.shape[-1], num_heads)
    value_width = _head_width(filters, num_heads)
    row_embedding = weights["row_embedding"]
    column_embedding = weights["column_embedding"]
    for embedding in (row_embedding, column_embedding):
        _check_shape(embedding, (2 * window - 1, key_width))

    pooled = block_size % strides != 0
    step = 1 if pooled else strides
    query_sizes = (height // step, width // step)
    outputs = np.zeros((batch, *query_sizes, filters))
    scores = np.zeros((batch, *query_sizes, num_heads, window, window))
    for image in range(batch):
        for query_row in range(query_sizes[0]):
            for query_column in range(query_sizes[1]):
                row, column = query_row * step, query_column * step
                # The first pixel of the window, perhaps outside the image.
                top = row - row % block_size - halo_size
                left = column - column % block_size - halo_size
                # The place of the query among those of its block.
                i, j = row % block_size // step, column % block_size // step
                for head in range(num_heads):
                    first = head * key_width
                    last = first + key_width
                    query = queries[image, row, column, first:last]
                    logits = []
                    for r in range(window):
                        for c in range(window):
                            logit = np.dot(
                                query, row_embedding[r - i + window - 1]
                            ) + np.dot(
                                query, column_embedding[c - j + window - 1]
                            )
                            if 0 <= top + r < height and 0 <= left + c < width:
                                key = keys[image, top + r, left + c, first:last]
                                logit += np.dot(query, key) / math.sqrt(
                                    key_width
                                )
                            logits.append(logit)
                    shares = iter(_softmax(logits))
                    first = head * value_width
                    last = first + value_width
                    for r in range(window):
                        for c in range(window):
                            score = next(shares)
                            scores[
                                image, query_row, query_column, head, r, c
                            ] = score
                            if 0 <= top + r < height and 0 <= left + c < width:
                                value = values[
                                    image, top + r, left + c, first:last
                                ]
                                outputs[
                                    image, query_row, query_column, first:last
                                ] += score * value
    if pooled:
        outputs = _average_squares(outputs, strides)
    if data_format == "channels_first":
        outputs = np.transpose(outputs, (0, 3, 1, 2))
    return outputs, scores


def _average_squares(maps, side):
    """Averages of squares of pixels; what is left at the border is dropped."""
    batch, height, width, channels = maps.shape
    averages = np.zeros((batch, height // side, width // side, channels))
    for row in range(height // side):
        for column in range(width // side):
            for a in range(side):
                for b in range(side):
                    averages[:, row, column] += (
                        maps[:, row * side + a, column * side + b] / side**2
                    )
    return averages


def attention_stem(
    inputs, weights, *, num_heads, block_size, values="spatially_aware"
):
    """Attention of the stem, before batch normalisation and pooling.

    The image is cut into blocks from its top left corner, and every pixel
    attends to every pixel of its own block, itself included. The last blocks
    end where the image ends.

    Args:
        inputs: (batch, height, width, channels).
        weights: dict of arrays:
            `query_kernel`, `key_kernel`: (channels, filters);
            with `values="spatially_aware"`: `value_kernels` (num_mixtures,
            channels, filters), `row_embedding` (block_size, e),
            `column_embedding` (block_size, e), `mixture_embedding`
            (num_mixtures, e);
            with `values="plain"`: `value_kernel` (channels, filters);
            with `values="conv"`: `value_kernel` (block_size, block_size,
            channels, filters).
        num_heads: number of heads.
        block_size: height and width of a block.
        values: `"spatially_aware"`, `"plain"` or `"conv"`.

    Returns:
        (batch, height, width, filters).
    """
    images = np.asarray(inputs, dtype=np.float64)
    weights = _as_float64(weights)
    batch, height, width, _ = images.shape
    queries = _project(images, weights["query_kernel"], None)
    keys = _project(images, weights["key_kernel"], None)
    if values == "spatially_aware":
        pixel_values = _spatially_aware_values(images, weights, block_size)
    elif values == "plain":
        pixel_values = _project(images, weights["value_kernel"], None)
    elif values == "conv":
        _check_shape(
            weights["value_kernel"][:, :, 0, 0], (block_size, block_size)
        )
        pixel_values = _convolve_same(images, weights["value_kernel"])
    else:
        raise ValueError(f"unknown values {values!r}")

    filters = queries.shape[-1]
    head_width = _head_width(filters, num_heads)
    outputs = np.zeros((batch, height, width, filters))
    for image in range(batch):
        for query_row in range(height):
            for query_column in range(width):
                top = query_row - query_row % block_size
                left = query_column - query_column % block_size
                bottom = min(top + block_size, height)
                right = min(left + block_size, width)
                for head in range(num_heads):
                    first = head * head_width
                    last = first + head_width
                    query = queries[image, query_row, query_column, first:last]

                    block = []
                    logits = []
                    for row in range(top, bottom):
                        for column in range(left, right):
                            key = keys[image, row, column, first:last]
                            block.append((row, column))
                            logits.append(np.dot(query, key))

                    for (row, column), score in zip(
                        block, _softmax(logits), strict=True
                    ):
                        value = pixel_values[image, row, column, first:last]
                        outputs[image, query_row, query_column, first:last] += (
                            score * value
                        )
    return outputs


def numerical_gradient(function, arrays, cotangent, epsilon=1e-6):
    """Central-difference gradient of sum(cotangent * function(arrays)).

    Args:
        function: takes a dict like `arrays`, returns one array.
        arrays: dict of name -> float64 array of any shape; left unchanged.
        cotangent: array of the shape that `function` returns.
        epsilon: the step to either side of every element.

    Returns:
        dict of name -> array of the shape of `arrays[name]`.
    """
    # Copies: an element is moved in place and the caller must not see it.
    moved = {
        name: np.array(array, dtype=np.float64)
        for name, array in arrays.items()
    }
    cotangent = np.asarray(cotangent, dtype=np.float64)

    def total():
        result = np.asarray(function(moved), dtype=np.float64)
        # Broadcasting would hide a cotangent of the wrong shape.
        _check_shape(result, cotangent.shape)
        return np.sum(cotangent * result)

    gradients = {}
    for name, array in moved.items():
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            original = array[index]
            array[index] = original + epsilon
            above = total()
            array[index] = original - epsilon
            below = total()
            array[index] = original
            gradient[index] = (above - below) / (2 * epsilon)
        gradients[name] = gradient
    return gradients


def _pair(value):
    """An integer stands for the same number of rows and of columns."""
    if isinstance(value, int):
        return value, value
    first, second = value
    return int(first), int(second)


def _as_float64(weights):
    """The same dict of arrays, of unchanged shapes; absent (None) left out."""
    return {
        name: np.asarray(array, dtype=np.float64)
        for name, array in weights.items()
        if array is not None
    }


def _check_shape(array, shape):
    """Refuse an array that indexing or broadcasting might yet accept."""
    if array.shape != tuple(shape):
        raise ValueError(f"expected shape {tuple(shape)}, got {array.shape}")


def _head_width(filters, num_heads):
    """Channels of one head."""
    if filters % num_heads:
        raise ValueError(f"{num_heads} heads do not divide {filters} filters")
    return filters // num_heads


def _softmax(logits):
    """Softmax of a list of numbers; an empty list gives an empty list."""
    if not logits:
        return []
    # The largest exponent becomes 0, so that nothing overflows.
    largest = max(logits)
    exponentials = [math.exp(logit - largest) for logit in logits]
    total = sum(exponentials)
    return [exponential / total for exponential in exponentials]


def _project(images, kernel, bias):
    """Pointwise projection.

    images (batch, height, width, channels), kernel (channels, filters) and
    bias (filters,) or None give (batch, height, width, filters).
    """
    batch, height, width, _ = images.shape
    filters = kernel.shape[1]
    projected = np.zeros((batch, height, width, filters))
    for image in range(batch):
        for row in range(height):
            for column in range(width):
                vector = np.dot(images[image, row, column], kernel)
                if bias is not None:
                    _check_shape(bias, (filters,))
                    vector = vector + bias
                projected[image, row, column] = vector
    return projected


def _query_positions(size, kernel, stride, dilation, padding):
    """Input coordinates of the queries along one axis, as a list."""
    if padding == "same":
        start = 0
        count = math.ceil(size / stride)
    elif padding == "valid":
        start = dilation * (kernel // 2)
        # No window fits in an image smaller than the window.
        count = max(0, math.ceil((size - 2 * start) / stride))
    else:
        raise ValueError(f"unknown padding {padding!r}")
    return [start + stride * index for index in range(count)]


def _sinusoid(position, width):
    """Encoding of one coordinate, (width,): sines first, cosines after."""
    encoding = np.zeros(width)
    sines = math.ceil(width / 2)
    for i in range(sines):
        encoding[i] = math.sin(position * 10000 ** (-2 * i / width))
    for i in range(width - sines):
        encoding[sines + i] = math.cos(position * 10000 ** (-2 * i / width))
    return encoding


def _add_absolute_encoding(images):
    """Images plus sinusoids, (batch, height, width, channels).

    The first half of the channels encodes the row, the rest the column; with
    an odd number of channels the row has one more.
    """
    batch, height, width, channels = images.shape
    row_channels = math.ceil(channels / 2)
    encoded = np.array(images)
    for image in range(batch):
        for row in range(height):
            for column in range(width):
                encoded[image, row, column, :row_channels] += _sinusoid(
                    row, row_channels
                )
                encoded[image, row, column, row_channels:] += _sinusoid(
                    column, channels - row_channels
                )
    return encoded


def _spatially_aware_values(images, weights, block_size):
    """Values by a mixture of kernels that depends on the place in the block.

    images (batch, height, width, channels) give (batch, height, width,
    filters).
    """
    kernels = weights["value_kernels"]
    row_embedding = weights["row_embedding"]
    column_embedding = weights["column_embedding"]
    mixture_embedding = weights["mixture_embedding"]
    num_mixtures, _, filters = kernels.shape
    embedding_width = mixture_embedding.shape[1]
    _check_shape(row_embedding, (block_size, embedding_width))
    _check_shape(column_embedding, (block_size, embedding_width))
    _check_shape(mixture_embedding, (num_mixtures, embedding_width))

    batch, height, width, _ = images.shape
    values = np.zeros((batch, height, width, filters))
    for image in range(batch):
        for row in range(height):
            for column in range(width):
                place = (
                    row_embedding[row % block_size]
                    + column_embedding[column % block_size]
                )
                probabilities = _softmax(
                    [
                        np.dot(place, mixture_embedding[mixture])
                        for mixture in range(num_mixtures)
                    ]
                )
                kernel = np.zeros(kernels.shape[1:])
                for mixture in range(num_mixtures):
                    kernel += probabilities[mixture] * kernels[mixture]
                values[image, row, column] = np.dot(
                    images[image, row, column], kernel
                )
    return values


def _convolve_same(images, kernel):
    """Cross-correlation, zero-padded to the size of the image.

    images (batch, height, width, channels) and kernel (kernel_height,
    kernel_width, channels, filters) give (batch, height, width, filters).
    """
    kernel_height, kernel_width, _, filters = kernel.shape
    # An even kernel pads one more below and to the right than above and to
    # the left, as TensorFlow does.
    rows_before = (kernel_height - 1) // 2
    columns_before = (kernel_width - 1) // 2
    batch, height, width, _ = images.shape
    outputs = np.zeros((batch, height, width, filters))
    for image in range(batch):
        for out_row in range(height):
            for out_column in range(width):
                for a in range(kernel_height):
                    for b in range(kernel_width):
                        row = out_row + a - rows_before
                        column = out_column + b - columns_before
                        if not (0 <= row < height and 0 <= column < width):
                            continue
                        outputs[image, out_row, out_column] += np.dot(
                            images[image, row, column], kernel[a, b]
                        )
    return outputs
