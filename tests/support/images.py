"""Folders of made images."""

import numpy as np
import tensorflow as tf


def image_folder(folder, classes=("cat", "dog"), images=5, encode="png"):
    """Images of one gray for each class, of different sizes.

    Args:
        folder: Path, made here.
        classes: Names; the gray of the pixels is 40 times the class.
        images: Number of each class.
        encode: `"png"` or `"jpeg"`.

    Returns:
        `folder`.
    """
    encoder = {"png": tf.io.encode_png, "jpeg": tf.io.encode_jpeg}[encode]
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            pixels = np.full((9 + number, 10, 3), 40 * label, "uint8")
            path = folder / name / f"{number}.{encode}"
            path.write_bytes(encoder(pixels).numpy())
    return folder
