"""Whether a call traces a model that is being exported."""

import contextlib
import re
import sys
import warnings
import weakref

# Modules that write a model for other programs, which have no kernel.
_EXPORTERS = (
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
# What was saved and checked.
_checked = weakref.WeakSet()


@contextlib.contextmanager
def portable():
    """Traces attention without the native kernel.

    Functions that are traced inside, by `tf.function`, `jax.jit` or
    `jax.export`, can be saved for programs that do not import keras_sasa.
    `model.export`, `tf.saved_model.save`, `tf.lite.TFLiteConverter`, the
    `get_concrete_function` of a `tf.function` and `jax.export` trace in this
    way by themselves. A function that was traced before keeps its trace: make a
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
    return bool(_open) or any(
        module.startswith(_EXPORTERS) or _traced_for_its_caller(frame)
        for module, frame in _frames()
    )


def exporting_without_loops() -> bool:
    """Returns whether the export is one that must not contain loops."""
    if called_from(_WITHOUT_LOOPS):
        return True
    # What is traced for an unknown reader gets none either.
    return exporting() and not called_from(_EXPORTERS)


def called_from(modules) -> bool:
    """Returns whether a caller is of a module that begins with one of these.

    Args:
        modules: Tuple of the beginnings of names.
    """
    return any(module.startswith(modules) for module, _ in _frames())


def _frames():
    """Yields the callers, innermost first, by the names of their modules."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_globals.get("__name__", ""), frame
        frame = frame.f_back


def _traced_for_its_caller(frame):
    """Returns whether a frame is that of a user's `get_concrete_function`.

    TensorFlow calls it, too, for instance to trace the function of a
    `tf.data.Dataset.map`.
    """
    return (
        frame.f_code.co_name == "get_concrete_function"
        and frame.f_globals.get("__name__", "").startswith(_FUNCTIONS)
        and not frame.f_back.f_globals.get("__name__", "").startswith(
            "tensorflow.python."
        )
    )


def warn_of_kernel_calls() -> None:
    """Warns of functions in a SavedModel that call the native kernel.

    To be called by `_export_to_saved_model_graph` of a layer, which TensorFlow
    calls while it saves, and which is not told what is saved: that is with the
    caller.
    """
    for module, frame in _frames():
        view = frame.f_locals.get("self")
        if module == "tensorflow.python.saved_model.save" and hasattr(
            view, "concrete_functions"
        ):
            break
    else:
        return
    if view in _checked:
        return
    _checked.add(view)
    names = set()
    for function in view.concrete_functions:
        names |= _functions_with_kernel(function.graph)
    if names:
        warnings.warn(
            f"The functions {sorted(names)} of this SavedModel call the native "
            "kernel and run only in a process that imports keras_sasa. "
            "For other programs, save functions that were first traced by "
            "`get_concrete_function` or inside "
            "`keras_sasa.local_attention.portable()`.",
            stacklevel=2,
        )


def _functions_with_kernel(graph):
    """Returns the names of those that call the kernel, as a set."""
    definition = graph.as_graph_def()
    functions = {
        function.signature.name: function.node_def
        for function in definition.library.function
    }
    functions[graph.name] = definition.node
    return {
        # TensorFlow calls the trace of `serve` "__inference_serve_123".
        re.sub(r"^__inference_(.*)_\d+$", r"\1", name)
        for name, nodes in functions.items()
        if any(map(_is_kernel, nodes))
    }


def _is_kernel(node):
    return node.op == "XlaCallModule" and any(
        check.startswith(b"custom_call:keras_sasa_")
        for check in node.attr["disabled_checks"].list.s
    )
