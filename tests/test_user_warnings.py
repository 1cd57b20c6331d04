"""Warnings that name the line of the user."""

import warnings

from keras_sasa._user_warnings import warn_user
from keras_sasa.training import DIGITS


def test_warnings_point_to_the_caller_of_the_package():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DIGITS.limit_batch_size(5)
        warn_user("a message")
    assert [warning.filename for warning in caught] == [__file__] * 2
    assert caught[0].category is UserWarning
