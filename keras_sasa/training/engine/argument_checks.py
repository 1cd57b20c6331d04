"""Checks of the arguments that the `fit` functions of all tasks share."""

import reprlib
from typing import Any

from keras_sasa.training.engine.devices import Devices
from keras_sasa.training.engine.recipe import Recipe


def check_type(name: str, value: Any, kind: type, allowed: str) -> None:
    """Raises an error if an argument has another type.

    Args:
        name: String, the name of the argument.
        value: Its value.
        kind: The type it must have.
        allowed: String that completes "must be".

    Raises:
        ValueError: If `value` is not an instance of `kind`.
    """
    if not isinstance(value, kind):
        raise ValueError(
            f"`{name}` must be {allowed}. Received: "
            f"{name}={reprlib.repr(value)} of type {type(value).__name__}."
        )


def check_recipe(recipe: Recipe) -> None:
    check_type(
        "recipe",
        recipe,
        Recipe,
        "a `keras_sasa.training.Recipe`, such as `keras_sasa.training.CIFAR10`",
    )


def check_devices(devices: Devices | None) -> None:
    if devices is not None:
        check_type(
            "devices",
            devices,
            Devices,
            "`None` or the result of `keras_sasa.training.make_devices`",
        )
