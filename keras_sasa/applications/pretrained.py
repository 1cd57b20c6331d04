"""What networks with published weights have in common."""

import os
from types import ModuleType

import keras

from keras_sasa.applications.published_file import PublishedFile
from keras_sasa.applications.tensor_files import TENSOR_SUFFIXES, read_tensors
from keras_sasa.applications.weight_conversion import assign_tensors
from keras_sasa.applications.weights import (
    KERAS_SUFFIXES,
    check_weights,
    load_weights,
)


def check_pretrained_weights(weights) -> None:
    """Raises `ValueError` unless `load_pretrained` takes `weights`."""
    check_weights(weights, KERAS_SUFFIXES + TENSOR_SUFFIXES, published=True)


def load_pretrained(
    model: keras.Model,
    weights: str | os.PathLike[str] | None,
    published: PublishedFile | None,
    names: ModuleType,
) -> keras.Model:
    """Loads the weights of a model.

    Args:
        model: The model, whose classifier has the name `"predictions"`.
        weights: `"imagenet"`, `None`, or the path of a file.
        published: The file for `"imagenet"`.
        names: Module of the names of the weights in files of tensors, with the
            functions `standardize` and `tensor_name`.

    Returns:
        The model.

    Raises:
        ValueError: If the file does not hold the weights of the model.
        ConnectionError: If the published file cannot be downloaded.
    """
    if weights == "imagenet":
        weights = published.download()
    if weights is None:
        return model
    if not os.fspath(weights).endswith(TENSOR_SUFFIXES):
        load_weights(model, weights)
        return model
    assign_tensors(
        model,
        names.standardize(read_tensors(weights)),
        names.tensor_name,
        head="predictions",
        source=repr(os.fspath(weights)),
    )
    return model


def check_channels_last(name: str) -> None:
    """Raises `ValueError` if Keras is configured to have channels first."""
    data_format = keras.config.image_data_format()
    if data_format != "channels_last":
        raise ValueError(
            f"{name!r} takes images with channels last. Received: "
            f"keras.config.image_data_format()={data_format!r}."
        )
