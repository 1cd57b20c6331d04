"""Loads trained models, and prepares new photos as their files say."""

import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_sasa._keras_graphs import all_layers
from keras_sasa._paths import local_path
from keras_sasa._user_warnings import warn_user
from keras_sasa.data.decoding import read_image
from keras_sasa.data.resizing import check_central, prepare_image
from keras_sasa.detection.retinanet import RetinaNet
from keras_sasa.layers import ImageRescaling
from keras_sasa.training.engine.recipe import Recipe
from keras_sasa.training.engine.run import read_configuration

_DESCRIPTIONS = {
    "classifier": "a classifier (evaluate.py, look_inside.py and classify.py "
    "take it)",
    "detector": "a detector (detect.py takes it)",
    "other": "neither a classifier of images nor a detector",
}


def load_trained(
    path: str | os.PathLike, kind: str
) -> tuple[keras.Model, ImageRescaling]:
    """Loads a trained model and the description of its images.

    Args:
        path: Path of a `.keras` file. A file of an older version that does not
            describe its images must be in the folder of its run.
        kind: `"classifier"` or `"detector"`, the kind of model to accept.

    Returns:
        The `keras.Model`, and an `ImageRescaling` that describes its images:
        `class_names`, `image_size`, `channels`, `resizing` and
        `max_pixel_value`.

    Raises:
        ValueError: If the file is not such a model; the message names the file
            and says in one line what it is instead.

    Example:

    ```python
    model, images = load_trained("runs/photos/best.keras", "classifier")
    scores = model.predict(prepare_images(["photo.jpg"], images))
    print(images.class_names[scores[0].argmax()])
    ```
    """
    path = local_path(path, "path")
    model = _load(path)
    found = _kind_of(model)
    if found != kind:
        raise ValueError(
            f"{str(path)!r} must be a {kind}. Received: a model of the class "
            f"{type(model).__name__}, which is {_DESCRIPTIONS[found]}."
        )
    images = describe_images(model)
    if images is None:
        images = _describe_by_run(path, model)
    classes = (
        model.num_classes if kind == "detector" else model.output_shape[-1]
    )
    if len(images.class_names) != classes:
        raise ValueError(
            f"{str(path)!r} distinguishes {classes} classes, but describes its "
            f"images as having {len(images.class_names)}: {images.class_names}."
        )
    return model, images


def describe_images(model: keras.Model) -> ImageRescaling | None:
    """Returns the description of the images that a model takes.

    Args:
        model: A `keras.Model`.

    Returns:
        Its `keras_sasa.layers.ImageRescaling`, with the attributes
        `class_names`, `image_size`, `channels`, `resizing` and
        `max_pixel_value`; `None` if it does not have exactly one.

    Example:

    ```python
    model = keras.saving.load_model("best.keras")
    print(describe_images(model).class_names)
    ```
    """
    found = [
        layer
        for layer in all_layers(model)
        if isinstance(layer, ImageRescaling)
    ]
    return found[0] if len(found) == 1 else None


def prepare_images(
    paths: Sequence[str | os.PathLike], images: ImageRescaling
) -> np.ndarray:
    """Reads image files and prepares them as for evaluation in training.

    Args:
        paths: List of paths of image files.
        images: The result of `describe_images`, which `load_trained` returns
            as well.

    Returns:
        An array `(len(paths), image_size, image_size, channels)`, `uint8`
        if the brightest pixel is 255, and otherwise `float32`.

    Raises:
        ValueError: If a file is not a readable image, or there is none.
    """
    if not len(paths):
        raise ValueError("`paths` must be one path or more. Received: none.")
    check_central(images.resizing)
    batch = np.stack(
        [
            prepare_image(
                tf.constant(read_image(path, images.channels)), images
            )
            for path in paths
        ]
    )
    if images.max_pixel_value == 255:
        return batch
    # The digits of scikit-learn go up to 16, but image files up to 255.
    return (batch * (images.max_pixel_value / 255)).astype("float32")


def read_training(folder: str | os.PathLike) -> tuple[Recipe, list[str]]:
    """Returns the `Recipe` and the class names of the run in a folder.

    Raises:
        ValueError: If the folder holds no run.
    """
    configuration = read_configuration(folder)
    return Recipe(**configuration["recipe"]), configuration["classes"]


def _load(path):
    if path.is_dir():
        raise ValueError(
            f"{str(path)!r} is a folder. The model of a training run is the "
            "file best.keras or model.keras in it."
        )
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    try:
        return keras.saving.load_model(path)
    # Damaged files, files of other programs and unknown classes raise errors
    # of many types.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"{str(path)!r} is not a model that Keras can load: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _kind_of(model):
    if isinstance(model, RetinaNet):
        return "detector"
    try:
        (images,), (scores,) = model.inputs, model.outputs
    # Several inputs or outputs, or a subclass without a graph.
    except (AttributeError, TypeError, ValueError):
        return "other"
    is_classifier = len(images.shape) == 4 and len(scores.shape) == 2
    return "classifier" if is_classifier else "other"


def _describe_by_run(path, model):
    """Returns a description from `state.json` for a model without one."""
    try:
        recipe, class_names = read_training(path.parent)
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} does not say what its classes are called and how "
            "its images are prepared (it has no "
            "`keras_sasa.layers.ImageRescaling`), and there is no state.json "
            "of a training run beside it."
        ) from error
    warn_user(
        f"{str(path)!r} does not describe its images; state.json beside it is "
        "used. Photos are cropped to squares, but may have been stretched in "
        "training."
    )
    # Models of older versions scale by a layer of Keras.
    scale = {layer.name: layer for layer in all_layers(model)}.get("scale")
    is_rescaling = isinstance(scale, keras.layers.Rescaling)
    return ImageRescaling(
        class_names,
        recipe.image_size,
        model.input_shape[-1],
        recipe.resizing,
        2 / scale.scale if is_rescaling else 255.0,
    )
