from typing import Any

import keras
from keras import ops

from keras_sasa._argument_checks import (
    check_heads,
    dropout_rate,
    non_negative_integer,
    positive_integer,
)
from keras_sasa.layers.image_layer import (
    ConstraintLike,
    ImageLayer,
    InitializerLike,
    RegularizerLike,
)
from keras_sasa.ops.halo_attention import check_image_size, halo_attention
from keras_sasa.ops.local_attention import check_implementation
from keras_sasa.ops.slices import subsample


@keras.saving.register_keras_serializable(package="keras_sasa")
class HaloAttention2D(ImageLayer):
    """Halo attention, the local attention of HaloNet.

    The image is cut into blocks of `block_size` x `block_size` pixels. Every
    pixel attends to its block and to a halo of `halo_size` pixels around it, a
    window of `K = block_size + 2 * halo_size` pixels along each axis. For one
    head of width `d`, a query `q` at the place (i, j) of its block and the keys
    `k` and values `v` at the places (r, c) of the window,

    ```
    y_ij = sum over r, c of softmax_rc(logit_rc) v_rc
    logit_rc = q . k_rc / sqrt(d) + q . row_embedding[r - i + K - 1]
               + q . column_embedding[c - j + K - 1]
    ```

    where queries, keys and values are pointwise projections of the input
    without bias. The outputs of the heads are concatenated. Beyond the border
    of the image, keys and values are zero and take part. The softmax is
    computed in float32 (float64 for float64 inputs) under every dtype policy.

    With strides, every `strides`-th pixel is a query, and `i` and `j` count the
    queries of a block. If `strides` does not divide `block_size`, every pixel
    is a query, and an average over `strides` x `strides` pixels follows.

    Args:
        filters: Integer, number of channels of the output; a multiple of
            `num_heads`.
        num_heads: Integer, number of attention heads.
        block_size: Integer, side of a block.
        halo_size: Integer, pixels around a block that its queries see as well.
        strides: Integer, distance between queries.
        key_filters: Integer, number of channels of queries and of keys; a
            multiple of `num_heads`. `None` takes `filters`.
        dropout: Float in [0, 1), fraction of the attention weights to drop
            during training.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes
            `keras.config.image_data_format()`.
        implementation: As in `SelfAttention2D`, so that one name suits all
            layers of a network. Halo attention has one implementation,
            `"tiled"`, which computes it under every name.
        kernel_initializer: Initializer of the three projections. An
            initializer with a seed draws the same numbers for projections of
            the same shape.
        embedding_initializer: Initializer of the two relative embeddings.
        kernel_regularizer: Regularizer of the projections.
        embedding_regularizer: Regularizer of the embeddings.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint of the projections.
        embedding_constraint: Constraint of the embeddings.
        seed: Integer, seed of the dropout.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: Images, of the input shape below.
        training: Boolean, whether dropout is applied.
        return_attention_scores: Boolean, whether to return
            `(outputs, attention_scores)`.

    Input shape:
        `(batch_size, height, width, channels)`, or
        `(batch_size, channels, height, width)` for `"channels_first"`. Only
        `channels` must be known. Height and width are multiples of
        `block_size`.

    Output shape:
        `(batch_size, height // strides, width // strides, filters)`, or
        `(batch_size, filters, height // strides, width // strides)`. The
        attention scores are `(batch_size, height // strides, width // strides,
        num_heads, K, K)`, of every pixel if `strides` does not divide
        `block_size`; index 0 of a window side is the top or left.

    Raises:
        ValueError: If an argument is not as described above, or if the input
            does not have four axes, a known number of channels, and a height
            and width that are multiples of `block_size`.

    Example:

    >>> import numpy as np
    >>> from keras_sasa import HaloAttention2D
    >>> images = np.random.normal(size=(2, 16, 16, 64)).astype("float32")
    >>> layer = HaloAttention2D(64, block_size=8, halo_size=3, strides=2)
    >>> outputs, scores = layer(images, return_attention_scores=True)
    >>> tuple(outputs.shape), tuple(scores.shape)
    ((2, 8, 8, 64), (2, 8, 8, 8, 14, 14))

    Reference:
        [Vaswani et al., 2021](https://arxiv.org/abs/2103.12731), section 2. The
        details that the paper leaves open are those of `HaloAttn` in
        [timm](https://github.com/huggingface/pytorch-image-models), so that
        its published weights can be loaded.
    """

    def __init__(
        self,
        filters: int,
        num_heads: int = 8,
        block_size: int = 8,
        halo_size: int = 3,
        strides: int = 1,
        key_filters: int | None = None,
        *,
        dropout: float = 0.0,
        data_format: str | None = None,
        implementation: str | None = None,
        kernel_initializer: InitializerLike = "glorot_uniform",
        embedding_initializer: InitializerLike = "random_normal",
        kernel_regularizer: RegularizerLike = None,
        embedding_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        embedding_constraint: ConstraintLike = None,
        seed: int | None = None,
        **kwargs: Any,
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
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.filters = positive_integer(filters, "filters")
        self.num_heads = positive_integer(num_heads, "num_heads")
        self.block_size = positive_integer(block_size, "block_size")
        self.halo_size = non_negative_integer(halo_size, "halo_size")
        self.strides = positive_integer(strides, "strides")
        if key_filters is None:
            key_filters = filters
        self.key_filters = positive_integer(key_filters, "key_filters")
        check_heads(self.filters, self.num_heads)
        check_heads(self.key_filters, self.num_heads, "key_filters")
        self.dropout = dropout_rate(dropout, "dropout")
        check_implementation(implementation)
        self.implementation = implementation
        self.seed = seed
        if self.dropout:
            self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def window_size(self) -> int:
        """Side of the window that the queries of a block see."""
        return self.block_size + 2 * self.halo_size

    @property
    def query_strides(self) -> int:
        """Distance between queries; 1 where an average follows."""
        return self.strides if self.block_size % self.strides == 0 else 1

    def build(self, input_shape):
        channels = self._channels(input_shape)
        check_image_size(self._spatial(input_shape), self.block_size)
        for name, filters in (
            ("query", self.key_filters),
            ("key", self.key_filters),
            ("value", self.filters),
        ):
            kernel = self._add("kernel", f"{name}_kernel", (channels, filters))
            setattr(self, f"{name}_kernel", kernel)
        shape = 2 * self.window_size - 1, self.key_filters // self.num_heads
        for name in ("row_embedding", "column_embedding"):
            setattr(self, name, self._add("embedding", name, shape))
        self._fix_channels(channels)

    def call(self, inputs, training=None, return_attention_scores=False):
        inputs = self._to_channels_last(inputs)
        step = self.query_strides
        every = slice(None, None, step)
        queries = subsample(inputs, every, every) if step > 1 else inputs
        outputs = halo_attention(
            ops.matmul(queries, self.query_kernel),
            ops.matmul(inputs, self.key_kernel),
            ops.matmul(inputs, self.value_kernel),
            self.row_embedding,
            self.column_embedding,
            num_heads=self.num_heads,
            block_size=self.block_size,
            halo_size=self.halo_size,
            strides=step,
            dropout_mask=self._dropout_mask(queries) if training else None,
            return_attention_scores=bool(return_attention_scores),
        )
        outputs, *scores = outputs if return_attention_scores else (outputs,)
        if step < self.strides:
            # With the default strides, Keras 3.15 fails on JAX.
            outputs = ops.average_pool(
                outputs,
                self.strides,
                self.strides,
                data_format="channels_last",
            )
        outputs = self._from_channels_last(outputs)
        return (outputs, *scores) if scores else outputs

    def _dropout_mask(self, queries):
        """Factors of the attention weights, or `None` without dropout."""
        if not self.dropout:
            return None
        shape = ops.shape(queries)[:3]
        window = self.window_size
        return keras.random.dropout(
            ops.ones((*shape, self.num_heads, window, window), "float32"),
            self.dropout,
            seed=self.seed_generator,
        )

    def _query_sizes(self, input_shape, strides):
        return tuple(
            None if size is None else size // strides
            for size in self._spatial(input_shape)
        )

    def compute_output_shape(self, input_shape):
        self._channels(input_shape)
        check_image_size(self._spatial(input_shape), self.block_size)
        return self._output_shape(
            input_shape[0],
            self._query_sizes(input_shape, self.strides),
            self.filters,
        )

    def compute_output_spec(
        self, inputs, training=None, return_attention_scores=False
    ):
        shape = self.compute_output_shape(inputs.shape)
        outputs = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        queries = self._query_sizes(inputs.shape, self.query_strides)
        window = self.window_size
        scores = keras.KerasTensor(
            (shape[0], *queries, self.num_heads, window, window),
            dtype=self.compute_dtype,
        )
        return outputs, scores

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_heads": self.num_heads,
            "block_size": self.block_size,
            "halo_size": self.halo_size,
            "strides": self.strides,
            "key_filters": self.key_filters,
            "dropout": self.dropout,
            "implementation": self.implementation,
            "seed": self.seed,
            "activity_regularizer": keras.regularizers.serialize(
                self.activity_regularizer
            ),
        }
