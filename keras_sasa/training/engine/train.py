"""Runs the training of a task: `Model.fit`, saved after every epoch."""

import contextlib
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_sasa.training.engine.callbacks import SaveRun
from keras_sasa.training.engine.compilation import batch_normalizations
from keras_sasa.training.engine.devices import Devices, check_supported
from keras_sasa.training.engine.run import Run
from keras_sasa.training.engine.task import Task

MIXED_PRECISION = {
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
MODEL = "model.keras"
BEST_MODEL = "best.keras"

# A weight, its average, and up to two moments of the optimizer, in float32.
_BYTES_PER_PARAMETER = 4 * 4


def train(
    task: Task,
    folder: str | os.PathLike,
    devices: Devices,
    seed: int = 0,
    mixed_precision: str | None = None,
    resume: bool = False,
    verbose: str | int = "auto",
    on_start: Callable[[keras.Model], None] | None = None,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Trains the model of a `Task`.

    Args:
        task: A `Task`.
        folder: See `keras_sasa.training.fit`, like all other arguments.

    Returns:
        The model, with averaged weights, and the history.
    """
    with _dtype_policy(mixed_precision):
        return _train(task, folder, devices, seed, resume, verbose, on_start)


@contextlib.contextmanager
def _dtype_policy(mixed_precision):
    """Sets the global policy if one is requested, and restores it."""
    before = keras.config.dtype_policy()
    if mixed_precision is not None:
        if mixed_precision not in MIXED_PRECISION:
            raise ValueError(
                "`mixed_precision` must be `None` or one of "
                f"{tuple(MIXED_PRECISION)}. "
                f"Received: mixed_precision={mixed_precision!r}."
            )
        keras.config.set_dtype_policy(MIXED_PRECISION[mixed_precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _train(task, folder, devices, seed, resume, verbose, on_start):
    run = Run(
        folder,
        {
            **task.configuration,
            "recipe": dataclasses.asdict(task.recipe),
            "seed": seed,
            "dtype_policy": keras.config.dtype_policy().name,
        },
        monitor=task.monitor,
        is_writer=devices.is_chief,
        barrier=devices.barrier,
    )
    keras.utils.set_random_seed(seed)
    model = task.build(devices)
    check_supported(model, devices, task.recipe.batch_size)
    run.start(resume, num_bytes=_BYTES_PER_PARAMETER * model.count_params())
    devices.check_equal(run.epochs_done, "number of epochs done")
    if on_start:
        on_start(model)
    if run.epochs_done and verbose and devices.is_chief:
        print(_describe_resumption(run, task))
    try:
        with devices.scope():
            run.load(model)
        if run.epochs_done < task.recipe.epochs:
            _fit(model, task, run, devices, seed, verbose)
        with devices.scope():
            _finish(model, run)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
        task.check_readable()
        raise
    except KeyboardInterrupt:
        if devices.is_chief:
            print(f"\n{run.describe_interruption()}", file=sys.stderr)
        raise
    return model, run.history


def _describe_resumption(run, task):
    epochs = task.recipe.epochs
    text = f"Resuming after epoch {run.epochs_done} of {epochs}."
    if run.epochs_before != epochs:
        schedule = task.recipe.make_schedule(task.steps_per_epoch)
        rate = float(schedule(run.epochs_done * task.steps_per_epoch))
        text += (
            f" The run was to end after epoch {run.epochs_before}: from here "
            f"on the learning rate follows the cosine of {epochs} epochs, now "
            f"at {rate:.3g}."
        )
    return text


def _fit(model, task, run, devices, seed, verbose):
    callbacks = [
        *task.callbacks,
        # Validates with the averaged weights, and restores the others.
        keras.callbacks.SwapEMAWeights(),
        SaveRun(run),
    ]
    if devices.is_chief and importlib.util.find_spec("tensorboard"):
        callbacks.append(
            keras.callbacks.TensorBoard(run.folder / "logs", write_graph=False)
        )
    model.fit(
        task.training_batches(seed, run.epochs_done, devices.shard),
        validation_data=task.validation_batches(devices.shard),
        epochs=task.recipe.epochs,
        initial_epoch=run.epochs_done,
        steps_per_epoch=task.steps_per_epoch,
        callbacks=callbacks,
        # The input pipeline shuffles.
        shuffle=False,
        verbose=verbose if devices.is_chief else 0,
    )


def _finish(model, run):
    """Writes both models; the model keeps the weights of the last epoch."""
    for layer in batch_normalizations(model):
        # The files must suit any number of devices and any backend.
        layer.synchronized = False
    run.load(model, "best")
    _use_average(model)
    run.save_model(model, BEST_MODEL)
    run.load(model, "last")
    _use_average(model)
    run.save_model(model, MODEL)


def _use_average(model):
    model.optimizer.finalize_variable_values(model.trainable_variables)
