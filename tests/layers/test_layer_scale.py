"""Factors of channels: values, configuration, errors."""

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase

from keras_sasa.layers import LayerScale


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_as_a_keras_layer():
    TestCase().run_layer_test(
        LayerScale,
        {"gamma_initializer": "random_normal"},
        input_shape=(2, 3, 4, 5),
        expected_output_shape=(2, 3, 4, 5),
        expected_num_trainable_weights=1,
        expected_num_non_trainable_weights=0,
        supports_masking=True,
    )


def test_values():
    layer = LayerScale(keras.initializers.Constant(0.5))
    inputs = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_array_equal(layer(inputs), 0.5 * inputs)
    layer.gamma.assign([1.0, 2.0, 0.0, -1.0])
    np.testing.assert_array_equal(layer(inputs), inputs * [1, 2, 0, -1])


def test_channels_must_be_known():
    with pytest.raises(ValueError, match="must be known.*None"):
        LayerScale().build((None, 4, None))
