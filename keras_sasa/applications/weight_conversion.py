"""Tensors of other libraries become the weights of a model."""

import re
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_sasa._user_warnings import warn_user

# PyTorch's convolutions are (filters, channels, height, width) or (filters,
# channels, length), its dense layers (outputs, inputs).
TRANSPOSED = {4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0)}


def translate(
    name: str, rows: Sequence[tuple[str, str | Callable[[re.Match], str]]]
) -> str:
    """Applies rows (pattern, replacement) to a name, one after the other."""
    for pattern, replacement in rows:
        name = re.sub(pattern, replacement, name)
    return name


def assign_tensors(
    model: keras.Model,
    tensors: Mapping[str, np.ndarray],
    tensor_name: Callable[[str, str], str],
    head: str,
    source: str,
) -> None:
    """Assigns all weights of a model, or none.

    A classifier of other classes keeps its own weights, with a warning.

    Args:
        model: The model.
        tensors: Arrays by name, with the axes of PyTorch.
        tensor_name: Function from the names of a layer and of its weight to the
            name of a tensor.
        head: Name of the layer that classifies.
        source: Names the tensors in errors.

    Raises:
        ValueError: If a tensor is missing, unexpected or has another shape.
    """
    unused = dict(tensors)
    values = []
    for layer in model.layers:
        arrays = []
        for weight in layer.weights:
            name = tensor_name(layer.name, weight.name)
            if name not in unused:
                raise ValueError(
                    f"{source} must hold the tensor {name!r}, the weight "
                    f"{weight.name!r} of the layer {layer.name!r} of "
                    f"{model.name!r}. Received: {len(tensors)} others."
                )
            tensor = unused.pop(name)
            if weight.name.endswith("kernel"):
                tensor = tensor.transpose(TRANSPOSED.get(tensor.ndim))
            arrays.append((name, weight, tensor))
        if layer.name == head and _classes(arrays, 1) != _classes(arrays, 2):
            warn_user(
                f"The classifier of {model.name!r}, of {_classes(arrays, 1)} "
                f"classes, keeps its random weights: {source} has "
                f"{_classes(arrays, 2)} classes. All other weights are loaded."
            )
            continue
        for name, weight, tensor in arrays:
            if tensor.shape != tuple(weight.shape):
                raise ValueError(
                    f"The tensor {name!r} of {source} must have the shape "
                    f"{tuple(weight.shape)} (after it is transposed), for the "
                    f"layer {layer.name!r} of {model.name!r}. "
                    f"Received: {tensor.shape}."
                )
            values.append((weight, tensor))
    headless = all(layer.name != head for layer in model.layers)
    if headless:
        for weight in ("kernel", "bias"):
            unused.pop(tensor_name(head, weight), None)
    if unused:
        names = sorted(unused)
        raise ValueError(
            f"{source} must hold the weights of {model.name!r} alone. "
            f"Received: {len(names)} more tensors, {names[:5]}"
            f"{' ...' if len(names) > 5 else ''}."
        )
    for weight, tensor in values:
        weight.assign(tensor)


def _classes(arrays, place):
    """Number of classes of a dense layer: 1 for ours, 2 for the tensors."""
    return tuple(array[place].shape[-1] for array in arrays)[-1]
