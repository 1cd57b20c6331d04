"""Differentiable calls of the compiled kernel by Keras' backend.

A call has operands, float32 or bfloat16, and attributes: integers, tuples of
integers or strings by name. The shapes of its results are tuples of integers
and, where TensorFlow traces unknown sizes, of `DynamicDimension`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from keras_sasa import _derivatives
from keras_sasa.kernels import jax_call, tensorflow_call
from keras_sasa.kernels.dimensions import Spec, dimension, spec_of
from keras_sasa.kernels.saved_model_warning import warn_of_kernel_calls


def with_gradient(
    operands: list[Any],
    *,
    forward: str,
    backward: str,
    results: Callable,
    attributes: Mapping[str, Any],
    recompute: Callable,
):
    """Makes a call whose gradient is another call.

    Args:
        operands: List of tensors.
        forward: Target of the call. Its first result is the output, further
            results are kept for the gradient.
        backward: Target of the call that takes the operands, the gradient of
            the output and the kept results, and returns the gradients of the
            operands.
        results: Function from the shapes of the operands to the `Spec`s of
            the results of `forward`. A gradient has shape and type of its
            operand.
        attributes: Attributes of both calls.
        recompute: Function of the operands that computes the output with
            operations of the backend. It provides all other derivatives.

    Returns:
        The output.
    """
    attributes = tuple(attributes.items())

    def compute(*operands):
        shapes = [tuple(operand.shape) for operand in operands]
        output, *kept = _call(forward, operands, results(shapes), attributes)
        return [output], kept

    def portable(*operands):
        return [recompute(*operands)]

    def gradient(operands, outputs, kept, upstreams):
        warn_of_kernel_calls()
        shapes = [tuple(operand.shape) for operand in operands]
        gradients = [
            Spec(
                tuple(
                    dimension(shapes, number, axis)
                    for axis in range(len(operand.shape))
                ),
                spec_of(operand).dtype,
            )
            for number, operand in enumerate(operands)
        ]

        def compute(*arguments):
            return _call(backward, arguments, gradients, attributes), []

        def first(*arguments):
            operands = arguments[: len(shapes)]
            upstream = arguments[len(shapes)]
            return _derivatives.backpropagate(portable, operands, [upstream])

        # The gradients of the operands account for the kept results.
        constants = map(ops.stop_gradient, kept)
        return _derivatives.call(
            [*operands, *upstreams, *constants], compute, first
        )

    return _derivatives.call(operands, compute, portable, gradient)[0]


def with_recomputed_gradient(
    operands: list[Any],
    *,
    forward: str,
    results: Callable,
    attributes: Mapping[str, Any],
    recompute: Callable,
):
    """Makes a call of one result, with the derivatives of `recompute`.

    Args:
        operands: List of tensors.
        forward: Target of the call.
        results: As in `with_gradient`.
        attributes: Attributes of the call.
        recompute: Function of the operands that computes the output and can be
            differentiated.

    Returns:
        The output.
    """

    def compute(*operands):
        shapes = [tuple(operand.shape) for operand in operands]
        return _call(
            forward, operands, results(shapes), tuple(attributes.items())
        ), []

    def portable(*operands):
        return [recompute(*operands)]

    def gradient(operands, outputs, kept, upstreams):
        warn_of_kernel_calls()
        return _derivatives.backpropagate(portable, operands, upstreams)

    return _derivatives.call(operands, compute, portable, gradient)[0]


def _call(target, operands, results, attributes):
    """Makes one call, without derivatives. Returns its results as a list."""
    call = {"tensorflow": tensorflow_call.call, "jax": jax_call.call}
    return list(
        call[keras.backend.backend()](target, operands, results, attributes)
    )
