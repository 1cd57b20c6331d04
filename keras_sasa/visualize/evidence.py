"""Class activation maps: the evidence for each class, place by place."""

from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sasa._keras_graphs import call_of, has_graph, run_calls
from keras_sasa.visualize.model_inputs import (
    first_argument,
    in_parts,
    to_numpy,
)

# May follow the classifier; their input is the logit.
_ACTIVATIONS = (layers.Activation, layers.Softmax)


def class_evidence(model: keras.Model, images: Any) -> np.ndarray:
    """Computes the class activation maps of a classifier.

    If a network ends in the mean over all places of a map and a dense layer,
    then the logit of class c is exactly a mean over places as well:

    ```
    logit_c = bias_c + mean over (i, j) of evidence_ij,c
    evidence_ij,c = sum over channels f of map_ij,f * kernel_f,c
    ```

    A place can support a class (above 0) or oppose it. Differences between
    classes are more informative than a single class, because a softmax ignores
    the evidence that all classes share.

    Args:
        model: A functional or sequential `keras.Model` with one output that
            ends in `GlobalAveragePooling2D` and `Dense`, for instance any
            `keras_sasa.applications.ResNet`. A dropout between the two, an
            activation after them and a model around them are allowed.
        images: Inputs of the model. A few images are computed at a time, so
            their number is not limited by memory.

    Returns:
        A float32 array `(batch, height, width, classes)`, with the height and
        width of the pooled map, in either data format.

    Raises:
        ValueError: If the model ends in other layers.

    Example:

    >>> import numpy as np
    >>> from keras_sasa.applications import ResNet
    >>> from keras_sasa.visualize import class_evidence
    >>> model = ResNet((1, 1), stem="small", input_shape=(16, 16, 3),
    ...                width_multiplier=0.25, classes=10,
    ...                classifier_activation=None)
    >>> images = np.random.uniform(size=(2, 16, 16, 3)).astype("float32")
    >>> evidence = class_evidence(model, images)
    >>> evidence.shape
    (2, 8, 8, 10)
    >>> logits = evidence.mean((1, 2)) + np.array(model.layers[-1].bias)
    >>> bool(np.allclose(logits, model.predict(images, verbose=0), atol=1e-5))
    True

    Reference:
        [Zhou et al., 2016](https://arxiv.org/abs/1512.04150), section 2. In
        their definition the sum of the map is the logit, in ours the mean.
    """
    return np.concatenate(
        [_evidence(model, part) for part in in_parts(model, images)]
    )


def _evidence(model, inputs):
    end = _skip(model.outputs, _ACTIVATIONS)
    if (
        isinstance(end.operation, keras.Model)
        and has_graph(end.operation)
        and len(model.outputs) == 1
    ):
        ((_, arguments, options),) = run_calls(model, inputs, [end])
        return _evidence(end.operation, first_argument(arguments, options))
    before = (
        _skip(end.input_tensors, layers.Dropout) if end.input_tensors else end
    )
    if (
        len(model.outputs) != 1
        or not isinstance(end.operation, layers.Dense)
        or not isinstance(before.operation, layers.GlobalAveragePooling2D)
    ):
        ends = [type(layer).__name__ for layer in model.layers[-3:]]
        raise ValueError(
            "`model` must have one output and end in `GlobalAveragePooling2D` "
            "and `Dense`; otherwise no logit is a mean over places. Received: "
            f"model={model.name!r} with {len(model.outputs)} outputs and the "
            f"last layers {ends}."
        )
    ((_, arguments, options),) = run_calls(model, inputs, [before])
    features = to_numpy(first_argument(arguments, options))
    if before.operation.data_format == "channels_first":
        features = np.moveaxis(features, 1, -1)
    return features @ to_numpy(end.operation.kernel)


def _skip(tensors, kinds):
    """Returns the last call before tensors that is not of these kinds."""
    call = call_of(tensors[0])
    while isinstance(call.operation, kinds):
        call = call_of(call.input_tensors[0])
    return call
