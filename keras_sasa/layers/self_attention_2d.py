from collections.abc import Callable
from typing import Any

import keras
from keras import activations, ops, regularizers

from keras_sasa._argument_checks import (
    check_heads,
    dropout_rate,
    positive_integer,
)
from keras_sasa.layers.image_layer import (
    ConstraintLike,
    ImageLayer,
    InitializerLike,
    RegularizerLike,
)
from keras_sasa.layers.image_mask import standardize_mask
from keras_sasa.layers.position_encodings import sinusoidal_encoding
from keras_sasa.ops.local_attention import (
    check_implementation,
    projected_attention,
)
from keras_sasa.ops.local_attention.position import RowColumnEmbeddings
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.projections import Projections
from keras_sasa.ops.local_attention.window import pair, window_axes
from keras_sasa.ops.precision import compute_dtype

# The position terms of the logits, by `position_encoding`.
_POSITION_TERMS = {"relative": RowColumnEmbeddings()}
POSITION_ENCODINGS = (*_POSITION_TERMS, "absolute", None)


@keras.saving.register_keras_serializable(package="keras_sasa")
class SelfAttention2D(ImageLayer):
    """Stand-alone local self-attention, a replacement for 2-D convolutions.

    Every pixel attends to the `kernel_size` window around it. One head, whose
    query `q`, keys `k` and values `v` are pointwise projections of the input,
    computes

    ```
    y_ij = sum over (a, b) in the window of (i, j) of
           softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) v_ab
    r_{a-i, b-j} = concat(row_embedding[a-i], column_embedding[b-j])
    ```

    The outputs of the heads are concatenated. As in the paper, the logits are
    not scaled and there is no output projection. Pixels outside the image are
    masked, so a constant image stays constant. The softmax is computed in
    float32 (float64 for float64 inputs) under every dtype policy.

    Sizes, padding, strides and dilation have the same meaning as in
    `keras.layers.Conv2D`, and output shapes are equal. One thing differs:
    windows are always centred on their query, so a strided output is exactly
    the stride-1 output `[:, ::strides, ::strides]`.

    Args:
        filters: Integer, number of channels of the output; a multiple of
            `num_heads`.
        kernel_size: Odd integer or pair (height, width), the window.
        num_heads: Integer, number of attention heads. With relative positions
            `filters / num_heads` must be even.
        strides: Integer or pair, distance between queries.
        padding: `"same"`, or `"valid"` for queries whose window lies inside
            the image.
        dilation_rate: Integer or pair, distance between the keys of a window.
            It cannot be combined with `strides` > 1.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes
            `keras.config.image_data_format()`.
        activation: Activation function of the output, as in `Conv2D`. `None`
            applies none.
        position_encoding: `"relative"` for the learned embeddings above,
            `"absolute"` for a sinusoidal encoding of rows and columns that is
            added to the input, `None` for neither.
        use_content: Boolean, whether logits have the term `q . k`. Without it,
            only `q . r` is left, and there is no `key_kernel`.
        use_bias: Boolean, whether the three projections have a bias.
        dropout: Float in [0, 1), fraction of the attention weights to drop
            during training.
        implementation: How the attention is computed, which never changes the
            result or the weights: one of the names in
            `keras_sasa.local_attention.available()`, or `None` for the fastest
            that runs here.
        kernel_initializer: Initializer of the three projections. An
            initializer with a seed draws the same numbers for each.
        value_initializer: Initializer of the projection to values. `None`
            takes `kernel_initializer`.
        embedding_initializer: Initializer of the two relative embeddings.
        bias_initializer: Initializer of the biases.
        kernel_regularizer: Regularizer of the projections.
        embedding_regularizer: Regularizer of the embeddings.
        bias_regularizer: Regularizer of the biases.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint of the projections.
        embedding_constraint: Constraint of the embeddings.
        bias_constraint: Constraint of the biases.
        seed: Integer, seed of the dropout.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: Images, of the input shape below.
        mask: Booleans `(batch_size, height, width)`, true where a pixel may be
            attended to. If all keys of a query are masked, its output is zero
            (before the activation, without the bias). Also accepted are a last
            axis of one, a batch size of 1 for one mask for all images, and
            `(batch_size,)` for whole images, as `TimeDistributed` passes a mask
            of frames.
        training: Boolean, whether dropout is applied.
        return_attention_scores: Boolean, whether to return
            `(outputs, attention_scores)`.
        epilogue: The steps that `keras_sasa.fusion` adds, or `None`. It cannot
            be combined with a mask.

    Input shape:
        `(batch_size, height, width, channels)`, or
        `(batch_size, channels, height, width)` for `"channels_first"`. Only
        `channels` must be known.

    Output shape:
        `(batch_size, out_height, out_width, filters)`, or
        `(batch_size, filters, out_height, out_width)`. The attention scores
        are `(batch_size, out_height, out_width, num_heads, kernel_height,
        kernel_width)`; index 0 of a window side is the top or left.

    Raises:
        ValueError: If an argument is not as described above, if the input
            does not have four axes and a known number of channels, or if the
            named implementation does not run here.

    Example:

    >>> import numpy as np
    >>> from keras_sasa import SelfAttention2D
    >>> images = np.random.normal(size=(2, 32, 32, 3)).astype("float32")
    >>> layer = SelfAttention2D(64, kernel_size=7, num_heads=8)
    >>> outputs, scores = layer(images, return_attention_scores=True)
    >>> tuple(outputs.shape), tuple(scores.shape)
    ((2, 32, 32, 64), (2, 32, 32, 8, 7, 7))

    Reference:
        [Ramachandran et al., 2019](https://arxiv.org/abs/1906.05909),
        sections 2.2 and 3.1. Our `kernel_size` is their `k`, our `num_heads`
        their `N`. Border keys, which the paper does not mention, are masked.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int] = 7,
        *,
        num_heads: int = 8,
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
        dilation_rate: int | tuple[int, int] = 1,
        data_format: str | None = None,
        activation: str | Callable | None = None,
        position_encoding: str | None = "relative",
        use_content: bool = True,
        use_bias: bool = False,
        dropout: float = 0.0,
        implementation: str | None = None,
        kernel_initializer: InitializerLike = "glorot_uniform",
        value_initializer: InitializerLike | None = None,
        embedding_initializer: InitializerLike = "random_normal",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        embedding_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        embedding_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            data_format,
            parts={
                "kernel_initializer": kernel_initializer,
                "value_initializer": value_initializer,
                "embedding_initializer": embedding_initializer,
                "bias_initializer": bias_initializer,
                "kernel_regularizer": kernel_regularizer,
                "embedding_regularizer": embedding_regularizer,
                "bias_regularizer": bias_regularizer,
                "kernel_constraint": kernel_constraint,
                "embedding_constraint": embedding_constraint,
                "bias_constraint": bias_constraint,
            },
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.filters = positive_integer(filters, "filters")
        self.num_heads = positive_integer(num_heads, "num_heads")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.strides = pair(strides, "strides")
        self.padding = padding.lower() if isinstance(padding, str) else padding
        self.dilation_rate = pair(dilation_rate, "dilation_rate")
        rows, columns = window_axes(
            self.kernel_size, self.strides, self.padding, self.dilation_rate
        )
        self.activation = activations.get(activation)
        self.position_encoding = position_encoding
        self.use_content = bool(use_content)
        self.use_bias = bool(use_bias)
        self.dropout = dropout
        self.implementation = implementation
        self.seed = seed
        self._check_arguments()

        if self.dropout > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self._problem = Problem(
            rows,
            columns,
            self.num_heads,
            content=self.use_content,
            position=_POSITION_TERMS.get(self.position_encoding),
        )

    def _check_arguments(self):
        check_heads(self.filters, self.num_heads)
        if self.position_encoding not in POSITION_ENCODINGS:
            raise ValueError(
                f"`position_encoding` must be one of {POSITION_ENCODINGS}. "
                f"Received: position_encoding={self.position_encoding!r}."
            )
        term = _POSITION_TERMS.get(self.position_encoding)
        if term is not None:
            term.check_heads(self.filters, self.num_heads)
        elif not self.use_content:
            raise ValueError(
                "`use_content=False` leaves only the relative positions, so "
                '`position_encoding` must be `"relative"`. Received: '
                f"position_encoding={self.position_encoding!r}."
            )
        dropout_rate(self.dropout, "dropout")
        check_implementation(self.implementation)

    def build(self, input_shape):
        channels = self._channels(input_shape)
        projections = ("query", "key", "value")
        if not self.use_content:
            projections = ("query", "value")
        for projection in projections:
            self._set(
                "kernel",
                f"{projection}_kernel",
                channels,
                self.filters,
                initializer=(
                    self.value_initializer if projection == "value" else None
                ),
            )
            if self.use_bias:
                self._set("bias", f"{projection}_bias", self.filters)
        position = self._problem.position
        if position is not None:
            shapes = position.weight_shapes(
                self._problem.offsets, self.num_heads, self.filters
            )
            for name, shape in zip(position.weight_names, shapes, strict=True):
                self._set("embedding", name, *shape)
        self._fix_channels(channels)

    def _set(self, kind, name, *shape, initializer=None):
        setattr(self, name, self._add(kind, name, shape, initializer))

    def call(
        self,
        inputs,
        mask=None,
        training=None,
        return_attention_scores=False,
        epilogue=None,
    ):
        if epilogue is not None and mask is not None:
            raise ValueError(
                "`epilogue` cannot be combined with `mask`. Received: "
                f"epilogue={epilogue}, mask={mask}."
            )
        inputs = self._to_channels_last(inputs)
        if self.position_encoding == "absolute":
            _, height, width, channels = ops.shape(inputs)
            encoding = sinusoidal_encoding(
                height, width, channels, compute_dtype(self.compute_dtype)
            )
            inputs = inputs + ops.cast(encoding, inputs.dtype)
        mask, image_mask = self._split_mask(mask, inputs)
        outputs = projected_attention(
            self._problem,
            inputs,
            self._projections(),
            self._position_weights(),
            mask=mask,
            dropout_mask=self._dropout_mask(inputs) if training else None,
            epilogue=epilogue,
            return_attention_scores=bool(return_attention_scores),
            training=bool(training),
            implementation=self.implementation,
        )
        outputs, *scores = outputs if return_attention_scores else (outputs,)
        if image_mask is not None:
            # Apart from the attention: few implementations take a mask.
            outputs, *scores = (
                ops.where(
                    ops.reshape(
                        image_mask, (-1,) + (1,) * (len(tensor.shape) - 1)
                    ),
                    tensor,
                    ops.zeros((), tensor.dtype),
                )
                for tensor in (outputs, *scores)
            )
        outputs = self._from_channels_last(outputs)
        outputs = self.activation(outputs)
        return (outputs, *scores) if scores else outputs

    def _split_mask(self, mask, inputs):
        """Returns a mask of pixels and one of whole images, or `None`."""
        if mask is None:
            return None, None
        shape = ops.shape(inputs)[:3]
        mask = standardize_mask(mask, shape)
        # Only the batch is broadcast; other sizes fail, in a graph as well.
        if len(mask.shape) == 1:
            return None, ops.broadcast_to(mask, shape[:1])
        mask = ops.reshape(mask, (-1, *shape[1:]))
        return ops.broadcast_to(mask, shape), None

    def _dropout_mask(self, inputs):
        """Factors of the attention weights, or `None` without dropout."""
        if not self.dropout:
            return None
        batch, *sizes, _ = ops.shape(inputs)
        queries = (
            axis.output_size(size)
            for axis, size in zip(self._problem.axes, sizes, strict=True)
        )
        return keras.random.dropout(
            ops.ones(
                (batch, *queries, self.num_heads, *self.kernel_size),
                dtype="float32",
            ),
            self.dropout,
            seed=self.seed_generator,
        )

    def _projections(self):
        key_kernel = self.key_kernel if self.use_content else None
        kernels = self.query_kernel, key_kernel, self.value_kernel
        if not self.use_bias:
            return Projections(*kernels)
        key_bias = self.key_bias if self.use_content else None
        return Projections(*kernels, self.query_bias, key_bias, self.value_bias)

    def _position_weights(self):
        position = self._problem.position
        if position is None:
            return ()
        return tuple(getattr(self, name) for name in position.weight_names)

    def compute_mask(self, inputs, mask=None):
        if mask is None:
            return None
        shape = (None,) * 3
        if inputs is not None:
            shape = self._images_shape(inputs.shape)
        mask = standardize_mask(mask, shape)
        if len(mask.shape) == 1:
            return mask
        rows, columns = (axis.queries() for axis in self._problem.axes)
        return mask[:, rows, columns]

    def _images_shape(self, shape):
        return (shape[0], *self._spatial(shape))

    def compute_output_shape(self, input_shape):
        self._channels(input_shape)
        return self._output_shape(
            input_shape[0], self._output_sizes(input_shape), self.filters
        )

    def _output_sizes(self, input_shape):
        sizes = tuple(
            None if size is None else axis.output_size(size)
            for axis, size in zip(
                self._problem.axes, self._spatial(input_shape), strict=True
            )
        )
        if any(size is not None and size < 1 for size in sizes):
            raise ValueError(
                'With `padding="valid"` the image must be at least as large '
                f"as the window. Received: input_shape={tuple(input_shape)}, "
                f"kernel_size={self.kernel_size}, "
                f"dilation_rate={self.dilation_rate}."
            )
        return sizes

    def compute_output_spec(
        self,
        inputs,
        mask=None,
        training=None,
        return_attention_scores=False,
    ):
        if mask is not None:
            standardize_mask(mask, self._images_shape(inputs.shape))
        outputs = keras.KerasTensor(
            self.compute_output_shape(inputs.shape), dtype=self.compute_dtype
        )
        if not return_attention_scores:
            return outputs
        scores = keras.KerasTensor(
            (
                inputs.shape[0],
                *self._output_sizes(inputs.shape),
                self.num_heads,
                *self.kernel_size,
            ),
            dtype=self.compute_dtype,
        )
        return outputs, scores

    def get_config(self):
        config = super().get_config()
        config.update(
            filters=self.filters,
            kernel_size=self.kernel_size,
            num_heads=self.num_heads,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            activation=activations.serialize(self.activation),
            position_encoding=self.position_encoding,
            use_content=self.use_content,
            use_bias=self.use_bias,
            dropout=self.dropout,
            implementation=self.implementation,
            seed=self.seed,
            activity_regularizer=regularizers.serialize(
                self.activity_regularizer
            ),
        )
        return config
