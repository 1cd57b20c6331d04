"""Whether the compiled library was built from the C++ sources beside it."""

import hashlib
import pathlib

_SUFFIXES = (".cc", ".h", ".map")


def source_digest(folder: pathlib.Path) -> str | None:
    """Returns a number that changes with the sources in a folder.

    Args:
        folder: The folder of this package. Installed from a wheel, it has no
            sources.

    Returns:
        Hexadecimal SHA-256 of the names and contents of all C++ files below the
        folder, or `None` if there are none.
    """
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix in _SUFFIXES
    )
    if not paths:
        return None
    result = hashlib.sha256()
    for path in paths:
        contents = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        result.update(f"{name} {len(contents)}\n".encode())
        result.update(contents)
    return result.hexdigest()
