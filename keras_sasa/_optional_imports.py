"""Packages that only some users need."""

import importlib


def optional_import(module, distribution=None):
    """Imports an optional package, or says how to install it.

    Args:
        module: Name by which it is imported.
        distribution: Name by which it is installed, if it is another.

    Returns:
        The module.

    Raises:
        ImportError: If it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = distribution or module
        raise ImportError(
            f"{name} is needed and cannot be imported ({error}): "
            f"pip install {name}"
        ) from error
