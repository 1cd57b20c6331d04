from typing import Any

import keras
from keras import ops

from keras_sasa._argument_checks import check_heads, positive_integer
from keras_sasa.layers.batch_normalization import (
    BatchNormalization,
    inference_scale_and_offset,
)
from keras_sasa.layers.image_layer import (
    ConstraintLike,
    ImageLayer,
    InitializerLike,
    RegularizerLike,
)
from keras_sasa.ops.block_attention import (
    block_attention,
    check_implementation,
    pool,
    pooled_block_attention,
)
from keras_sasa.ops.precision import compute_dtype
from keras_sasa.ops.sizes import ceil_divide
from keras_sasa.ops.softmax import softmax

VALUES = ("spatially_aware", "plain", "conv")


@keras.saving.register_keras_serializable(package="keras_sasa")
class AttentionStem(ImageLayer):
    """The stem of the full attention network, replacing a convolution.

    The image is cut into blocks of `block_size` x `block_size` pixels, and the
    pixels of a block attend to each other. For one head and the pixels `i`,
    `j` of a block,

    ```
    y_i = sum over j of softmax_j(q_i . k_j) v_j
    v_j = (sum over m of p(a, b, m) W_V^m) x_j
    p(a, b, m) = softmax_m((row_embedding[a] + column_embedding[b]) . nu^m)
    ```

    with (a, b) the place of `j` in its block: values depend on their place, as
    they do under the filters of a convolution. Batch normalization and max
    pooling over every block follow, so the output is `block_size` times
    smaller.

    If the border of the image cuts a block off, only its pixels inside the
    image take part. The softmaxes are computed in float32 (float64 for float64
    inputs).

    Args:
        filters: Integer, number of channels of the output; a multiple of
            `num_heads`.
        block_size: Integer, side of a block.
        num_heads: Integer, number of attention heads.
        num_mixtures: Integer, number of matrices `W_V^m`. Used only with
            spatially aware values.
        values: How values are computed, the rows of the paper's table of stems:
            `"spatially_aware"` as above, `"plain"` for one pointwise
            projection, `"conv"` for a convolution of `block_size` x
            `block_size` over the image.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes
            `keras.config.image_data_format()`.
        implementation: As in `SelfAttention2D`. Where the stem has no
            implementation of that name, operations of Keras compute it. It
            never changes the result.
        momentum: Float, momentum of the batch normalization.
        kernel_initializer: Initializer of the projections. An initializer with
            a seed draws the same numbers for projections of the same shape.
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
        ValueError: If an argument is not as described above, if the input
            does not have four axes and a known number of channels, or if the
            named implementation does not run here.

    Example:

    >>> import numpy as np
    >>> from keras_sasa import AttentionStem
    >>> images = np.random.normal(size=(2, 64, 64, 3)).astype("float32")
    >>> tuple(AttentionStem(32)(images).shape)
    (2, 16, 16, 32)

    Reference:
        [Ramachandran et al., 2019](https://arxiv.org/abs/1906.05909),
        section 3.2 and appendix. The paper does not state the number of
        mixtures, the width of the embeddings (here the width of a head) and an
        activation (here none). The `block_size` of the convolution is our
        choice: this size fits the published FLOPs.
    """

    def __init__(
        self,
        filters: int = 64,
        block_size: int = 4,
        num_heads: int = 4,
        num_mixtures: int = 4,
        values: str = "spatially_aware",
        data_format: str | None = None,
        implementation: str | None = None,
        momentum: float = 0.99,
        kernel_initializer: InitializerLike = "glorot_uniform",
        embedding_initializer: InitializerLike = "random_normal",
        kernel_regularizer: RegularizerLike = None,
        embedding_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        embedding_constraint: ConstraintLike = None,
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
        check_implementation(implementation)
        self.values = values
        self.implementation = implementation
        self.batch_normalization = BatchNormalization(
            axis=-1,
            momentum=momentum,
            epsilon=1e-5,
            dtype=self.dtype_policy,
            name="batch_normalization",
        )

    @property
    def momentum(self):
        return self.batch_normalization.momentum

    def build(self, input_shape):
        channels = self._channels(input_shape)
        projection = (channels, self.filters)
        self.query_kernel = self._add("kernel", "query_kernel", projection)
        self.key_kernel = self._add("kernel", "key_kernel", projection)
        if self.values == "spatially_aware":
            # One weight per matrix: the fans of a stack of matrices would be
            # the fans of a convolution.
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
        inputs = self._to_channels_last(inputs)
        # A gradient would recompute the maps that pooling does not keep.
        if training and self.trainable_variables:
            outputs = self.attend(inputs)
            outputs = self.batch_normalization(outputs, training=True)
            outputs = pool(outputs, self.block_size)
        else:
            outputs = pooled_block_attention(
                inputs,
                *self._matrices(inputs),
                *inference_scale_and_offset(
                    self.batch_normalization,
                    compute_dtype(self.compute_dtype),
                ),
                **self._options,
            )
        return self._from_channels_last(outputs)

    def attend(self, inputs):
        """Attention within blocks, before normalization and pooling.

        Args:
            inputs: `(batch_size, height, width, channels)`.

        Returns:
            `(batch_size, height, width, filters)`.
        """
        return block_attention(inputs, *self._matrices(inputs), **self._options)

    @property
    def _options(self):
        return {
            "block_size": self.block_size,
            "num_heads": self.num_heads,
            "implementation": self.implementation,
        }

    def _matrices(self, inputs):
        """Returns the kernels of queries and keys, and the values."""
        return self.query_kernel, self.key_kernel, self._value(inputs)

    def _value(self, inputs):
        """Returns `(places or 1, channels, filters)`, or a map of values."""
        if self.values == "plain":
            return ops.cast(self.value_kernel, self.compute_dtype)[None]
        if self.values == "conv":
            return ops.conv(
                inputs,
                self.value_kernel,
                padding="same",
                data_format="channels_last",
            )
        dtype = compute_dtype(self.compute_dtype)
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
        kernels = ops.stack(
            [
                ops.cast(kernel, self.compute_dtype)
                for kernel in self.value_kernels
            ]
        )
        return ops.einsum("pm,mcf->pcf", mixture, kernels)

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
            implementation=self.implementation,
            momentum=self.momentum,
            batch_normalization={
                "epsilon": self.batch_normalization.epsilon,
                "trainable": self.batch_normalization.trainable,
                "synchronized": self.batch_normalization.synchronized,
                "dtype_policy": keras.dtype_policies.serialize(
                    self.batch_normalization.dtype_policy
                ),
            },
        )
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        # Files of version 0.1.0 have no such entry.
        settings = config.pop("batch_normalization", {})
        layer = super().from_config(config)
        for name, value in settings.items():
            if name == "dtype_policy":
                value = keras.dtype_policies.get(value)
            setattr(layer.batch_normalization, name, value)
        return layer
