"""A random part, 8 to 100 % of the area, with sides of 3:4 to 4:3."""

import tensorflow as tf

from keras_sasa.data.augmentation.augmentation import Augmentation
from keras_sasa.data.decoding import decode_part
from keras_sasa.data.resizing import resize


def resized_crop(image, data, side, seed):
    """Cuts out a random part and resizes it to a square.

    Only this part of a JPEG is decoded.
    """

    def choose(shape):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            # The default excludes parts below a tenth of the area.
            min_object_covered=0.0,
        )
        return tf.concat([begin[:2], size[:2]], axis=0)

    return resize(_cut(data.read(image), data.channels, choose), (side, side))


def _cut(image, channels, choose):
    if image.dtype == tf.string:
        return decode_part(image, channels, choose)
    top, left, height, width = tf.unstack(choose(tf.shape(image)))
    part = image[top : top + height, left : left + width]
    part.set_shape((None, None, channels))
    return part


RESIZED_CROP = Augmentation(
    resized_crop, labels="class", resizing="central_crop"
)
