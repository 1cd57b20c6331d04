"""Compiles models by a recipe."""

import keras

from keras_sasa._keras_graphs import all_layers
from keras_sasa.training.engine.devices import Devices
from keras_sasa.training.engine.recipe import Recipe


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    steps_per_epoch: int,
    devices: Devices,
    **options,
) -> None:
    """Compiles a model with the optimizer of a recipe.

    Args:
        model: A `keras.Model`, built in the scope of `devices`.
        recipe: A `Recipe`.
        steps_per_epoch: Integer.
        devices: A `Devices`.
        **options: Passed to `keras.Model.compile`, such as the loss.
    """
    for layer in batch_normalizations(model):
        layer.momentum = recipe.limit_batch_norm_momentum(steps_per_epoch)
        # `keras.distribution` computes means over the whole batch anyway.
        layer.synchronized = devices.strategy is not None
    optimizer = recipe.make_optimizer(steps_per_epoch)
    if model.dtype_policy.name == "mixed_float16":
        # Keras would wrap it, too, but not record it in the file of the model,
        # which could then be loaded under this global policy only.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, **options)
    # Otherwise the first step is traced twice, once to create the variables.
    model.optimizer.build(model.trainable_variables)


def batch_normalizations(
    model: keras.Model,
) -> list[keras.layers.BatchNormalization]:
    """Returns all batch normalizations of a model."""
    return [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
