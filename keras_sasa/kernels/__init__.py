"""The compiled kernel: finds it, loads it, registers it with XLA.

`custom_call` makes calls of it.
"""

import ctypes
import functools
import importlib.machinery
import os
import pathlib

import keras

from keras_sasa.kernels import build_report

# Set to one of `OFF`, it turns the kernel off.
SWITCH = "KERAS_SASA_NATIVE"
OFF = ("0", "false", "off", "no", "f", "n", "none", "disable", "disabled")
ON = ("", "1", "true", "on", "yes", "t", "y", "enable", "enabled")

FORWARD = "keras_sasa_forward"
BACKWARD = "keras_sasa_backward"
PROJECTED = "keras_sasa_projected"
BLOCK_FORWARD = "keras_sasa_block_forward"
BLOCK_POOLED = "keras_sasa_block_pooled"
BLOCK_BACKWARD = "keras_sasa_block_backward"
CALLS = (
    FORWARD,
    BACKWARD,
    PROJECTED,
    BLOCK_FORWARD,
    BLOCK_POOLED,
    BLOCK_BACKWARD,
)


def switched_off() -> bool:
    """Returns whether the environment turns the kernel off.

    Raises:
        ValueError: If it is neither on nor off.
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
    """Registers the kernel with the XLA of Keras' backend.

    Returns:
        `None` if its custom calls can be made now, or why they cannot.
    """
    path = _path()
    if path is None:
        cause = build_report.failure(build_report.read())
        reason = "it was not compiled when the package was installed" + (
            f" ({cause})"
            if cause
            else " (that needs a C++ compiler; `pip install` with `-v` shows "
            "what went wrong)"
        )
        # Python may find these before a package that is installed elsewhere.
        if pathlib.Path(__file__).parents[2].joinpath("setup.py").is_file():
            reason += (
                "; for the sources of a clone, as here, "
                "`pip install --editable .` compiles it"
            )
        return reason
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"the compiled kernel cannot be loaded: {error}"
    backend = keras.backend.backend()
    register = {"tensorflow": _register_tensorflow, "jax": _register_jax}
    if backend not in register:
        return f"it is called by XLA, which the backend {backend!r} is not"
    try:
        return register[backend](library)
    except Exception as error:
        # The interface to XLA is the one part that other versions may change.
        return f"this version of {backend} does not take it: {error!r}"


def _path():
    folder = pathlib.Path(__file__).parent
    # First the name that setup.py gives it, without a version of Python.
    for suffix in reversed(importlib.machinery.EXTENSION_SUFFIXES):
        path = folder / f"_native{suffix}"
        if path.is_file():
            return path
    return None


def _register_tensorflow(library):
    get_api = _tensorflow_function()
    get_api.restype = ctypes.c_void_p
    library.keras_sasa_register.argtypes = [ctypes.c_void_p]
    library.keras_sasa_register.restype = ctypes.c_char_p
    message = library.keras_sasa_register(get_api())
    if message is None:
        return None
    return f"XLA does not take it: {message.decode()}"


def _tensorflow_function():
    """Returns the function of TensorFlow that returns XLA's interface."""
    import tensorflow as tf

    folder = pathlib.Path(tf.sysconfig.get_lib())
    # Where a library is loaded already, opening it again finds the same.
    framework = ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"))
    try:
        return framework.XLA_FFI_GetApi
    except AttributeError:
        # tensorflow-cpu has only what that calls, xla::ffi::GetXlaFfiApi().
        everything = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
        return everything["_ZN3xla3ffi12GetXlaFfiApiEv"]


def _register_jax(library):
    import jax

    for name in CALLS:
        jax.ffi.register_ffi_target(
            name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu"
        )
