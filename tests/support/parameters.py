"""Parameters of tests that the quick run leaves out."""

import pytest


def large(*values, **options):
    """A parameter, or several of one call, for `--run-large` alone."""
    return pytest.param(*values, marks=pytest.mark.large, **options)
