"""A short training on a few digits, in this process or in one of its own."""

import dataclasses
import functools
import hashlib
import os
import signal

import numpy as np

from keras_sasa import training
from keras_sasa.data import load_data

NETWORK = {
    "num_blocks": (1,),
    "stem": "small",
    "kernel_size": 3,
    "num_heads": 2,
    "width_multiplier": 0.125,
}
RECIPE = dataclasses.replace(
    training.DIGITS,
    epochs=3,
    warmup_epochs=0.3,
    batch_size=32,
    image_size=8,
)
STEPS = 5


@functools.cache
def digits(images=170, validation=70):
    """Of 32 each: five batches to train, three to validate, one not full."""
    data = load_data("digits")
    return dataclasses.replace(
        data,
        train=data.train.take(images),
        validation=data.validation.take(validation),
    )


def train(folder, devices=None, **changes):
    """Trains, or resumes, and returns the history and a hash of the weights.

    Args:
        folder: Path of the run.
        devices: As of `training.fit`.
        **changes: Of the recipe.
    """
    model, history = training.fit(
        NETWORK,
        digits(),
        dataclasses.replace(RECIPE, **changes),
        folder,
        devices=devices,
        verbose=0,
        resume=True,
    )
    weights = b"".join(np.asarray(w).tobytes() for w in model.get_weights())
    return history, hashlib.sha256(weights).hexdigest()


def kill_after(steps):
    """Makes the training kill this process after so many steps in all."""
    original = training.SaveRun.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        original(self, batch, logs)
        if self.run.epochs_done * STEPS + batch + 1 == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    training.SaveRun.on_train_batch_end = on_train_batch_end
