"""The first layer of a trained network, which describes its images."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_sasa._argument_checks import positive_integer

RESIZINGS = ("central_square", "central_crop", "letterbox")


@keras.saving.register_keras_serializable(package="keras_sasa")
class ImageRescaling(keras.layers.Rescaling):
    """Scales pixels to -1 to 1, and describes the images a network takes.

    It computes the same as `keras.layers.Rescaling`. Its configuration is part
    of a saved model, so a `.keras` file itself says how to prepare a new photo
    and what the classes are called: see `keras_sasa.training.describe_images`.

    Args:
        class_names: List of strings, one for each class of the network.
        image_size: Integer, the side of the square images.
        channels: Integer, 1 (gray) or 3 (RGB).
        resizing: How images of any size become squares: `"central_square"`
            takes the middle, as large as the shorter side, `"central_crop"`
            7/8 of that, and `"letterbox"` the whole image with a border.
        max_pixel_value: Number, the brightest value of a pixel.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If an argument is not as described.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.layers import ImageRescaling
    >>> layer = ImageRescaling(["cat", "dog"], image_size=32)
    >>> np.array(layer(np.array([0.0, 127.5, 255.0])))
    array([-1.,  0.,  1.], dtype=float32)
    >>> layer.class_names
    ['cat', 'dog']
    """

    def __init__(
        self,
        class_names: Sequence[str],
        image_size: int,
        channels: int = 3,
        resizing: str = "central_square",
        max_pixel_value: float = 255.0,
        **kwargs: Any,
    ):
        if isinstance(class_names, str) or not all(
            isinstance(name, str) for name in class_names
        ):
            raise ValueError(
                "`class_names` must be a list of strings. "
                f"Received: class_names={class_names!r}."
            )
        positive_integer(image_size, "image_size")
        if channels not in (1, 3):
            raise ValueError(
                f"`channels` must be 1 or 3. Received: channels={channels!r}."
            )
        if resizing not in RESIZINGS:
            raise ValueError(
                f"`resizing` must be one of {RESIZINGS}. "
                f"Received: resizing={resizing!r}."
            )
        if not max_pixel_value > 0:
            raise ValueError(
                "`max_pixel_value` must be above 0. "
                f"Received: max_pixel_value={max_pixel_value!r}."
            )
        super().__init__(2 / max_pixel_value, -1.0, **kwargs)
        self.class_names = list(class_names)
        self.image_size = image_size
        self.channels = channels
        self.resizing = resizing
        self.max_pixel_value = max_pixel_value

    def get_config(self):
        config = {
            **super().get_config(),
            "class_names": self.class_names,
            "image_size": self.image_size,
            "channels": self.channels,
            "resizing": self.resizing,
            "max_pixel_value": self.max_pixel_value,
        }
        # They follow from `max_pixel_value`.
        del config["scale"], config["offset"]
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # The method of Keras needs `scale` and `offset`.
        return cls(**config)
