"""Trains a classifier by a recipe."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_sasa._paths import local_path
from keras_sasa.applications import ResNet
from keras_sasa.data.augmentation import find_augmentation
from keras_sasa.data.classification import batches
from keras_sasa.data.corrupt_images import check_readable
from keras_sasa.data.detection.detection_data import DetectionData
from keras_sasa.data.epochs import steps_per_epoch
from keras_sasa.data.image_data import ImageData
from keras_sasa.data.model_inputs import rescaled_inputs
from keras_sasa.training.engine.argument_checks import (
    check_devices,
    check_recipe,
    check_type,
)
from keras_sasa.training.engine.compilation import compile_model
from keras_sasa.training.engine.devices import Devices
from keras_sasa.training.engine.recipe import Recipe
from keras_sasa.training.engine.task import Task
from keras_sasa.training.engine.train import train

# Arguments of `ResNet` that follow from the data and the task.
_DETERMINED = (
    "classes",
    "classifier_activation",
    "include_top",
    "input_shape",
    "input_tensor",
    "pooling",
)


def build_model(
    network: Mapping[str, Any],
    data: ImageData,
    recipe: Recipe,
    devices: Devices | None = None,
) -> keras.Model:
    """Builds and compiles a network for images of `data`.

    Args:
        network: Dict of arguments of `keras_sasa.applications.ResNet`, such as
            `keras_sasa.applications.CONFIGURATIONS["cifar10_attention"]`.
        data: An `ImageData`.
        recipe: A `Recipe`.
        devices: A `Devices`. Default: one device.

    Returns:
        A compiled `keras.Model`, which scales pixels itself: its inputs are
        images from 0 to `data.max_pixel_value`.

    Raises:
        ValueError: If an argument has the wrong kind or does not suit the
            others.
        TypeError: If `network` has arguments that do not exist.
    """
    _check_arguments(network, data, recipe, devices)
    devices = devices or Devices()
    with devices.scope():
        options = {"name": "classifier", **network}
        model = ResNet(
            input_tensor=rescaled_inputs(
                data, recipe.image_size, recipe.resizing
            ),
            classes=data.num_classes,
            **options,
        )
        compile_model(
            model,
            recipe,
            steps_per_epoch(data, recipe.batch_size),
            devices,
            loss=keras.losses.CategoricalCrossentropy(
                label_smoothing=recipe.label_smoothing
            ),
            weighted_metrics=_metrics(data),
        )
    return model


def _check_arguments(network, data, recipe, devices):
    check_type(
        "network",
        network,
        Mapping,
        "a dict of arguments of `keras_sasa.applications.ResNet`, such as "
        "`keras_sasa.applications.CONFIGURATIONS['cifar10_attention']`",
    )
    if determined := [name for name in _DETERMINED if name in network]:
        raise ValueError(
            f"`network` must not have the arguments {_DETERMINED}, which "
            f"follow from the data. Received: {determined}."
        )
    check_type(
        "data",
        data,
        ImageData,
        "an `ImageData`, the result of `keras_sasa.data.load_data`",
    )
    if isinstance(data, DetectionData):
        raise ValueError(
            "`data` must have one class for each image. Received: a "
            "`DetectionData`, which `keras_sasa.training.detection.fit` takes."
        )
    check_recipe(recipe)
    find_augmentation(recipe.augmentation, labels="class")
    check_devices(devices)


def _metrics(data):
    metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    if data.num_classes > 5:
        metrics.append(
            keras.metrics.TopKCategoricalAccuracy(5, name="top_5_accuracy")
        )
    return metrics


def fit(
    network: Mapping[str, Any],
    data: ImageData,
    recipe: Recipe,
    folder: str | os.PathLike,
    devices: Devices | None = None,
    seed: int = 0,
    mixed_precision: str | None = None,
    resume: bool = False,
    verbose: str | int = "auto",
    on_start: Callable[[keras.Model], None] | None = None,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Trains a network and saves its state after every epoch.

    Runs can be killed and resumed at any time.

    Args:
        network: Dict of arguments of `keras_sasa.applications.ResNet`, such as
            `keras_sasa.applications.CONFIGURATIONS["cifar10_attention"]`.
        data: An `ImageData`.
        recipe: A `Recipe`.
        folder: Path of the run. These are written to it: `state.json` and
            `state-*.weights.h5` (to resume the run), `history.csv`, `logs` (for
            TensorBoard, if it is installed), `model.keras` (averaged weights
            after the last epoch) and `best.keras` (after the epoch of the best
            validation accuracy).
        devices: A `Devices`. Default: one device.
        seed: Integer that determines the initial weights, the order of the
            images, and their augmentation.
        mixed_precision: `"bfloat16"` or `"float16"`. Default: the policy of
            `keras.config.dtype_policy()`. The policy is restored afterwards.
        resume: Boolean, whether to resume a run in `folder`. All arguments must
            be the same as before, except for the epochs of the recipe: the
            warm-up stays, and the cosine follows the new number of epochs from
            here on.
        verbose: See `keras.Model.fit`.
        on_start: Function that is called with the compiled model before
            training starts.

    Returns:
        The trained model, with averaged weights, and the history: a list with
        a dict for each epoch.

    Raises:
        ValueError: If an argument has the wrong kind or does not suit the
            others, before training starts.
        TypeError: If `network` has arguments that do not exist.
        OSError: If the folder cannot be written to.
        FloatingPointError: If the loss becomes NaN or infinite.
        KeyboardInterrupt: On Ctrl-C. Two lines on the standard error say which
            state is kept and how to resume it.
    """
    folder = local_path(folder, "folder")
    _check_arguments(network, data, recipe, devices)
    devices = devices or Devices()
    recipe = recipe.limit_batch_size(data.num_train, devices.num_replicas)
    task = Task(
        build=functools.partial(build_model, network, data, recipe),
        recipe=recipe,
        steps_per_epoch=steps_per_epoch(data, recipe.batch_size),
        training_batches=functools.partial(
            batches.training_batches, data, recipe
        ),
        validation_batches=lambda shard: batches.evaluation_batches(
            data, recipe, recipe.batch_size, shard=shard
        ),
        configuration={"network": dict(network), **data.identity()},
        monitor="val_accuracy",
        check_readable=functools.partial(check_readable, data),
    )
    return train(
        task,
        folder,
        devices,
        seed,
        mixed_precision,
        resume,
        verbose,
        on_start,
    )
