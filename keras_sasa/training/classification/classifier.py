"""Trains a classifier by a recipe."""

import functools

import keras

from keras_sasa.applications import ResNet
from keras_sasa.data import images
from keras_sasa.training.engine.devices import Devices
from keras_sasa.training.engine.inputs import scaled_images
from keras_sasa.training.engine.loop import (
    Task,
    compile_model,
    describe_data,
    fit_task,
)


def build_model(network, data, recipe, devices=None):
    """Builds and compiles a network for images of `data`.

    Args:
        network: Dict of arguments of `keras_sasa.applications.ResNet`.
        data: An `ImageData`.
        recipe: A `Recipe`.
        devices: A `Devices`. Default: one device.

    Returns:
        A compiled `keras.Model`, which scales pixels itself: its inputs are
        images from 0 to `data.white`.
    """
    devices = devices or Devices()
    with devices.scope():
        options = {"name": "classifier", **network}
        model = ResNet(
            input_tensor=scaled_images(
                data, recipe.image_size, images.resizing_of(recipe)
            ),
            classes=data.num_classes,
            **options,
        )
        compile_model(
            model,
            recipe,
            images.steps_per_epoch(data, recipe),
            devices,
            loss=recipe.make_loss(),
            weighted_metrics=_metrics(data),
        )
    return model


def _metrics(data):
    metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    if data.num_classes > 5:
        metrics.append(
            keras.metrics.TopKCategoricalAccuracy(5, name="top_5_accuracy")
        )
    return metrics


def fit(
    network,
    data,
    recipe,
    folder,
    devices=None,
    seed=0,
    mixed_precision=None,
    resume=False,
    verbose="auto",
    on_start=None,
):
    """Trains a network, saves its state after every epoch, and goes on.

    Args:
        network: Dict of arguments of `keras_sasa.applications.ResNet`.
        data: An `ImageData`.
        recipe: A `Recipe`.
        folder: Path of the run, where these are written: `state.json` and
            `state-*.weights.h5` (to go on), `history.csv`, `logs` (for
            TensorBoard, where it is installed), `model.keras` (averaged
            weights after the last epoch) and `best.keras` (after the epoch of
            the best validation accuracy).
        devices: A `Devices`. Default: one device.
        seed: Integer: initial weights, order of images, augmentation.
        mixed_precision: `"bfloat16"` or `"float16"`. Default: the policy of
            `keras.config.dtype_policy()`, which is what it was afterwards.
        resume: Boolean, whether to go on with a training in `folder`. All
            arguments must be those of before, except for the epochs of the
            recipe: the warm-up stays, and the cosine is that of the new number
            of epochs from here on.
        verbose: As of `keras.Model.fit`.
        on_start: Function that is called with the compiled model before the
            training.

    Returns:
        The trained model, with averaged weights, and the history: a list of a
        dict for each epoch.

    Raises:
        ValueError: If something does not fit, before the training starts.
        OSError: If the folder cannot be written to.
        FloatingPointError: If the loss becomes NaN or infinite.
        KeyboardInterrupt: On Ctrl-C, after two lines on the standard error say
            which state is kept and how to resume.
    """
    devices = devices or Devices()
    recipe = recipe.reduced_to(data.num_train, devices.num_replicas)
    task = Task(
        build=functools.partial(build_model, network, data, recipe),
        recipe=recipe,
        steps_per_epoch=images.steps_per_epoch(data, recipe),
        training_batches=functools.partial(
            images.training_batches, data, recipe
        ),
        validation_batches=lambda shard: images.evaluation_batches(
            data, recipe, shard=shard
        ),
        configuration={"network": dict(network), **describe_data(data)},
        monitor="val_accuracy",
        check_readable=functools.partial(images.check_readable, data),
    )
    return fit_task(
        task,
        folder,
        devices,
        seed,
        mixed_precision,
        resume,
        verbose,
        on_start,
    )
