"""Trained models and new photos: a model's file says how to prepare them."""

import dataclasses
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_sasa._keras_graphs import all_layers
from keras_sasa._paths import local_path
from keras_sasa.data.decoding import read_image
from keras_sasa.data.images import prepare_image, resizing_of
from keras_sasa.layers import ImageRescaling
from keras_sasa.training.engine.recipe import CIFAR10, IMAGENET
from keras_sasa.training.engine.run import read_training


def load_trained(path, kind):
    """Loads a model that a training saved, and what it says about its images.

    Args:
        path: Path of a `.keras` file. One that was saved by a version that did
            not describe its images must be in the folder of its training.
        kind: `"classifier"` or `"detector"`, what the model must be.

    Returns:
        The `keras.Model`, and an `ImageRescaling` that describes its images:
        `class_names`, `image_size`, `channels`, `resizing` and
        `max_pixel_value`.

    Raises:
        ValueError: If the file is not such a model; the error names the file
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
            f"{type(model).__name__}, which is {_PHRASES[found]}."
        )
    images = describe_images(model)
    if images is None:
        images = _describe_by_run(path, model, kind)
    classes = _num_classes(model, kind)
    if len(images.class_names) != classes:
        raise ValueError(
            f"{str(path)!r} distinguishes {classes} classes, and its images "
            f"are described to have {len(images.class_names)}: "
            f"{images.class_names}."
        )
    return model, images


def describe_images(model):
    """Returns what a model says about the images it takes.

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


def prepare_images(paths, images):
    """Reads image files and prepares them as the evaluation of the training.

    Args:
        paths: List of paths of image files.
        images: What `load_trained` or `describe_images` returned.

    Returns:
        An array `(len(paths), image_size, image_size, channels)`, `uint8`
        where the brightest pixel is 255, and otherwise `float32`.

    Raises:
        ValueError: If a file is not a readable image, or there is none.
    """
    if not len(paths):
        raise ValueError("`paths` must be one path or more. Received: none.")
    recipe = evaluation_recipe(images)
    batch = np.stack(
        [
            prepare_image(
                tf.constant(read_image(path, images.channels)), recipe
            )
            for path in paths
        ]
    )
    if images.max_pixel_value == 255:
        return batch
    # The digits of scikit-learn go up to 16, and those of a file to 255.
    return (batch * (images.max_pixel_value / 255)).astype("float32")


def evaluation_recipe(images, batch_size=64):
    """Returns a recipe by which `evaluation_batches` prepares images.

    Args:
        images: What `load_trained` or `describe_images` returned.
        batch_size: Integer. It does not change the results.

    Returns:
        A `Recipe`. What only concerns a training has no meaning in it.
    """
    recipes = {resizing_of(recipe): recipe for recipe in (CIFAR10, IMAGENET)}
    if images.resizing not in recipes:
        raise ValueError(
            "`images` must describe the images of a classifier. "
            f"Received: resizing={images.resizing!r}."
        )
    return dataclasses.replace(
        recipes[images.resizing],
        image_size=images.image_size,
        batch_size=batch_size,
    )


def _load(path):
    if path.is_dir():
        raise ValueError(
            f"{str(path)!r} is a folder. The model of a training is the file "
            "best.keras or model.keras in it."
        )
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    try:
        return keras.saving.load_model(path)
    # A damaged file, one of another program, and a class that is not known
    # have no common type.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"{str(path)!r} is not a model that Keras can load: "
            f"{type(error).__name__}: {reason}"
        ) from error


_PHRASES = {
    "classifier": "a classifier (evaluate.py, look_inside.py and classify.py "
    "take it)",
    "detector": "a detector (detect.py takes it)",
    "other": "neither a classifier of images nor a detector",
}


def _kind_of(model):
    # It imports this package.
    from keras_sasa.detection.retinanet import RetinaNet

    if isinstance(model, RetinaNet):
        return "detector"
    try:
        (images,), (scores,) = model.inputs, model.outputs
    # Several inputs or outputs, or a subclass that has no graph.
    except (AttributeError, TypeError, ValueError):
        return "other"
    is_classifier = len(images.shape) == 4 and len(scores.shape) == 2
    return "classifier" if is_classifier else "other"


def _num_classes(model, kind):
    return model.num_classes if kind == "detector" else model.output_shape[-1]


def _describe_by_run(path, model, kind):
    """Returns what the folder of a run says of a model that is silent."""
    try:
        recipe, class_names = read_training(path.parent)
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} does not say what its classes are called and how "
            "its images are prepared (it has no "
            "`keras_sasa.layers.ImageRescaling`), and there is no state.json "
            "of a training beside it."
        ) from error
    warnings.warn(
        f"{str(path)!r} does not describe its images; state.json beside it is "
        "used. Photos are cropped to squares, where its training may have "
        "stretched them.",
        stacklevel=3,
    )
    # Models of older versions scale by a layer of Keras.
    scale = {layer.name: layer for layer in all_layers(model)}.get("scale")
    is_rescaling = isinstance(scale, keras.layers.Rescaling)
    return ImageRescaling(
        class_names,
        recipe.image_size,
        model.input_shape[-1],
        "letterbox" if kind == "detector" else resizing_of(recipe),
        2 / scale.scale if is_rescaling else 255.0,
    )
