"""Finds the compiled library, loads it and registers it with XLA."""

import ctypes
import functools
import importlib.machinery
import os
import pathlib

import keras

from keras_sasa.kernels import build_report, jax_call, tensorflow_call
from keras_sasa.kernels.source_digest import source_digest

# The environment variable that turns the kernel off.
SWITCH = "KERAS_SASA_NATIVE"
OFF = ("0", "false", "off", "no", "f", "n", "none", "disable", "disabled")
ON = ("", "1", "true", "on", "yes", "t", "y", "enable", "enabled")


def switched_off() -> bool:
    """Returns whether the environment turns the kernel off.

    Raises:
        ValueError: If the value of `SWITCH` is neither on nor off.
    """
    value = os.environ.get(SWITCH, "")
    word = value.strip().lower()
    if word not in OFF + ON:
        raise ValueError(
            f"The environment variable {SWITCH} must be one of {OFF} to turn "
            f"the kernel off, or one of {ON[1:]}. Received: {SWITCH}={value!r}."
        )
    return word in OFF


@functools.cache
def load() -> str | None:
    """Registers the kernel with the XLA of Keras' backend, once.

    Returns:
        `None` if custom calls can be made now, else the reason.
    """
    path = library_path()
    if path is None:
        return _not_compiled()
    if _outdated(path.parent):
        return (
            "it was compiled from other sources than those in this clone; "
            "`pip install --editable .` compiles it again"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"the compiled kernel cannot be loaded: {error}"
    backend = keras.backend.backend()
    register = {
        "tensorflow": tensorflow_call.register,
        "jax": jax_call.register,
    }
    if backend not in register:
        return f"XLA calls it, and the backend {backend!r} does not use XLA"
    try:
        return register[backend](library)
    except Exception as error:
        # Only the interface to XLA changes between versions.
        return f"this version of {backend} rejects it: {error!r}"


def library_path() -> pathlib.Path | None:
    """Returns the path of the compiled library, or `None` if there is none."""
    # The last suffix has no version of Python; setup.py uses the same.
    suffix = importlib.machinery.EXTENSION_SUFFIXES[-1]
    path = pathlib.Path(__file__).with_name(f"_native{suffix}")
    return path if path.is_file() else None


def _outdated(folder):
    """Returns whether a clone was updated after its kernel was compiled.

    Python and C++ then disagree on the arguments of calls.
    """
    report = build_report.read()
    digest = source_digest(folder)
    return None not in (report, digest) and report.get("sources") != digest


def _not_compiled():
    """Returns why there is no library, as far as it is known."""
    cause = build_report.failure(build_report.read())
    reason = "it was not compiled when the package was installed" + (
        f" ({cause})"
        if cause
        else " (a C++ compiler is needed; `pip install -v` shows its errors)"
    )
    # Python may find the sources of a clone before the installed package.
    if pathlib.Path(__file__).parents[2].joinpath("setup.py").is_file():
        reason += (
            "; keras_sasa was imported from a clone, for which "
            "`pip install --editable .` compiles it"
        )
    return reason
