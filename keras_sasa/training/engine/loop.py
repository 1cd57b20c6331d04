"""Runs a training of any task: `Model.fit`, saved after every epoch."""

import contextlib
import dataclasses
import importlib.util
import sys
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_sasa._keras_graphs import all_layers
from keras_sasa.training.engine.devices import Devices, check_supported
from keras_sasa.training.engine.recipe import Recipe
from keras_sasa.training.engine.run import Run, SaveRun

MIXED_PRECISION = {
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
MODEL = "model.keras"
BEST_MODEL = "best.keras"

# Weight, its average, and up to two moments of the optimizer, in float32.
_BYTES_PER_PARAMETER = 4 * 4


@dataclasses.dataclass(frozen=True)
class Task:
    """What a training consists of, for `fit_task`.

    Args:
        build: Function of a `Devices` that returns a compiled model.
        recipe: A `Recipe`.
        steps_per_epoch: Integer.
        training_batches: Function of `(seed, initial_epoch, shard)`, see
            `keras_sasa.data.training_batches`.
        validation_batches: Function of `shard`.
        configuration: Dict of JSON values, what must be equal to resume a
            training.
        monitor: Name of the metric, higher is better, that says which epoch is
            the best.
        callbacks: List of Keras callbacks that see the averaged weights when
            the model is validated, and may add to the logs of an epoch.
        check_readable: Function that raises an error which names the images
            that cannot be decoded, if there are any.
    """

    build: Callable
    recipe: Recipe
    steps_per_epoch: int
    training_batches: Callable
    validation_batches: Callable
    configuration: dict
    monitor: str
    callbacks: list = dataclasses.field(default_factory=list)
    check_readable: Callable = lambda: None


def compile_model(model, recipe, steps_per_epoch, devices, **options):
    """Compiles a model with the optimizer of a recipe.

    Args:
        model: A `keras.Model`, built in the scope of `devices`.
        recipe: A `Recipe`.
        steps_per_epoch: Integer.
        devices: A `Devices`.
        **options: Those of `keras.Model.compile`.
    """
    for layer in _batch_normalizations(model):
        layer.momentum = recipe.limit_batch_norm_momentum(steps_per_epoch)
        # Under `keras.distribution` means are those of the whole batch anyway.
        layer.synchronized = devices.strategy is not None
    optimizer = recipe.make_optimizer(steps_per_epoch)
    if model.dtype_policy.name == "mixed_float16":
        # Keras would do it, too, but not note it in the file of the model,
        # which could then be loaded under this global policy only.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, **options)
    # Or the first step would be traced twice, once for its variables.
    model.optimizer.build(model.trainable_variables)


def _batch_normalizations(model):
    return [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def describe_data(data):
    """Returns what must be equal of the data for a training to go on."""
    return {
        "images": [data.num_train, data.num_validation],
        "classes": data.class_names,
    }


def fit_task(
    task,
    folder,
    devices=None,
    seed=0,
    mixed_precision=None,
    resume=False,
    verbose="auto",
    on_start=None,
):
    """Trains what a `Task` describes; all else is as of `fit`."""
    with _dtype_policy(mixed_precision):
        return _fit_task(
            task, folder, devices or Devices(), seed, resume, verbose, on_start
        )


@contextlib.contextmanager
def _dtype_policy(mixed_precision):
    """Sets the global policy, where one is asked for, and puts it back."""
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


def _fit_task(task, folder, devices, seed, resume, verbose, on_start):
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
        wait=devices.wait,
    )
    keras.utils.set_random_seed(seed)
    model = task.build(devices)
    check_supported(model, devices, task.recipe.batch_size)
    run.start(resume, num_bytes=_BYTES_PER_PARAMETER * model.count_params())
    devices.check_same(run.epochs_done, "number of epochs done")
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
            f" There were to be {run.epochs_before}: from here on the learning "
            f"rate follows the cosine of {epochs} epochs, now at {rate:.3g}."
        )
    return text


def _fit(model, task, run, devices, seed, verbose):
    callbacks = [
        *task.callbacks,
        # Validates with the averaged weights, and puts the others back.
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
        # The pipeline does it.
        shuffle=False,
        verbose=verbose if devices.is_chief else 0,
    )


def _finish(model, run):
    """Writes both models; the weights of the last stay in it."""
    for layer in _batch_normalizations(model):
        # The files are for any number of devices and any backend.
        layer.synchronized = False
    run.load(model, "best")
    _use_average(model)
    run.save_model(model, BEST_MODEL)
    run.load(model, "last")
    _use_average(model)
    run.save_model(model, MODEL)


def _use_average(model):
    model.optimizer.finalize_variable_values(model.trainable_variables)
