"""A layer and the images it sees, for tests against a loop over pixels."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tests.support.cases import Reference, central_differences


@dataclasses.dataclass(frozen=True)
class LayerCase(abc.ABC):
    """One layer and the size of the images it sees.

    Attributes:
        height: Of the images.
        width: Of the images.
        arguments: Of the layer, in the place of its `defaults`.
        channels: Of the images.
        batch: Number of images.
    """

    height: int
    width: int
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    channels: int = 3
    batch: int = 2

    layer_class = None
    defaults = {}

    @abc.abstractmethod
    def oracle(self, arrays):
        """Outputs and scores, of `inputs` and all weights by name."""

    @property
    def layer_arguments(self):
        return {**self.defaults, **self.arguments}

    @property
    def input_shape(self):
        if self.arguments.get("data_format") == "channels_first":
            return self.batch, self.channels, self.height, self.width
        return self.batch, self.height, self.width, self.channels

    def make_layer(self, dtype="float64", **options):
        """A built layer with random weights."""
        layer = self.layer_class(
            **{**self.layer_arguments, **options}, dtype=dtype
        )
        layer.build(self.input_shape)
        random = np.random.default_rng(2)
        for weight in layer.weights:
            weight.assign(random.normal(scale=0.5, size=weight.shape))
        return layer

    def make_inputs(self):
        return np.random.default_rng(1).normal(size=self.input_shape)

    def reference(self):
        """The `Reference` of the case."""
        arrays = {
            "inputs": self.make_inputs(),
            **{
                weight.name: keras.ops.convert_to_numpy(weight)
                for weight in self.make_layer().weights
            },
        }
        outputs, scores = self.oracle(arrays)
        return Reference(
            outputs, scores, *central_differences(self.oracle, arrays)
        )
