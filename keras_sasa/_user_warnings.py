"""Warnings that point to the line of the user, not to one of this package."""

import os
import sys
import warnings

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn_user(message: str) -> None:
    """Issues a `UserWarning` on behalf of the code that called the package.

    Args:
        message: String.
    """
    # `skip_file_prefixes` of `warnings.warn` does this from Python 3.12 on.
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
