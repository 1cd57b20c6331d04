"""Images of a data set as the input of a network."""

import keras

from keras_sasa.layers import ImageRescaling


def scaled_images(data, image_size, resizing):
    """Returns images from 0 to `data.white` as a Keras tensor from -1 to 1.

    The layer between both describes the images, in the saved model too.
    """
    images = keras.Input((image_size, image_size, data.channels), name="images")
    return ImageRescaling(
        data.class_names,
        image_size,
        data.channels,
        resizing,
        data.white,
        name="scale",
    )(images)
