"""Packages that only some users need."""

import importlib


def needs(module, distribution=None, extra="examples"):
    """Imports an optional package, or says how to install it.

    Args:
        module: Name by which it is imported.
        distribution: Name by which it is installed, if it is another.
        extra: The extra of this package that installs it.

    Returns:
        The module.

    Raises:
        ImportError: If it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{distribution or module} is needed and cannot be imported "
            f'({error}): pip install "keras_sasa[{extra}]"'
        ) from error
