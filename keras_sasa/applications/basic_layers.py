"""Convolution and normalization as all networks here use them."""

import keras
from keras import layers

from keras_sasa.layers import BatchNormalization


def convolution(x, filters, kernel_size, strides, name):
    """Applies a convolution without bias, since a normalization follows."""
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def normalization(x, name, gamma="ones"):
    """Applies batch normalization; `gamma` is the initializer of its scale."""
    axis = -1 if keras.config.image_data_format() == "channels_last" else 1
    return BatchNormalization(
        axis=axis, epsilon=1e-5, gamma_initializer=gamma, name=name
    )(x)
