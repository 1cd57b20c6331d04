"""Files that are replaced in one step: complete before, complete after."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def replace_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path, and moves it to `path` at the end.

    Args:
        path: `pathlib.Path` of the file to write or to replace.
    """
    # Keras looks at the ending of the name.
    temporary = path.with_name("new-" + path.name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if hasattr(os, "O_DIRECTORY"):
            # Otherwise a power cut may undo the renaming, or keep only the
            # later of two. Windows cannot open a folder.
            folder = os.open(path.parent, os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def discard_file(name: str) -> Iterator[pathlib.Path]:
    """Yields a temporary path that is deleted at the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder) / name
