"""Packages that only some users install."""

import importlib


def optional_import(module, distribution=None):
    """Imports an optional package, or explains how to install it.

    Args:
        module: Name of the module.
        distribution: Name for `pip install`, if it differs.

    Returns:
        The module.

    Raises:
        ImportError: If the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = distribution or module
        raise ImportError(
            f"{name} is needed and cannot be imported ({error}): "
            f"pip install {name}"
        ) from error
