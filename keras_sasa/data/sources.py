"""Names of data sets, as users write them, and the functions that load them."""

import functools
import os
from collections.abc import Callable, Mapping

from keras_sasa._paths import local_path


def find_source(
    name: str | os.PathLike,
    sources: Mapping[str, Callable],
    load_folder: Callable,
    folder: str,
) -> Callable:
    """Finds the function that loads a data set.

    Args:
        name: `"digits"`, `"tfds:NAME"` or a path, for instance.
        sources: Dict from names to functions. Keys that end with a colon are
            prefixes; their function gets the rest of the name as its first
            argument.
        load_folder: Function of a `pathlib.Path` that loads all other names.
        folder: String that describes such a folder, for messages.

    Returns:
        A function of the remaining arguments.

    Raises:
        ValueError: If `name` is neither in `sources` nor a folder.
    """
    known = [repr(key + "NAME" * key.endswith(":")) for key in sources]
    allowed = f"{', '.join(known)} or the path of {folder}"
    if not isinstance(name, (str, os.PathLike)):
        raise ValueError(f"`name` must be {allowed}. Received: name={name!r}.")
    if name in sources:
        return sources[name]
    prefix, colon, rest = str(name).partition(":")
    if colon and prefix + colon in sources:
        return functools.partial(sources[prefix + colon], rest)
    path = local_path(name, "name")
    if not path.is_dir():
        raise ValueError(
            f"`name` must be {allowed}. There is no folder {str(path)!r}."
        )
    return functools.partial(load_folder, path)
