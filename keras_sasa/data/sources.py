"""Names of data sets, as users write them, and the functions that load them."""

import functools
import os
from collections.abc import Callable, Mapping

from keras_sasa._paths import local_path


def find_source(
    name: str | os.PathLike,
    sources: Mapping[str, Callable],
    load_folder: Callable,
) -> Callable:
    """Finds the function that loads a data set.

    Args:
        name: `"digits"`, `"tfds:NAME"` or a path, for instance.
        sources: Dict from names to functions. Keys that end with a colon are
            prefixes; their function gets the rest of the name as its first
            argument.
        load_folder: Function of a `pathlib.Path` that loads all other names.

    Returns:
        A function of the remaining arguments.
    """
    if name in sources:
        return sources[name]
    prefix, colon, rest = str(name).partition(":")
    if prefix + colon in sources and colon:
        return functools.partial(sources[prefix + colon], rest)
    return functools.partial(load_folder, local_path(name, "name"))
