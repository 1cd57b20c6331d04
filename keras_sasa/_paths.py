"""Local paths, told from those of remote file systems."""

import argparse
import os
import pathlib
import re

# `pathlib` makes "gs:/bucket" of "gs://bucket"; "C:/" is a drive of Windows.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(path, name):
    """Returns a path of this machine.

    A path such as `gs://bucket/run` would otherwise become a folder `gs:` in
    the current one.

    Args:
        path: String or `os.PathLike`.
        name: String, the argument that holds it, for the message.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If it has the scheme of a URL.

    Example:

    >>> from keras_sasa._paths import local_path
    >>> local_path("runs/digits", "folder").name
    'digits'
    """
    text = os.fsdecode(path)
    if _REMOTE.match(text):
        raise ValueError(
            f"`{name}` must be a local path: copy or mount remote folders. "
            f"Received: {name}={text!r}."
        )
    return pathlib.Path(text)


def local_path_option(text):
    """Returns `text` as a path, for `type=` of an option of `argparse`."""
    try:
        return local_path(text, "PATH")
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from error
