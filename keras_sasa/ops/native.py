"""What all implementations by the compiled kernel have in common.

The kernel is a custom call of XLA on CPU, in float32.
"""

import keras

from keras_sasa.kernels import loader
from keras_sasa.ops.dispatch import Implementation


class NativeImplementation(Implementation):
    """Base of the implementations that call the compiled kernel."""

    name = "native"

    def unavailable_reason(self) -> str | None:
        if loader.switched_off():
            return f"the environment variable {loader.SWITCH} turns it off"
        accelerator = _accelerator()
        if accelerator is not None:
            return f"it runs on CPU, and there is a {accelerator}"
        return loader.load()

    def expected_to_run(self) -> bool:
        # Nobody misses it on an accelerator.
        return not loader.switched_off() and _accelerator() is None

    def unsupported_reason(self, problem) -> str | None:
        if problem.dtype != "float32":
            return f"it computes in float32, not in {problem.dtype}"
        return None


def _accelerator():
    """Returns the kind of accelerator that the backend uses, or `None`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Hidden devices do not compute.
        for kind in ("GPU", "TPU"):
            if tf.config.get_visible_devices(kind):
                return kind
    if keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return jax.default_backend().upper()
    return None
