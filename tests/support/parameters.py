"""Parameters of tests that the quick run leaves out."""

import itertools

import pytest


def large(*values, **options):
    """A parameter, or several of one call, for `--run-large` alone."""
    return pytest.param(*values, marks=pytest.mark.large, **options)


def large_on_jax(*values, **options):
    """As `large`, where the backend is JAX; in any run on TensorFlow."""
    return pytest.param(*values, marks=pytest.mark.large_on_jax, **options)


def product(*values, quick):
    """All combinations; the quick run takes only some.

    Args:
        *values: Iterables of strings, numbers or booleans.
        quick: Called with a combination, returns whether it is quick.

    Returns:
        A list of parameters of as many arguments.
    """
    return [
        pytest.param(*combination)
        if quick(*combination)
        else large(*combination)
        for combination in itertools.product(*values)
    ]


def in_turn(modes, names):
    """Pairs of a mode and a name: every name once, every mode in its turn."""
    return set(zip(itertools.cycle(modes), names))
