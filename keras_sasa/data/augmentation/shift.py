"""The middle square, moved by up to an eighth of its side."""

import tensorflow as tf

from keras_sasa.data.augmentation.augmentation import Augmentation


def shift(image, data, side, seed):
    """Moves a square image at random; zeros fill the gap."""
    image = tf.image.resize_with_crop_or_pad(
        image, side + side // 4, side + side // 4
    )
    return tf.image.stateless_random_crop(
        image, (side, side, data.channels), seed
    )


SHIFT = Augmentation(
    shift, labels="class", resizing="central_square", takes_prepared=True
)
