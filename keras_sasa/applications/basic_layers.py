"""Convolution, normalization and head as all networks here use them."""

import keras
from keras import layers

from keras_sasa.layers import BatchNormalization


def convolution(
    x, filters, kernel_size, strides, name, padding="same", groups=1
):
    """Applies a convolution without bias, since a normalization follows."""
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding=padding,
        groups=groups,
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


def drop_path(x, rate, name):
    """Drops the branches of whole images in training: stochastic depth."""
    return layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name)(x)


def head(x, include_top, pooling, classes, classifier_activation):
    """Ends a network with its classifier, or with global pooling or nothing."""
    if include_top:
        x = layers.GlobalAveragePooling2D(name="average_pool")(x)
        return layers.Dense(
            classes,
            activation=classifier_activation,
            # Float16 probabilities would spoil the loss in mixed precision.
            dtype=keras.config.dtype_policy().variable_dtype,
            name="predictions",
        )(x)
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="average_pool")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="max_pool")(x)
    return x
