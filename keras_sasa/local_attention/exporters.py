"""Whether a call traces a model that is being exported."""

import sys

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


def exporting() -> bool:
    """Returns whether this call traces a model that is being exported."""
    return _called_by(_EXPORTERS)


def exporting_without_loops() -> bool:
    """Returns whether the export is one that takes no loops."""
    return _called_by(_WITHOUT_LOOPS)


def _called_by(modules):
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(modules):
            return True
        frame = frame.f_back
    return False
