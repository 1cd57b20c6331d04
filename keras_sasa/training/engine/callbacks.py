"""Callbacks of all runs."""

import math

import keras

from keras_sasa.training.engine.run import Run


class SaveRun(keras.callbacks.Callback):
    """Saves the state after each epoch, and stops if the loss diverges.

    Args:
        run: A `Run`.
    """

    def __init__(self, run: Run):
        super().__init__()
        self.run = run

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {float(loss)} in step {batch + 1} of epoch "
                f"{self.run.epochs_done + 1}. {self.run.last_good}"
            )

    def on_epoch_end(self, epoch, logs=None):
        self.run.save(
            self.model, {name: float(value) for name, value in logs.items()}
        )
