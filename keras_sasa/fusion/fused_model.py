"""A functional model that fuses layers while it predicts."""

import functools

import keras

from keras_sasa._keras_graphs import call_with, in_training
from keras_sasa.fusion.attention_chains import (
    epilogues_of,
    find_attention_chains,
)
from keras_sasa.ops.exporters import exporting


@keras.saving.register_keras_serializable(package="keras_sasa")
class FusedModel(keras.Model):
    """A functional model whose predictions take fewer steps.

    In inference mode, attention computes the layers behind it in the same call:
    a 2x2 average (`AveragePooling2D` with `padding="same"`), a
    `BatchNormalization` and a `ReLU`. The model has the same layers, weights,
    names and results as a `keras.Model` of the same inputs and outputs. Where
    one of these layers is called elsewhere, has another consumer, a mask or
    unusual options, each computes its own step, as they do in training and in
    exported files.

    All networks of `keras_sasa.applications` and `RetinaNet` are models of this
    class.

    Args:
        inputs: As for a functional `keras.Model`.
        outputs: As for a functional `keras.Model`.
        name: String, name of the model.

    Example:

    >>> import keras
    >>> from keras_sasa import SelfAttention2D
    >>> from keras_sasa.fusion import FusedModel
    >>> inputs = keras.Input((8, 8, 4))
    >>> x = SelfAttention2D(8, 3, num_heads=2)(inputs)
    >>> x = keras.layers.BatchNormalization()(x)
    >>> model = FusedModel(inputs, keras.layers.ReLU()(x))
    >>> model.output_shape
    (None, 8, 8, 8)
    """

    def call(self, inputs, training=None, mask=None, **kwargs):
        if in_training(training) or mask is not None or kwargs or exporting():
            return super().call(inputs, training=training, mask=mask, **kwargs)
        functions = dict(self._identities)
        epilogues = epilogues_of(self._chains)
        for chain, epilogue in zip(self._chains, epilogues, strict=True):
            functions[id(chain.attention)] = functools.partial(
                chain.call, epilogue=epilogue
            )
        return call_with(self, inputs, training, functions)

    @functools.cached_property
    def _chains(self):
        return find_attention_chains(self)

    @functools.cached_property
    def _identities(self):
        """Functions for the layers that attention computes, by identity."""
        return {
            id(layer): _identity
            for chain in self._chains
            for layer in chain.members[1:]
        }


def _identity(inputs, **options):
    return inputs


# Files of the legacy format HDF5 contain the name of the class alone.
keras.saving.get_custom_objects()[FusedModel.__name__] = FusedModel
