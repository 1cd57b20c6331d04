import keras
from keras import ops

from keras_sasa.layers.image_layer import (
    ImageLayer,
    check_heads,
    positive_integer,
)
from keras_sasa.local_attention.geometry import MASKED_LOGIT, ceil_divide
from keras_sasa.local_attention.patches import softmax

VALUES = ("spatially_aware", "plain", "conv")


@keras.saving.register_keras_serializable(package="keras_sasa")
class AttentionStem(ImageLayer):
    """The stem of the full attention network, in the place of a convolution.

    The image is cut into blocks of `block_size` x `block_size` pixels, and the
    pixels of a block attend to each other. For one head and the pixels `i`,
    `j` of a block,

    ```
    y_i = sum over j of softmax_j(q_i . k_j) v_j
    v_j = (sum over m of p(a, b, m) W_V^m) x_j
    p(a, b, m) = softmax_m((row_embedding[a] + column_embedding[b]) . nu^m)
    ```

    with (a, b) the place of `j` in its block: values know where they are, as
    the filters of a convolution do. Batch normalization and a max pooling over
    every block follow, so that the output is `block_size` times smaller.

    Where a block is cut off by the border of the image, only its pixels
    inside take part. The softmaxes are computed in float32 (float64 for
    float64 inputs).

    Args:
        filters: Integer, number of channels of the output; a multiple of
            `num_heads`.
        block_size: Integer, side of a block.
        num_heads: Integer, number of attention heads.
        num_mixtures: Integer, number of matrices `W_V^m`. Read only with
            spatially aware values.
        values: Where values come from, the rows of the paper's table of stems:
            `"spatially_aware"` as above, `"plain"` for one pointwise
            projection, `"conv"` for a convolution of `block_size` x
            `block_size` over the image.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that
            of `keras.config.image_data_format()`.
        momentum: Float, momentum of the batch normalization.
        kernel_initializer: Initializer of the projections.
        embedding_initializer: Initializer of row, column and mixture
            embeddings.
        kernel_regularizer: Regularizer of the projections.
        embedding_regularizer: Regularizer of the embeddings.
        kernel_constraint: Constraint of the projections.
        embedding_constraint: Constraint of the embeddings.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of
            `keras.layers.Layer`.

    Call arguments:
        inputs: Images, of the input shape below.
        training: Boolean, whether the batch normalization uses the statistics
            of the batch.

    Input shape:
        `(batch_size, height, width, channels)`, or
        `(batch_size, channels, height, width)` for `"channels_first"`. Only
        `channels` must be known.

    Output shape:
        `(batch_size, ceil(height / block_size), ceil(width / block_size),
        filters)`, or `(batch_size, filters, ...)`.

    Raises:
        ValueError: If an argument is outside what is allowed above, or the
            input has not four axes or an unknown number of channels.

    Example:

    >>> import numpy as np
    >>> from keras_sasa import AttentionStem
    >>> images = np.random.normal(size=(2, 64, 64, 3)).astype("float32")
    >>> tuple(AttentionStem(32)(images).shape)
    (2, 16, 16, 32)

    Reference:
        [Ramachandran et al., 2019](https://arxiv.org/abs/1906.05909),
        section 3.2 and appendix. The number of mixtures, the width of the
        embeddings (here that of a head) and an activation (here none) are not
        stated there. The `block_size` of the convolution is ours: it is the
        size that fits the published FLOPs.
    """

    def __init__(
        self,
        filters=64,
        block_size=4,
        num_heads=4,
        num_mixtures=4,
        values="spatially_aware",
        data_format=None,
        momentum=0.99,
        kernel_initializer="glorot_uniform",
        embedding_initializer="random_normal",
        kernel_regularizer=None,
        embedding_regularizer=None,
        kernel_constraint=None,
        embedding_constraint=None,
        **kwargs,
    ):
        super().__init__(
            data_format,
            parts={
                "kernel_initializer": kernel_initializer,
                "embedding_initializer": embedding_initializer,
                "kernel_regularizer": kernel_regularizer,
                "embedding_regularizer": embedding_regularizer,
                "kernel_constraint": kernel_constraint,
                "embedding_constraint": embedding_constraint,
            },
            **kwargs,
        )
        self.filters = positive_integer(filters, "filters")
        self.block_size = positive_integer(block_size, "block_size")
        self.num_heads = positive_integer(num_heads, "num_heads")
        self.num_mixtures = positive_integer(num_mixtures, "num_mixtures")
        if values not in VALUES:
            raise ValueError(
                f"`values` must be one of {VALUES}. Received: "
                f"values={values!r}."
            )
        check_heads(self.filters, self.num_heads)
        self.values = values
        self.momentum = momentum
        self.batch_normalization = keras.layers.BatchNormalization(
            axis=-1,
            momentum=momentum,
            epsilon=1e-5,
            dtype=self.dtype_policy,
            name="batch_normalization",
        )

    def build(self, input_shape):
        channels = self._channels(input_shape)
        projection = (channels, self.filters)
        self.query_kernel = self._add("kernel", "query_kernel", projection)
        self.key_kernel = self._add("kernel", "key_kernel", projection)
        if self.values == "spatially_aware":
            # One matrix a weight: the fans of a stack of them would be those
            # of a convolution.
            self.value_kernels = [
                self._add("kernel", f"value_kernel_{number}", projection)
                for number in range(self.num_mixtures)
            ]
            width = self.filters // self.num_heads
            for name, entries in (
                ("row_embedding", self.block_size),
                ("column_embedding", self.block_size),
                ("mixture_embedding", self.num_mixtures),
            ):
                weight = self._add("embedding", name, (entries, width))
                setattr(self, name, weight)
        else:
            block = (self.block_size, self.block_size)
            shape = projection if self.values == "plain" else block + projection
            self.value_kernel = self._add("kernel", "value_kernel", shape)
        self.batch_normalization.build((None, None, None, self.filters))
        self._fix_channels(channels)

    def call(self, inputs, training=None):
        if self.data_format == "channels_first":
            inputs = ops.transpose(inputs, (0, 2, 3, 1))
        outputs = self.attend(inputs)
        outputs = self.batch_normalization(outputs, training=training)
        outputs = self._pool(outputs)
        if self.data_format == "channels_first":
            outputs = ops.transpose(outputs, (0, 3, 1, 2))
        return outputs

    def attend(self, inputs):
        """Attention within blocks, before normalization and pooling.

        Args:
            inputs: `(batch_size, height, width, channels)`.

        Returns:
            `(batch_size, height, width, filters)`.
        """
        _, height, width, _ = ops.shape(inputs)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        softmax_dtype = "float64" if dtype == "float64" else "float32"
        blocks = self._cut(inputs)
        query, key = (
            self._split_heads(ops.matmul(blocks, kernel))
            for kernel in (self.query_kernel, self.key_kernel)
        )
        value = self._split_heads(self._values(inputs, blocks))
        # Cast before the product, which float16 could not hold.
        logits = ops.einsum(
            "bind,bjnd->bnij",
            ops.cast(query, softmax_dtype),
            ops.cast(key, softmax_dtype),
        )
        # Only pixels of the image are keys; the border may cut a block off.
        inside = self._cut(ops.ones_like(inputs[..., :1]))[..., 0] > 0.5
        logits = ops.where(inside[:, None, None, :], logits, MASKED_LOGIT)
        weights = ops.cast(softmax(logits), dtype)
        outputs = ops.einsum("bnij,bjnd->bind", weights, value)
        return self._join(outputs, height, width)

    def _values(self, inputs, blocks):
        if self.values == "plain":
            return ops.matmul(blocks, self.value_kernel)
        if self.values == "conv":
            return self._cut(
                ops.conv(
                    inputs,
                    self.value_kernel,
                    padding="same",
                    data_format="channels_last",
                )
            )
        dtype = "float64" if self.compute_dtype == "float64" else "float32"
        rows, columns, mixtures = (
            ops.cast(embedding, dtype)
            for embedding in (
                self.row_embedding,
                self.column_embedding,
                self.mixture_embedding,
            )
        )
        places = ops.reshape(
            rows[:, None] + columns[None], (-1, ops.shape(rows)[-1])
        )
        mixture = softmax(ops.matmul(places, ops.transpose(mixtures)))
        mixture = ops.cast(mixture, self.compute_dtype)
        # One matrix for every place in the block, (places, channels, filters).
        kernels = ops.stack(
            [
                ops.cast(kernel, self.compute_dtype)
                for kernel in self.value_kernels
            ]
        )
        kernels = ops.einsum("pm,mcf->pcf", mixture, kernels)
        return ops.einsum("bpc,pcf->bpf", blocks, kernels)

    def _cut(self, maps):
        """`(B, H, W, C)` -> `(B * blocks, block_size ** 2, C)`."""
        size = self.block_size
        batch, height, width, channels = ops.shape(maps)
        rows, columns = self._blocks(height, width)
        maps = self._fill_up(maps)
        maps = ops.reshape(maps, (batch, rows, size, columns, size, channels))
        maps = ops.transpose(maps, (0, 1, 3, 2, 4, 5))
        return ops.reshape(maps, (batch * rows * columns, size**2, channels))

    def _join(self, blocks, height, width):
        """The inverse of `_cut`, with the heads put together."""
        size = self.block_size
        rows, columns = self._blocks(height, width)
        blocks = ops.reshape(
            blocks, (-1, rows, columns, size, size, self.filters)
        )
        blocks = ops.transpose(blocks, (0, 1, 3, 2, 4, 5))
        maps = ops.reshape(
            blocks, (-1, rows * size, columns * size, self.filters)
        )
        return maps[:, :height, :width]

    def _blocks(self, height, width):
        """Returns how many blocks there are along both sides."""
        return tuple(
            ceil_divide(size, self.block_size) for size in (height, width)
        )

    def _fill_up(self, maps, value=0.0):
        """Fills up the blocks that the border cuts off."""
        sizes = ops.shape(maps)[1:3]
        padding = [
            (0, number * self.block_size - size)
            for number, size in zip(self._blocks(*sizes), sizes, strict=True)
        ]
        return ops.pad(maps, ((0, 0), *padding, (0, 0)), constant_values=value)

    def _split_heads(self, blocks):
        *shape, _ = ops.shape(blocks)
        return ops.reshape(
            blocks,
            (*shape, self.num_heads, self.filters // self.num_heads),
        )

    def _pool(self, maps):
        # Pooling aligned with the blocks; "same" would begin before the image.
        pooled = ops.max_pool(
            self._fill_up(maps, -float("inf")),
            self.block_size,
            strides=self.block_size,
            data_format="channels_last",
        )
        # LiteRT needs known channels to convolve, and padding forgets them.
        _, height, width, _ = ops.shape(maps)
        return ops.reshape(
            pooled, (-1, *self._blocks(height, width), self.filters)
        )

    def compute_output_shape(self, input_shape):
        self._channels(input_shape)
        sizes = tuple(
            None if size is None else ceil_divide(size, self.block_size)
            for size in self._spatial(input_shape)
        )
        return self._output_shape(input_shape[0], sizes, self.filters)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape), dtype=self.compute_dtype
        )

    def get_config(self):
        config = super().get_config()
        config.update(
            filters=self.filters,
            block_size=self.block_size,
            num_heads=self.num_heads,
            num_mixtures=self.num_mixtures,
            values=self.values,
            momentum=self.momentum,
        )
        return config
