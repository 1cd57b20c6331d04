"""Whether a call traces a model that is being exported."""

import sys

# Modules that write a model for other programs, which have no kernel.
_EXPORTERS = (
    "keras.src.export",
    "tensorflow.python.saved_model.save",
    "tensorflow.lite.python.lite",
    "jax._src.export",
    "jax.experimental.jax2tf",
)
_LITERT = ("keras.src.export.litert", "tensorflow.lite.python.lite")


def exporting() -> bool:
    """Returns whether this call traces a model that is being exported."""
    return _called_by(_EXPORTERS)


def exporting_to_litert() -> bool:
    """Returns whether the export is one to LiteRT."""
    return _called_by(_LITERT)


def _called_by(modules):
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(modules):
            return True
        frame = frame.f_back
    return False
