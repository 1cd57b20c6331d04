"""Calls of the kernel for which XLA compiles nothing when sizes change."""

import numpy as np
import pytest

from keras_sasa import SelfAttention2D
from keras_sasa.kernels import table_call
from tests.support.backend import BACKEND

pytestmark = [
    pytest.mark.skipif(
        BACKEND != "tensorflow", reason="the operations are TensorFlow's"
    ),
    pytest.mark.usefixtures("native_available"),
]


@pytest.fixture(scope="module")
def layer():
    layer = SelfAttention2D(8, 3, num_heads=2)
    layer.build((None, None, None, 5))
    return layer


def values_and_gradients(layer, images):
    import tensorflow as tf

    weights = [weight.value for weight in layer.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
        loss = tf.reduce_sum(outputs * outputs)
    gradients = tape.gradient(loss, [images, *weights])
    return [layer(images), outputs, *gradients]


@pytest.fixture(scope="module")
def of_unknown_size(layer):
    import tensorflow as tf

    function = tf.function(
        lambda images: values_and_gradients(layer, images),
        input_signature=[tf.TensorSpec((None, None, None, 5))],
        autograph=False,
    )
    # What `get_concrete_function` traces is portable.
    function(images(1, 4, 4))
    return function


def images(*shape):
    random = np.random.default_rng(0)
    return random.normal(size=(*shape, 5)).astype("float32")


def test_operations_are_registered():
    # Else every size would be compiled, and only the time would tell.
    assert table_call._registered


def test_xla_sees_no_sizes(of_unknown_size):
    graph = of_unknown_size.get_concrete_function().graph
    calls = [op for op in graph.get_operations() if op.type == "XlaCallModule"]
    assert len(calls) == 3
    for call in calls:
        for operand in call.inputs:
            assert operand.op.type == "KerasSasaAllocate" or (
                operand.shape.is_fully_defined()
            )


@pytest.mark.parametrize("shape", [(2, 6, 7), (1, 9, 4), (3, 1, 1)])
def test_same_bits_as_of_known_sizes(layer, of_unknown_size, shape):
    import tensorflow as tf

    actual = of_unknown_size(images(*shape))
    known = tf.function(
        lambda array: values_and_gradients(layer, array), autograph=False
    )
    array = tf.constant(images(*shape))
    in_graph, eager = known(array), values_and_gradients(layer, array)
    for values in zip(actual, in_graph, eager, strict=True):
        np.testing.assert_array_equal(values[0], values[1])
        np.testing.assert_array_equal(values[0], values[2])
    operations = known.get_concrete_function(array).graph.get_operations()
    assert "KerasSasaAllocate" not in {op.type for op in operations}


def test_empty_maps_of_unknown_size(of_unknown_size):
    for shape in ((0, 6, 7), (2, 0, 7)):
        outputs, _, gradient, *_ = of_unknown_size(images(*shape))
        assert outputs.shape == (*shape, 8)
        assert gradient.shape == (*shape, 5)


def test_traced_before_xla_compiles_it(of_unknown_size):
    """TensorFlow does not trace a function again inside a compiled one."""
    import tensorflow as tf

    array = images(2, 6, 7)
    expected = of_unknown_size(array)
    compiled = tf.function(of_unknown_size, jit_compile=True)
    for actual, value in zip(compiled(array), expected, strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-4, atol=1e-4)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="traced.*empty tensors"
    ):
        compiled(images(0, 6, 7))


def test_bfloat16_of_unknown_size():
    """Only maps have that type; here, no operand is float32."""
    import tensorflow as tf

    layer = SelfAttention2D(
        8, 3, num_heads=2, position_encoding=None, dtype="mixed_bfloat16"
    )
    layer.build((None, None, None, 5))
    function = tf.function(
        lambda images: values_and_gradients(layer, images),
        input_signature=[tf.TensorSpec((None, None, None, 5))],
        autograph=False,
    )
    # Small logits: XLA and TensorFlow round products to bfloat16 differently.
    array = tf.constant(0.3 * images(2, 6, 7))
    expected = values_and_gradients(layer, array)
    compiled = tf.function(function, jit_compile=True)
    for actual in (function(array), compiled(array)):
        assert actual[1].dtype == tf.bfloat16
        for values in zip(actual, expected, strict=True):
            np.testing.assert_allclose(
                *(tf.cast(value, "float32") for value in values),
                rtol=0.05,
                atol=0.05,
            )


def test_attributes_that_do_not_fit():
    import tensorflow as tf

    for dimensions in ([1, 2, 0, 1], [1, 0, 3, 1], [2, -1, 4, 1], [1, 0, 0, 0]):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="`result_shapes`"
        ):
            table_call._apply(
                "KerasSasaAllocate",
                {
                    "empty_table": tf.zeros((10,), tf.int64),
                    "operands": [tf.ones((2, 3))],
                },
                {
                    "stand_in_types": [],
                    "result_types": [tf.float32],
                    "result_shapes": dimensions,
                    "stand_in_shapes": [-1],
                },
                output_count=2,
            )
