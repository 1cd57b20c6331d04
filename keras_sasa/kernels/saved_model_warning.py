"""Warns when a SavedModel is written that calls the compiled kernel.

Otherwise such a function fails only when it is served, in a process that does
not import keras_sasa. TensorFlow has no hook for this. But layers take part in
saving, and TensorFlow traces the gradients of every signature that it saves: in
both places the caller tells whether a SavedModel is being written.
"""

import re
import sys
import warnings
import weakref

from keras_sasa.kernels.targets import PREFIX

_SAVING = "tensorflow.python.saved_model.save"

# The views that were checked.
_checked = weakref.WeakSet()


def warn_of_kernel_calls() -> None:
    """Warns if TensorFlow is saving functions that call the kernel, once."""
    view = _saved_view()
    if view is None or view in _checked:
        return
    _checked.add(view)
    names = set()
    for function in view.concrete_functions:
        names |= _functions_with_kernel(function.graph)
    if names:
        warnings.warn(
            f"The functions {sorted(names)} of this SavedModel call the "
            "compiled kernel of keras_sasa and run only in a process that "
            "imports keras_sasa. For other programs, save functions that were "
            "first traced by `get_concrete_function` or inside "
            "`keras_sasa.local_attention.portable()`.",
            stacklevel=2,
        )


def _saved_view():
    """Returns TensorFlow's view of what it is saving, or `None`."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == _SAVING:
            for name in ("self", "saveable_view"):
                view = frame.f_locals.get(name)
                if hasattr(view, "concrete_functions"):
                    return view
        frame = frame.f_back
    return None


def _functions_with_kernel(graph):
    """Returns the names of the functions that call the kernel, as a set."""
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
        check.startswith(f"custom_call:{PREFIX}".encode())
        for check in node.attr["disabled_checks"].list.s
    )
