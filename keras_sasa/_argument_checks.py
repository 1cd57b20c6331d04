"""Checks of arguments that several layers and models have in common.

Each check names the argument, says which values are allowed and shows the one
that was received.
"""

import math
import numbers

import numpy as np


def positive_integer(value, name):
    """Returns `value` as an `int`.

    Args:
        value: The argument.
        name: String, its name.

    Returns:
        Integer.

    Raises:
        ValueError: If `value` is not an integer above 0.

    Example:

    >>> from keras_sasa._argument_checks import positive_integer
    >>> positive_integer(64, "filters")
    64
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or value < 1
    ):
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )
    return int(value)


def non_negative_integer(value, name):
    """Returns `value` as an `int`; `ValueError` unless it is 0 or more."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or value < 0
    ):
        raise ValueError(
            f"`{name}` must be a non-negative integer. "
            f"Received: {name}={value!r}."
        )
    return int(value)


def finite_number(value, name):
    """Returns `value`; `ValueError` unless it is a finite number."""
    if not _is_number(value) or not math.isfinite(value):
        raise ValueError(
            f"`{name}` must be a finite number. Received: {name}={value!r}."
        )
    return value


def positive_number(value, name):
    """Returns `value`; `ValueError` unless it is finite and above 0."""
    if not _is_positive(value):
        raise ValueError(
            f"`{name}` must be a positive number. Received: {name}={value!r}."
        )
    return value


def positive_numbers(values, name):
    """Returns `values` as a tuple.

    Args:
        values: Tuple, list or array of finite numbers above 0, at least one.
        name: String, the name of the argument.

    Returns:
        Tuple of numbers.

    Raises:
        ValueError: If `values` is anything else.
    """
    if (
        not isinstance(values, (tuple, list, np.ndarray))
        or not len(values)
        or not all(
            _is_number(value) and 0 < value < math.inf for value in values
        )
    ):
        raise ValueError(
            f"`{name}` must be positive numbers. Received: {name}={values!r}."
        )
    return tuple(values)


def fraction(value, name):
    """Returns `value`; `ValueError` unless it is a number from 0 to 1."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(
            f"`{name}` must be from 0 to 1. Received: {name}={value!r}."
        )
    return value


def dropout_rate(value, name):
    """Returns `value`; `ValueError` unless it is from 0 to below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"`{name}` must be a number in [0, 1). Received: {name}={value!r}."
        )
    return value


def check_choice(value, name, choices):
    """Raises `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {tuple(choices)}. "
            f"Received: {name}={value!r}."
        )


def check_heads(filters, num_heads, name="filters"):
    """Raises `ValueError` unless all heads are equally wide."""
    if filters % num_heads:
        raise ValueError(
            f"`{name}` must be a multiple of `num_heads`, so that all heads "
            f"are equally wide. Received: {name}={filters}, "
            f"num_heads={num_heads}."
        )


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_positive(value):
    return _is_number(value) and 0 < value < math.inf
