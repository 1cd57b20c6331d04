"""Checks of arguments."""

import math

import numpy as np
import pytest

from keras_sasa._argument_checks import (
    check_choice,
    check_heads,
    finite_number,
    fraction,
    positive_integer,
    positive_number,
    positive_numbers,
)


def test_values_that_are_allowed():
    assert positive_integer(np.int64(3), "size") == 3
    assert type(positive_integer(np.int64(3), "size")) is int
    assert finite_number(-2, "factor") == -2
    assert positive_number(0.5, "scale") == 0.5
    assert positive_numbers(np.array([1.0, 2.0]), "sizes") == (1.0, 2.0)
    assert fraction(0, "part") == 0
    assert fraction(np.float32(1), "part") == 1
    check_choice(None, "kind", (None, "a"))
    check_heads(filters=8, num_heads=4)


@pytest.mark.parametrize(
    "check, values",
    [
        (positive_integer, (0, -1, 1.0, True, "1", None)),
        (finite_number, (math.inf, math.nan, True, "1", None)),
        (positive_number, (0, -1.0, math.inf, math.nan, True, "1", None)),
        (positive_numbers, (1, "12", (), [0], [1, math.nan], [True], None)),
        (fraction, (-0.1, 1.1, 50, math.nan, True, "0.5", None)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_values_that_are_rejected(check, values):
    for value in values:
        with pytest.raises(ValueError, match="`argument` must be") as error:
            check(value, "argument")
        assert f"Received: argument={value!r}." in str(error.value)


def test_choices_are_listed():
    with pytest.raises(ValueError, match=r"one of \('a', 'b'\).*kind='c'"):
        check_choice("c", "kind", {"a": 1, "b": 2})


def test_heads_of_unequal_widths():
    with pytest.raises(ValueError, match="filters=10, num_heads=4"):
        check_heads(filters=10, num_heads=4)
