"""Local paths, as opposed to URLs of remote file systems."""

import argparse
import os
import pathlib
import re

# `pathlib` turns "gs://bucket" into "gs:/bucket"; "C:/" is a Windows drive.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(path, name):
    """Returns a path on this machine.

    Without this check, a path such as `gs://bucket/run` would become a local
    directory `gs:`.

    Args:
        path: String or `os.PathLike`.
        name: String, the name of the argument.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If the path has the scheme of a URL.

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
    """Returns a path from an option, as `type=` of `argparse`."""
    try:
        return local_path(text, "PATH")
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from error
