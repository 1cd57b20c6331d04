"""Checks of image sizes that TensorFlow does not know while it traces."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_sasa.ops.exporters import exporting


def require_while_running(
    requirements: Sequence[tuple[Any, list]], maps: Sequence[Any]
) -> Sequence[Any]:
    """Returns maps that a graph computes only if requirements are met.

    Args:
        requirements: For each requirement, whether it is met, a scalar tensor
            of booleans, and the parts of the message of the error: strings and
            tensors.
        maps: Tensors, or `None`.

    Returns:
        The maps. In other backends, in exported files, which may not know
        assertions, and without requirements, nothing is checked.
    """
    if (
        not requirements
        or keras.backend.backend() != "tensorflow"
        or exporting()
    ):
        return maps
    import tensorflow as tf

    # Without a dependency the order is open: an operation that meets a wrong
    # size may fail first, with another message.
    checks = [tf.debugging.Assert(*requirement) for requirement in requirements]
    with tf.control_dependencies(checks):
        return [None if map_ is None else tf.identity(map_) for map_ in maps]
