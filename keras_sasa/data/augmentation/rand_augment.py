"""RandAugment of one image, from Keras' operations and a given seed.

`keras.layers.RandAugment` draws one operation for a whole batch, computes all
of them, and its random numbers depend on earlier draws. Here every image has
its own operations, only these are computed, and equal seeds give equal images,
so that runs can be resumed exactly.
"""

import functools

import keras
import tensorflow as tf

NUM_OPERATIONS = 2


class _Seeds(keras.random.SeedGenerator):
    """Derives seeds from one tensor, without a variable."""

    def __init__(self, seed):
        # `next` is overridden and does not use the state of the base class.
        self._seed = seed
        self._calls = 0

    def next(self, ordered=True):
        self._calls += 1
        return tf.random.fold_in(self._seed, self._calls)


@functools.cache
def _operations(factor, max_pixel_value):
    """Returns the operations of `keras.layers.RandAugment`."""
    layers = keras.layers.RandAugment((0, max_pixel_value), factor=factor)
    operations = [
        layers.random_shear,
        layers.random_translation,
        layers.random_rotation,
        layers.random_brightness,
        layers.random_color_degeneration,
        layers.random_contrast,
        layers.random_sharpness,
        layers.solarization,
        layers.random_posterization,
        layers.auto_contrast,
        layers.equalization,
    ]
    for operation in operations:
        # `tf.data` needs TensorFlow's operations, also with Keras on JAX.
        operation.backend.set_backend("tensorflow")
    return operations


def rand_augment(image, seed, factor, max_pixel_value=255.0):
    """Applies two random operations of RandAugment, one after the other.

    Args:
        image: `uint8` tensor `(height, width, channels)`.
        seed: Integer tensor `(2,)`.
        factor: Float from 0 to 1, the strength of the operations.
        max_pixel_value: Number, the brightest value of a pixel.

    Returns:
        A tensor of the same shape and dtype.

    Reference:

    - Cubuk et al., 2019 (https://arxiv.org/abs/1909.13719)
    """

    def apply(operation, image, seed):
        transformation = operation.get_random_transformation(
            image[None], training=True, seed=_Seeds(seed)
        )
        changed = operation.transform_images(
            image[None], transformation, training=True
        )
        return tf.ensure_shape(changed[0], image.shape)

    operations = _operations(factor, max_pixel_value)
    shape = image.shape
    image = tf.cast(image, "float32")
    for one_seed in tf.unstack(tf.random.split(seed, NUM_OPERATIONS)):
        choice = tf.random.stateless_uniform(
            (), one_seed, 0, len(operations), "int32"
        )
        image = tf.switch_case(
            choice,
            [
                functools.partial(apply, operation, image, one_seed)
                for operation in operations
            ],
        )
    image = tf.clip_by_value(tf.round(image), 0, max_pixel_value)
    return tf.ensure_shape(tf.cast(image, "uint8"), shape)
