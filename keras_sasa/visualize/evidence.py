"""Where in an image the evidence for each class is."""

import keras
import numpy as np
from keras import layers

from keras_sasa._keras_graphs import call_of, has_graph, run_calls
from keras_sasa.visualize.model_inputs import (
    first_argument,
    in_parts,
    to_numpy,
)

# What may stand behind the classifier: its input is the logit.
_ACTIVATIONS = (layers.Activation, layers.Softmax)


def class_evidence(model, images):
    """Computes the class activation maps of a classifier.

    In a network that ends in the mean over all places of a map and a dense
    layer, the logit of class c is a mean over places too, exactly:

    ```
    logit_c = bias_c + mean over (i, j) of evidence_ij,c
    evidence_ij,c = sum over channels f of map_ij,f * kernel_f,c
    ```

    A place can be for a class (above 0) or against it. Differences between
    classes say more than one class: a softmax does not see what all share.

    Args:
        model: A functional or sequential `keras.Model` with one output, that
            ends in `GlobalAveragePooling2D` and `Dense`, for instance any
            `keras_sasa.applications.ResNet`. A dropout between the two, an
            activation behind them, and a model around them are allowed.
        images: What the model takes; any number, a few are computed at a time.

    Returns:
        A float32 array `(batch, height, width, classes)`, with the height and
        width of the map that is pooled, whatever the data format.

    Raises:
        ValueError: If the model ends in something else.

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
        [Zhou et al., 2016](https://arxiv.org/abs/1512.04150), section 2. Their
        map has no 1 / (height * width); ours has, so that its mean, not its
        sum, is the logit.
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
        raise ValueError(
            "`model` must have one output and end in `GlobalAveragePooling2D` "
            "and `Dense`; only then is a logit a mean over places. Received: "
            f"model={model.name!r} with {len(model.outputs)} outputs, which "
            f"ends in {[type(layer).__name__ for layer in model.layers[-3:]]}."
        )
    ((_, arguments, options),) = run_calls(model, inputs, [before])
    features = to_numpy(first_argument(arguments, options))
    if before.operation.data_format == "channels_first":
        features = np.moveaxis(features, 1, -1)
    return features @ to_numpy(end.operation.kernel)


def _skip(tensors, kinds):
    """Returns the last call before tensors that is none of `kinds`."""
    call = call_of(tensors[0])
    while isinstance(call.operation, kinds):
        call = call_of(call.input_tensors[0])
    return call
