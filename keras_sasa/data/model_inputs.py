"""The input of a network for the images of a set."""

import keras

from keras_sasa.data.image_data import ImageData
from keras_sasa.layers import ImageRescaling


def rescaled_inputs(data: ImageData, image_size: int, resizing: str):
    """Returns a Keras tensor from -1 to 1 for images from 0 to their maximum.

    An `ImageRescaling` scales them. As a part of the saved model it also
    describes the images.

    Args:
        data: An `ImageData`.
        image_size: Integer, side of the images in pixels.
        resizing: See `ImageRescaling`.
    """
    images = keras.Input((image_size, image_size, data.channels), name="images")
    return ImageRescaling(
        data.class_names,
        image_size,
        data.channels,
        resizing,
        data.max_pixel_value,
        name="scale",
    )(images)
