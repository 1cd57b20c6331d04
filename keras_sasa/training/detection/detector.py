"""Trains a detector by a recipe, as `keras_sasa.training.fit` a classifier."""

import functools
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_sasa._paths import local_path
from keras_sasa.applications import ResNet
from keras_sasa.data.augmentation import find_augmentation
from keras_sasa.data.corrupt_images import check_readable
from keras_sasa.data.detection import batches
from keras_sasa.data.detection.detection_data import DetectionData
from keras_sasa.data.epochs import steps_per_epoch
from keras_sasa.data.model_inputs import rescaled_inputs
from keras_sasa.detection.retinanet import RetinaNet
from keras_sasa.training.detection.callbacks import MeasurePrecision
from keras_sasa.training.detection.evaluation import check_has_boxes
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

# Values of a recipe that only classifiers use.
_UNUSED = ("label_smoothing", "rand_augment_factor")


def build_detector(
    network: Mapping[str, Any],
    data: DetectionData,
    recipe: Recipe,
    devices: Devices | None = None,
) -> RetinaNet:
    """Builds and compiles a detector for images of `data`.

    Args:
        network: Dict of arguments of `RetinaNet`; `"backbone"` is a dict of
            arguments of `keras_sasa.applications.ResNet`. The boxes of the
            batches are "xyxy", and so must be `"bounding_box_format"`.
        data: A `DetectionData`.
        recipe: A `Recipe`.
        devices: A `Devices`. Default: one device.

    Returns:
        A compiled `RetinaNet`, which scales pixels itself: its inputs are
        images from 0 to `data.max_pixel_value`.

    Raises:
        ValueError: If an argument has the wrong kind or does not suit the
            others; for instance if `network` has no backbone.
        TypeError: If `network` has arguments that do not exist.
    """
    _check_arguments(network, data, recipe, devices)
    devices = devices or Devices()
    with devices.scope():
        backbone = ResNet(
            input_tensor=rescaled_inputs(
                data, recipe.image_size, recipe.resizing
            ),
            include_top=False,
            **network["backbone"],
        )
        options = {"name": "detector", **network, "backbone": backbone}
        model = RetinaNet(num_classes=data.num_classes, **options)
        steps = steps_per_epoch(data, recipe.batch_size)
        compile_model(model, recipe, steps, devices)
    return model


def _check_arguments(network, data, recipe, devices):
    check_type(
        "network",
        network,
        Mapping,
        "a dict of arguments of `RetinaNet`, with a dict of arguments of "
        "`ResNet` as its 'backbone'",
    )
    if not isinstance(network.get("backbone"), Mapping):
        raise ValueError(
            "`network` must have a dict of arguments of `ResNet` as its "
            f"'backbone'. Received: {network.get('backbone')!r}."
        )
    box_format = network.get("bounding_box_format", batches.BOX_FORMAT)
    if box_format != batches.BOX_FORMAT:
        raise ValueError(
            f"`bounding_box_format` must be {batches.BOX_FORMAT!r}, the format "
            "of the boxes of a `DetectionData`. Received: "
            f"bounding_box_format={box_format!r}."
        )
    check_type(
        "data",
        data,
        DetectionData,
        "a `DetectionData`, the result of "
        "`keras_sasa.data.load_detection_data`",
    )
    check_recipe(recipe)
    find_augmentation(recipe.augmentation, labels="boxes")
    for name in _UNUSED:
        if getattr(recipe, name):
            raise ValueError(
                f"`{name}` must be 0 to train a detector, which does not use "
                f"it. Received: {name}={getattr(recipe, name)!r}."
            )
    check_devices(devices)
    if devices is not None and devices.shard[1] > 1:
        raise ValueError(
            "A detector can be trained by one process only, on any number of "
            f"devices. Received: {devices.describe()}."
        )


def fit(
    network: Mapping[str, Any],
    data: DetectionData,
    recipe: Recipe,
    folder: str | os.PathLike,
    devices: Devices | None = None,
    seed: int = 0,
    mixed_precision: str | None = None,
    resume: bool = False,
    verbose: str | int = "auto",
    on_start: Callable[[keras.Model], None] | None = None,
) -> tuple[RetinaNet, list[dict[str, float]]]:
    """Trains a detector and saves its state after every epoch.

    Args:
        network: Dict, see `build_detector`.
        data: A `DetectionData`.
        recipe: A `Recipe`.
        folder: Path of the run, see `keras_sasa.training.fit`; the best epoch
            has the highest AP on the validation images.
        devices: A `Devices` of one process. Default: one device.
        seed: See `keras_sasa.training.fit`.
        mixed_precision: See `keras_sasa.training.fit`.
        resume: See `keras_sasa.training.fit`.
        verbose: See `keras_sasa.training.fit`.
        on_start: See `keras_sasa.training.fit`.

    Returns:
        The trained model, with averaged weights, and the history: a list with
        a dict for each epoch. Its `val_AP` and `val_AP50` are measured on all
        validation images.

    Raises:
        ValueError: If an argument has the wrong kind or does not suit the
            others, before training starts; for instance a set without boxes.
        TypeError: If `network` has arguments that do not exist.
        OSError: If the folder cannot be written to.
        FloatingPointError: If the loss becomes NaN or infinite.
        KeyboardInterrupt: See `keras_sasa.training.fit`.
    """
    folder = local_path(folder, "folder")
    _check_arguments(network, data, recipe, devices)
    check_has_boxes(data.train, "to learn from")
    check_has_boxes(data.validation)
    devices = devices or Devices()
    recipe = recipe.limit_batch_size(data.num_train, devices.num_replicas)
    task = Task(
        build=functools.partial(build_detector, network, data, recipe),
        recipe=recipe,
        steps_per_epoch=steps_per_epoch(data, recipe.batch_size),
        training_batches=functools.partial(
            batches.training_batches, data, recipe
        ),
        validation_batches=lambda shard: batches.validation_batches(
            data, recipe.image_size, recipe.batch_size
        ),
        configuration={"network": dict(network), **data.identity()},
        monitor="val_AP",
        callbacks=[MeasurePrecision(data, recipe)],
        check_readable=functools.partial(
            check_readable, data, operator.itemgetter("image"), advice=""
        ),
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
