import keras
from keras import initializers, ops


@keras.saving.register_keras_serializable(package="keras_sasa")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a factor that is learned.

    ```
    y[..., c] = gamma[c] x[..., c]
    ```

    Behind the branch of a residual block, factors that begin near zero make the
    block begin as its shortcut.

    Args:
        gamma_initializer: Initializer of the factors.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Input shape:
        `(..., channels)`. Only `channels` must be known.

    Output shape:
        That of the input.

    Raises:
        ValueError: If the number of channels of the input is not known.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.layers import LayerScale
    >>> layer = LayerScale(gamma_initializer="ones")
    >>> tuple(layer(np.ones((2, 7, 7, 64))).shape)
    (2, 7, 7, 64)

    Reference:
        [Touvron et al., 2021](https://arxiv.org/abs/2103.17239), section 2.
    """

    def __init__(self, gamma_initializer="ones", **kwargs):
        super().__init__(**kwargs)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        if input_shape[-1] is None:
            raise ValueError(
                "The channels (the last axis) of the input must be known. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        self.gamma = self.add_weight(
            name="gamma",
            shape=(input_shape[-1],),
            initializer=self.gamma_initializer,
        )

    def call(self, inputs):
        return ops.cast(inputs, self.compute_dtype) * self.gamma

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
        }
