"""The profile of a model."""

import operator
from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from keras_sasa.profile.report import Profile
from keras_sasa.profile.timing import milliseconds
from keras_sasa.profile.walk import Walk, trace


def profile(
    model: keras.Model,
    input_shape: Sequence[Any] | None = None,
    repeats: int = 0,
) -> Profile:
    """Counts the parameters and FLOPs of a model for one image, and times it.

    Functional and sequential models, including nested ones, are walked call by
    call. A subclassed model, or a layer that contains layers, is traced: its
    `call` is called on symbolic tensors. The documentation of
    `keras_sasa.profile` lists the costs of all operations.

    Args:
        model: A built `keras.Model`.
        input_shape: Shape of the input without the batch. Must be passed if
            the model is subclassed or leaves sizes open. It may differ from
            the model's own shape where its layers allow it. For several
            inputs, a list of shapes.
        repeats: Integer, how often each layer on its own and the whole model
            are timed; 0 for no times. Each is compiled as a graph and called
            on random tensors.

    Returns:
        A `Profile`. `uncounted` lists layers whose FLOPs are unknown; their
        parameters are counted.

    Raises:
        ValueError: If input sizes are unknown or do not fit the model, the
            model is not built or cannot be traced, or `repeats` is not an
            integer of at least 0.

    Example:

    >>> import keras
    >>> from keras_sasa import SelfAttention2D
    >>> from keras_sasa.profile import profile
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     SelfAttention2D(16, kernel_size=7, num_heads=2, name="attention"),
    ...     keras.layers.ReLU(name="relu"),
    ... ])
    >>> print(profile(model))
    layer      class            output    parameters      FLOPs  separable
    attention  SelfAttention2D  32x32x16         256  5,212,160  4,036,608
    relu       ReLU             32x32x16           0     16,384     16,384
    total                                        256  5,228,544  4,052,992
    256 of the parameters are trained
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "`model` must be a built `keras.Model`: call it or its `build` "
            f"first. Received: model={model!r}."
        )
    if not isinstance(repeats, int) or repeats < 0:
        raise ValueError(
            "`repeats` must be an integer of at least 0. "
            f"Received: repeats={repeats!r}."
        )
    inputs = _symbolic_inputs(model, input_shape)
    call_inputs = inputs[0] if len(inputs) == 1 else inputs
    walk = Walk(repeats)
    if not isinstance(model, (keras.Function, keras.Sequential)):
        try:
            graph = trace(model, (call_inputs,), {})
        except Exception as error:
            # The error of a user's `call` does not mention the attempt.
            raise ValueError(
                "A subclassed model must have a `call` that runs on symbolic "
                "tensors; build a functional model of its layers instead. "
                f"Received: model={model!r}, which failed with: {error}"
            ) from error
        walk.run(graph, "", inputs)
    else:
        walk.visit(model, "", call_inputs)
    walk.add_rest(model, model.name)
    whole = None
    if repeats:
        # Inputs of a model that was made with a dict must be a dict.
        structure = getattr(model, "input", call_inputs)
        timed = tree.pack_sequence_as(structure, inputs)
        whole = milliseconds(model, (timed,), {}, repeats)
    return Profile(tuple(walk.rows), whole)


def _symbolic_inputs(model, input_shape) -> list[keras.KerasTensor]:
    """Returns the inputs for one image, with all sizes known."""
    declared = getattr(model, "inputs", None)
    if input_shape is None:
        shapes = [tensor.shape[1:] for tensor in declared or ()]
    else:
        shapes = _given_shapes(input_shape)
    unknown = [
        f"axis {axis} of input {number}"
        for number, shape in enumerate(shapes)
        for axis, size in enumerate(shape, start=1)
        if size is None or size < 1
    ]
    if unknown or not shapes:
        raise ValueError(
            "FLOPs depend on the input size: `input_shape` (without the batch) "
            "must give positive integers for all sizes that the model leaves "
            f"open. Unknown: {', '.join(unknown) or 'the whole input'} of "
            f"model {model.name!r}. Received: input_shape={input_shape}."
        )
    if declared and [len(shape) for shape in shapes] != [
        len(tensor.shape) - 1 for tensor in declared
    ]:
        expected = [tuple(tensor.shape[1:]) for tensor in declared]
        raise ValueError(
            "`input_shape` (without the batch) must have the axes of the "
            f"inputs of model {model.name!r}, {expected}. "
            f"Received: input_shape={input_shape}."
        )
    kinds = [tensor.dtype for tensor in declared or ()]
    kinds = kinds or ["float32"] * len(shapes)
    return [
        keras.KerasTensor((1, *shape), dtype=dtype)
        for shape, dtype in zip(shapes, kinds, strict=True)
    ]


def _given_shapes(input_shape):
    """Returns a list of shapes, also for a single shape."""
    try:
        shapes = list(input_shape)
        if not any(isinstance(shape, (list, tuple)) for shape in shapes):
            shapes = [shapes]
        return [
            [None if size is None else operator.index(size) for size in shape]
            for shape in shapes
        ]
    except TypeError as error:
        raise ValueError(
            "`input_shape` must be a shape of integers without the batch, or "
            "a list of such shapes, one for each input. "
            f"Received: input_shape={input_shape!r}."
        ) from error
