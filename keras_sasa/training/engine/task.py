"""The interface between the engine and a task such as classification."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_sasa.training.engine.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that `train` needs to know about a task.

    Args:
        build: Function of a `Devices` that returns a compiled model.
        recipe: A `Recipe`.
        steps_per_epoch: Integer.
        training_batches: Function of `(seed, initial_epoch, shard)` that
            returns the batches of all epochs from `initial_epoch` on as a
            `tf.data.Dataset`.
        validation_batches: Function of `shard` that returns a
            `tf.data.Dataset`.
        configuration: Dict of JSON values, which must be equal to resume a
            run.
        monitor: Name of the metric, higher is better, that decides which epoch
            is the best.
        callbacks: List of Keras callbacks. They see the averaged weights
            during validation, and may add to the logs of an epoch.
        check_readable: Function that raises an error that names the images
            that cannot be decoded, if there are any.
    """

    build: Callable
    recipe: Recipe
    steps_per_epoch: int
    training_batches: Callable
    validation_batches: Callable
    configuration: dict[str, Any]
    monitor: str
    callbacks: list[keras.callbacks.Callback] = dataclasses.field(
        default_factory=list
    )
    check_readable: Callable[[], None] = lambda: None
