"""Trains a detector by a recipe, as `keras_sasa.training.fit` a classifier."""

import functools
import operator

import keras

from keras_sasa._paths import local_path
from keras_sasa.applications import ResNet
from keras_sasa.data import detection_batches
from keras_sasa.data.images import check_readable, steps_per_epoch
from keras_sasa.detection.retinanet import RetinaNet
from keras_sasa.training.detection.evaluation import check_has_boxes, evaluate
from keras_sasa.training.engine.devices import Devices
from keras_sasa.training.engine.inputs import scaled_images
from keras_sasa.training.engine.loop import (
    Task,
    compile_model,
    describe_data,
    fit_task,
)


def build_detector(network, data, recipe, devices=None):
    """Builds and compiles a detector for images of `data`.

    Args:
        network: Dict of arguments of `RetinaNet`; `"backbone"` is a dict of
            arguments of `keras_sasa.applications.ResNet`. The boxes of the
            batches are "xyxy", so `"bounding_box_format"` is, too.
        data: A `DetectionData`.
        recipe: A `Recipe`.
        devices: A `Devices`. Default: one device.

    Returns:
        A compiled `RetinaNet`, which scales pixels itself: its inputs are
        images from 0 to `data.white`.

    Raises:
        ValueError: If `network` has no backbone, or another format of boxes.
        TypeError: If `network` has arguments that do not exist.
    """
    _check_network(network)
    devices = devices or Devices()
    with devices.scope():
        backbone = ResNet(
            input_tensor=scaled_images(data, recipe.image_size, "letterbox"),
            include_top=False,
            **network["backbone"],
        )
        options = {"name": "detector", **network, "backbone": backbone}
        model = RetinaNet(num_classes=data.num_classes, **options)
        compile_model(model, recipe, steps_per_epoch(data, recipe), devices)
    return model


def _check_network(network):
    if not isinstance(network.get("backbone"), dict):
        raise ValueError(
            "`network` must have a dict of arguments of `ResNet` as its "
            f"'backbone'. Received: {network.get('backbone')!r}."
        )
    box_format = network.get(
        "bounding_box_format", detection_batches.BOX_FORMAT
    )
    if box_format != detection_batches.BOX_FORMAT:
        raise ValueError(
            "`bounding_box_format` must be "
            f"{detection_batches.BOX_FORMAT!r}, the format of the boxes of a "
            "`DetectionData`. Received: "
            f"bounding_box_format={box_format!r}."
        )


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
    """Trains a detector, saves its state after every epoch, and goes on.

    Args:
        network: Dict as of `build_detector`.
        data: A `DetectionData`.
        recipe: A `Recipe`.
        folder: Path of the run, see `keras_sasa.training.fit`; the best epoch
            is that of the highest AP on the images held out.
        devices: A `Devices` of one process. Default: one device.
        seed: As of `keras_sasa.training.fit`.
        mixed_precision: The same.
        resume: The same.
        verbose: The same.
        on_start: The same.

    Returns:
        The trained model, with averaged weights, and the history: a list of a
        dict for each epoch, in which `val_AP` and `val_AP50` are measured on
        all images held out.

    Raises:
        ValueError: If something does not fit, before the training starts; for
            instance a set without boxes.
        TypeError: If `network` has arguments that do not exist.
        OSError: If the folder cannot be written to.
        FloatingPointError: If the loss becomes NaN or infinite.
        KeyboardInterrupt: As of `keras_sasa.training.fit`.
    """
    # Before all boxes are looked at.
    folder = local_path(folder, "folder")
    if devices is not None and devices.shard[1] > 1:
        raise ValueError(
            "A detector can be trained by one process only, on any number of "
            f"devices. Received: {devices.describe()}."
        )
    check_has_boxes(data.train, "to learn from")
    check_has_boxes(data.validation)
    devices = devices or Devices()
    recipe = recipe.reduced_to(data.num_train, devices.num_replicas)
    task = Task(
        build=functools.partial(build_detector, network, data, recipe),
        recipe=recipe,
        steps_per_epoch=steps_per_epoch(data, recipe),
        training_batches=functools.partial(
            detection_batches.training_batches, data, recipe
        ),
        validation_batches=lambda shard: detection_batches.validation_batches(
            data, recipe
        ),
        configuration={"network": dict(network), **describe_data(data)},
        monitor="val_AP",
        callbacks=[MeasurePrecision(data, recipe)],
        check_readable=functools.partial(
            check_readable, data, operator.itemgetter("image"), advice=""
        ),
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


class MeasurePrecision(keras.callbacks.Callback):
    """Adds `val_AP` and `val_AP50` to the logs of every epoch.

    They are measured with the weights with which the loss is validated.

    Args:
        data: A `DetectionData`.
        recipe: A `Recipe`: batch size and image size.
    """

    def __init__(self, data, recipe):
        super().__init__()
        self.data = data
        self.recipe = recipe
        self._measured = {}

    def on_test_end(self, logs=None):
        measured = evaluate(self.model, self.data, self.recipe)
        self._measured = {
            f"val_{name}": measured[name] for name in ("AP", "AP50")
        }

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(self._measured)
