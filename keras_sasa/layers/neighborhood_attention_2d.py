import dataclasses
from typing import Any

import keras
from keras import ops

from keras_sasa._argument_checks import dropout_rate, positive_integer
from keras_sasa.layers.image_layer import (
    ConstraintLike,
    ImageLayer,
    InitializerLike,
    RegularizerLike,
)
from keras_sasa.ops.dense import dense
from keras_sasa.ops.local_attention import (
    check_implementation,
    projected_attention,
)
from keras_sasa.ops.local_attention.position import PositionBias
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.projections import Projections
from keras_sasa.ops.local_attention.window import pair, window_axes

_MAPS = ("query", "key", "value")


@keras.saving.register_keras_serializable(package="keras_sasa")
class NeighborhoodAttention2D(ImageLayer):
    """Neighborhood attention, the local attention of NAT and DiNAT.

    Every pixel attends to the `kernel_size` pixels nearest to it, itself
    included. At the border of the image the window moves inwards, so that every
    pixel has equally many keys. One head of width `d`, whose query `q`, keys
    `k` and values `v` are pointwise projections of the input, computes

    ```
    y_ij = sum over (a, b) in the window of (i, j) of
           softmax_ab(q_ij . k_ab / sqrt(d) + position_bias[a-i, b-j]) v_ab
    ```

    The outputs of the heads are concatenated and projected once more. The
    output has as many channels as the input. With a dilation, the pixels are
    those nearest to `(i, j)` among every `dilation_rate`-th one. The softmax is
    computed in float32 (float64 for float64 inputs) under every dtype policy.

    An image that is smaller than a window, `kernel_size * dilation_rate`
    pixels, is padded with zeros at the bottom and at the right, as in the
    published networks. The keys and values of the padding are the biases of
    their projections, and take part.

    Args:
        num_heads: Integer, number of attention heads; it must divide the
            channels of the input.
        kernel_size: Odd integer or pair (height, width), the window.
        dilation_rate: Integer or pair, distance between the keys of a window.
        use_bias: Boolean, whether the four projections have a bias.
        attention_dropout: Float in [0, 1), fraction of the attention weights to
            drop during training.
        dropout: Float in [0, 1), fraction of the outputs to drop during
            training.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes
            `keras.config.image_data_format()`.
        implementation: As in `SelfAttention2D`. It never changes the result.
        kernel_initializer: Initializer of the four projections. An initializer
            with a seed draws the same numbers for each.
        embedding_initializer: Initializer of the position biases.
        bias_initializer: Initializer of the biases.
        kernel_regularizer: Regularizer of the projections.
        embedding_regularizer: Regularizer of the position biases.
        bias_regularizer: Regularizer of the biases.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint of the projections.
        embedding_constraint: Constraint of the position biases.
        bias_constraint: Constraint of the biases.
        seed: Integer, seed of both dropouts.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: Images, of the input shape below.
        training: Boolean, whether the dropouts are applied.
        return_attention_scores: Boolean, whether to return
            `(outputs, attention_scores)`.

    Input shape:
        `(batch_size, height, width, channels)`, or
        `(batch_size, channels, height, width)` for `"channels_first"`. Only
        `channels` must be known.

    Output shape:
        That of the input. The attention scores are `(batch_size, height, width,
        num_heads, kernel_height, kernel_width)`; index 0 of a window side is
        the top or left.

    Raises:
        ValueError: If an argument is not as described above, if the input
            does not have four axes and a known number of channels that
            `num_heads` divides, or if the named implementation does not run
            here.

    Example:

    >>> import numpy as np
    >>> from keras_sasa import NeighborhoodAttention2D
    >>> images = np.random.normal(size=(2, 14, 14, 64)).astype("float32")
    >>> layer = NeighborhoodAttention2D(num_heads=2, kernel_size=7)
    >>> outputs, scores = layer(images, return_attention_scores=True)
    >>> tuple(outputs.shape), tuple(scores.shape)
    ((2, 14, 14, 64), (2, 14, 14, 2, 7, 7))

    Reference:
        [Hassani et al., 2023](https://arxiv.org/abs/2204.07143), section 3;
        dilation: [Hassani and Shi, 2022](https://arxiv.org/abs/2209.15001).
    """

    def __init__(
        self,
        num_heads: int,
        kernel_size: int | tuple[int, int] = 7,
        dilation_rate: int | tuple[int, int] = 1,
        *,
        use_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        data_format: str | None = None,
        implementation: str | None = None,
        kernel_initializer: InitializerLike = "glorot_uniform",
        embedding_initializer: InitializerLike = "zeros",
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
        self.num_heads = positive_integer(num_heads, "num_heads")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.dilation_rate = pair(dilation_rate, "dilation_rate")
        self.use_bias = bool(use_bias)
        self.attention_dropout = dropout_rate(
            attention_dropout, "attention_dropout"
        )
        self.dropout = dropout_rate(dropout, "dropout")
        check_implementation(implementation)
        self.implementation = implementation
        self.seed = seed
        if self.attention_dropout or self.dropout:
            self.seed_generator = keras.random.SeedGenerator(seed)
        rows, columns = window_axes(
            self.kernel_size, dilation_rate=self.dilation_rate, border="shift"
        )
        self._problem = Problem(
            rows, columns, self.num_heads, position=PositionBias()
        )

    def build(self, input_shape):
        channels = self._channels(input_shape)
        if channels % self.num_heads:
            raise ValueError(
                "The channels of the input must be a multiple of `num_heads`, "
                "so that all heads are equally wide. "
                f"Received: input_shape={tuple(input_shape)}, "
                f"num_heads={self.num_heads}."
            )
        width = channels // self.num_heads
        self._problem = dataclasses.replace(self._problem, scale=width**-0.5)
        for name in (*_MAPS, "output"):
            kernel = self._add("kernel", f"{name}_kernel", (channels, channels))
            setattr(self, f"{name}_kernel", kernel)
            if self.use_bias:
                bias = self._add("bias", f"{name}_bias", (channels,))
                setattr(self, f"{name}_bias", bias)
        (shape,) = self._problem.position.weight_shapes(
            self._problem.offsets, self.num_heads, channels
        )
        self.position_bias = self._add("embedding", "position_bias", shape)
        self._fix_channels(channels)

    def call(self, inputs, training=None, return_attention_scores=False):
        inputs = self._to_channels_last(inputs)
        height, width = ops.shape(inputs)[1:3]
        padded = self._pad(inputs)
        outputs = projected_attention(
            self._problem,
            padded,
            self._projections(),
            (self.position_bias,),
            dropout_mask=self._dropout_mask(padded) if training else None,
            return_attention_scores=bool(return_attention_scores),
            training=bool(training),
            implementation=self.implementation,
        )
        outputs, *scores = outputs if return_attention_scores else (outputs,)
        if padded is not inputs:
            outputs, *scores = (
                tensor[:, :height, :width] for tensor in (outputs, *scores)
            )
        bias = self.output_bias if self.use_bias else None
        outputs = dense(outputs, self.output_kernel, bias)
        if training and self.dropout:
            outputs = keras.random.dropout(
                outputs, self.dropout, seed=self.seed_generator
            )
        outputs = self._from_channels_last(outputs)
        return (outputs, *scores) if scores else outputs

    def _pad(self, inputs):
        """Pads images that are smaller than a window, at bottom and right."""
        padding = [
            _missing(axis.smallest_size, size)
            for axis, size in zip(
                self._problem.axes, ops.shape(inputs)[1:3], strict=True
            )
        ]
        if all(isinstance(size, int) and size == 0 for size in padding):
            return inputs
        return ops.pad(
            inputs, ((0, 0), *((0, size) for size in padding), (0, 0))
        )

    def _projections(self):
        return Projections(
            *(
                getattr(self, f"{name}_{kind}", None)
                for kind in ("kernel", "bias")
                for name in _MAPS
            )
        )

    def _dropout_mask(self, inputs):
        """Factors of the attention weights, or `None` without dropout."""
        if not self.attention_dropout:
            return None
        return keras.random.dropout(
            ops.ones(
                (*ops.shape(inputs)[:3], self.num_heads, *self.kernel_size),
                dtype="float32",
            ),
            self.attention_dropout,
            seed=self.seed_generator,
        )

    def compute_output_shape(self, input_shape):
        self._channels(input_shape)
        return tuple(input_shape)

    def compute_output_spec(
        self, inputs, training=None, return_attention_scores=False
    ):
        shape = self.compute_output_shape(inputs.shape)
        outputs = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        shape = (shape[0], *self._spatial(shape))
        scores = keras.KerasTensor(
            (*shape, self.num_heads, *self.kernel_size),
            dtype=self.compute_dtype,
        )
        return outputs, scores

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
            "use_bias": self.use_bias,
            "attention_dropout": self.attention_dropout,
            "dropout": self.dropout,
            "implementation": self.implementation,
            "seed": self.seed,
            "activity_regularizer": keras.regularizers.serialize(
                self.activity_regularizer
            ),
        }


def _missing(wanted, size):
    """Returns by how many pixels an image is too small."""
    if isinstance(size, int):
        return max(0, wanted - size)
    return ops.maximum(0, wanted - size)
