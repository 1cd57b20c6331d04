"""Weights of networks from files."""

import os

KERAS_SUFFIXES = (".weights.h5", ".keras")


def check_weights(weights, suffixes=KERAS_SUFFIXES, published=False):
    """Raises `ValueError` unless `weights` is `None` or a weights file.

    Args:
        weights: The argument.
        suffixes: How the names of files may end.
        published: Whether `"imagenet"` is allowed as well.
    """
    if weights is None or (published and weights == "imagenet"):
        return
    allowed = '`None`, "imagenet"' if published else "`None`"
    endings = ", ".join(f"`{suffix}`" for suffix in suffixes)
    if weights == "imagenet":
        raise ValueError(
            '`weights="imagenet"` is not available: no pretrained weights of '
            "these networks have been published. `weights` must be `None` or "
            f"the path of a weights file. Received: weights={weights!r}."
        )
    if not isinstance(weights, (str, os.PathLike)) or not os.path.isfile(
        weights
    ):
        raise ValueError(
            f"`weights` must be {allowed} or the path of an existing file "
            f"({endings}). Received: weights={weights!r}."
        )
    if not str(weights).endswith(suffixes):
        raise ValueError(
            "The name of the file of `weights` must end in one of "
            f"{endings}. Received: weights={weights!r}."
        )


def load_weights(model, weights):
    """Loads the weights of a model from a file.

    Raises:
        ValueError: If the file does not fit the model.
    """
    try:
        model.load_weights(weights)
    except Exception as error:
        # Messages of h5py and zipfile do not name the argument.
        raise ValueError(
            "The file of `weights` does not hold the weights of this network "
            f"({model.name!r}, {model.count_params():,} parameters); the "
            "number of classes and all other arguments must be as they were "
            f"when it was saved. Received: weights={str(weights)!r}, which "
            f"failed with: {error}"
        ) from error
