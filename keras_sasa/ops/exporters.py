"""Whether a call traces a model that is being exported."""

import contextlib
import functools
import sys

# Modules that write a model for other programs, which have no kernel.
EXPORTERS = (
    "keras.src.export",
    "tensorflow.python.saved_model.save",
    "tensorflow.lite.python.lite",
    "jax._src.export",
    "jax.experimental.jax2tf",
    "tf2onnx",
)
# LiteRT has no loops that stack tensors of unknown size, and tf2onnx copies the
# graph again and again for every loop in it.
_WITHOUT_LOOPS = (
    "keras.src.export.litert",
    "keras.src.export.onnx",
    "tensorflow.lite.python.lite",
    "tf2onnx",
)
_FUNCTIONS = "tensorflow.python.eager.polymorphic_function"

# One entry for each open `portable`, whatever its thread: `tf.distribute`
# traces in threads of its own.
_open = []


@contextlib.contextmanager
def portable():
    """Traces attention by portable implementations only.

    Functions that are traced inside, by `tf.function`, `jax.jit` or
    `jax.export`, can be saved for programs that do not import keras_sasa.
    `model.export`, `tf.saved_model.save`, `tf.lite.TFLiteConverter`, the
    `get_concrete_function` of a `tf.function` and `jax.export` trace in this
    way automatically. A function that was traced before keeps its trace: make a
    new one.

    Example:

    >>> import keras, tensorflow as tf
    >>> from keras_sasa import SelfAttention2D
    >>> from keras_sasa import local_attention
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 4)), SelfAttention2D(8, 3, num_heads=2)
    ... ])
    >>> serve = tf.function(model)
    >>> with local_attention.portable():
    ...     outputs = serve(tf.zeros((1, 8, 8, 4)))
    """
    _open.append(None)
    try:
        yield
    finally:
        _open.pop()


def exporting() -> bool:
    """Returns whether this call traces a model that is being exported."""
    if _open:
        return True
    # Every eager call walks the stack, so nothing is done twice here.
    frame = sys._getframe(1)
    while frame is not None:
        if _begins_with(frame.f_globals.get("__name__", ""), EXPORTERS):
            return True
        if (
            frame.f_code.co_name == "get_concrete_function"
            and _traced_for_its_caller(frame)
        ):
            return True
        frame = frame.f_back
    return False


def exporting_without_loops() -> bool:
    """Returns whether the export is one that must not contain loops."""
    if called_from(_WITHOUT_LOOPS):
        return True
    # The reader of other traces is unknown, so they get no loops either.
    return exporting() and not called_from(EXPORTERS)


def exporting_to_onnx() -> bool:
    """Returns whether this call traces a model for ONNX."""
    return called_from(("keras.src.export.onnx", "tf2onnx"))


def called_from(modules: tuple[str, ...]) -> bool:
    """Returns whether a caller is in a module that begins with one of these.

    Args:
        modules: Tuple of the beginnings of names.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if _begins_with(frame.f_globals.get("__name__", ""), modules):
            return True
        frame = frame.f_back
    return False


@functools.cache
def _begins_with(name, beginnings):
    return name.startswith(beginnings)


def _traced_for_its_caller(frame):
    """Returns whether a user called this `get_concrete_function`.

    TensorFlow also calls it, for instance to trace the function of a
    `tf.data.Dataset.map`.
    """
    return frame.f_globals.get("__name__", "").startswith(
        _FUNCTIONS
    ) and not frame.f_back.f_globals.get("__name__", "").startswith(
        "tensorflow.python."
    )
