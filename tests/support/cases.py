"""The table of cases that every way to compute local attention must pass.

`reference` gives, for a case, what the pixel loops of `oracle.py` say.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sasa.layers import SelfAttention2D
from tests.support import oracle

DEFAULTS = {"filters": 8, "num_heads": 2, "kernel_size": 3}


@dataclasses.dataclass(frozen=True)
class Case:
    """One layer and the images it sees.

    Attributes:
        height: Rows of the images.
        width: Columns of the images.
        arguments: Of the layer, where they differ from `DEFAULTS`.
        channels: Channels of the images.
        batch: Number of images.
        mask: Kind of mask, one of `MASKS`, or `None`.
        compiled: Whether the slow tests, that compile, take the case as well.
    """

    height: int
    width: int
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    channels: int = 5
    batch: int = 2
    mask: str | None = None
    compiled: bool = False

    @property
    def layer_arguments(self):
        return {**DEFAULTS, **self.arguments}

    @property
    def channels_first(self):
        return self.arguments.get("data_format") == "channels_first"

    @property
    def input_shape(self):
        if self.channels_first:
            return (self.batch, self.channels, self.height, self.width)
        return (self.batch, self.height, self.width, self.channels)

    def make_layer(self, implementation=None, dtype="float64", **options):
        """A built layer with the weights of `make_weights`."""
        layer = SelfAttention2D(
            **{**self.layer_arguments, **options},
            implementation=implementation,
            dtype=dtype,
        )
        layer.build(self.input_shape)
        weights = self.make_weights()
        assert set(weights) == {weight.name for weight in layer.weights}
        for weight in layer.weights:
            weight.assign(weights[weight.name])
        return layer

    def make_inputs(self):
        return np.random.default_rng(1).normal(size=self.input_shape)

    def make_mask(self):
        if self.mask is None:
            return None
        return MASKS[self.mask](self.batch, self.height, self.width)

    def make_weights(self):
        """All weights by name; biases are not zero."""
        random = np.random.default_rng(2)
        arguments = self.layer_arguments
        filters, heads = arguments["filters"], arguments["num_heads"]
        parts = ["query", "key", "value"]
        if not arguments.get("use_content", True):
            parts.remove("key")
        shapes = {f"{part}_kernel": (self.channels, filters) for part in parts}
        if arguments.get("use_bias", False):
            shapes.update((f"{part}_bias", (filters,)) for part in parts)
        if arguments.get("position_encoding", "relative") == "relative":
            half = filters // heads // 2
            height, width = _pair(arguments["kernel_size"])
            shapes["row_embedding"] = (height, heads, half)
            shapes["column_embedding"] = (width, heads, half)
        return {
            name: random.normal(scale=0.5, size=shape)
            for name, shape in shapes.items()
        }

    def oracle(self, arrays):
        """Outputs and scores of `oracle.self_attention_2d`.

        Args:
            arrays: `inputs` and all weights by name.
        """
        weights = dict(arrays)
        inputs = weights.pop("inputs")
        arguments = self.layer_arguments
        for name in ("filters", "use_bias", "use_content"):
            # The oracle knows them from the weights that are there.
            arguments.pop(name, None)
        return oracle.self_attention_2d(
            inputs, weights, mask=self.make_mask(), **arguments
        )


def _pair(value):
    return (value, value) if isinstance(value, int) else value


def _random_mask(batch, height, width):
    return np.random.default_rng(3).random((batch, height, width)) < 0.6


def _image_mask(batch, height, width):
    """All of the last image is masked, and a pixel of the others."""
    mask = np.ones((batch, height, width), bool)
    mask[-1] = False
    mask[:, height // 2, width // 2] = False
    return mask


def _neighbourhood_mask(batch, height, width):
    """The 5 x 5 pixels at the top left, whole windows of 3 x 3."""
    mask = np.ones((batch, height, width), bool)
    mask[:, :5, :5] = False
    return mask


MASKS = {
    "random": _random_mask,
    "image": _image_mask,
    "neighbourhood": _neighbourhood_mask,
}

CASES = {
    "default": Case(6, 6, compiled=True),
    "odd_sizes": Case(7, 5),
    "window_5": Case(8, 7, {"kernel_size": 5}),
    "window_larger_than_image": Case(3, 2, {"kernel_size": 7}, compiled=True),
    "one_pixel": Case(1, 1, compiled=True),
    "one_pixel_window_1": Case(1, 1, {"kernel_size": 1}),
    "one_row": Case(1, 6),
    "one_column": Case(6, 1),
    "one_head": Case(5, 6, {"num_heads": 1}),
    "one_image": Case(5, 4, batch=1),
    "one_channel": Case(4, 5, channels=1),
    "narrow_heads": Case(5, 5, {"filters": 6, "num_heads": 3}),
    "rectangular_window": Case(7, 6, {"kernel_size": (3, 5)}, compiled=True),
    "flat_window": Case(4, 7, {"kernel_size": (1, 5)}),
    "tall_window": Case(7, 4, {"kernel_size": (5, 1)}),
    "window_1": Case(5, 6, {"kernel_size": 1}, compiled=True),
    "rectangular_map": Case(3, 13),
    # Strides.
    "strides_even_map": Case(6, 8, {"strides": 2}, compiled=True),
    "strides_odd_map": Case(7, 5, {"strides": 2}, compiled=True),
    "strides_even_odd_map": Case(6, 7, {"strides": 2}),
    "strides_2_3_even_map": Case(6, 8, {"strides": (2, 3)}),
    "strides_2_3_odd_map": Case(7, 11, {"strides": (2, 3)}),
    "strides_window_1": Case(5, 6, {"strides": 2, "kernel_size": 1}),
    "strides_wider_than_window": Case(
        8, 7, {"strides": (4, 3), "kernel_size": (3, 1)}
    ),
    "strides_wider_than_map": Case(2, 3, {"strides": 4}),
    "strides_window_5": Case(9, 10, {"strides": 2, "kernel_size": 5}),
    # Dilation.
    "dilation_even_map": Case(6, 8, {"dilation_rate": 2}),
    "dilation_odd_map": Case(7, 9, {"dilation_rate": 2}, compiled=True),
    "dilation_2_3": Case(7, 8, {"dilation_rate": (2, 3)}),
    "dilation_one_axis": Case(6, 7, {"dilation_rate": (1, 2)}),
    "dilation_wider_than_map": Case(3, 4, {"dilation_rate": 5}),
    # Padding "valid".
    "valid": Case(5, 6, {"padding": "valid"}, compiled=True),
    "valid_one_window": Case(3, 3, {"padding": "valid"}),
    "valid_rectangular": Case(
        6, 8, {"padding": "valid", "kernel_size": (3, 5)}
    ),
    "valid_strides": Case(6, 8, {"padding": "valid", "strides": 2}),
    "valid_strides_2_3": Case(
        9, 7, {"padding": "valid", "strides": (2, 3)}, compiled=True
    ),
    "valid_dilation": Case(7, 9, {"padding": "valid", "dilation_rate": 2}),
    "valid_dilation_2_3": Case(
        6, 8, {"padding": "valid", "dilation_rate": (2, 3)}
    ),
    # Masks.
    "mask": Case(5, 6, mask="random", compiled=True),
    "mask_image": Case(4, 5, mask="image"),
    "mask_neighbourhood": Case(7, 6, mask="neighbourhood", compiled=True),
    "mask_strides": Case(7, 6, {"strides": 2}, mask="random"),
    "mask_dilation": Case(7, 8, {"dilation_rate": (2, 3)}, mask="random"),
    "mask_valid": Case(6, 7, {"padding": "valid"}, mask="neighbourhood"),
    "mask_bias": Case(7, 6, {"use_bias": True}, mask="neighbourhood"),
    "mask_channels_first": Case(
        4, 6, {"data_format": "channels_first"}, mask="random"
    ),
    "mask_position_only": Case(
        7, 6, {"use_content": False}, mask="neighbourhood"
    ),
    "mask_no_position": Case(
        6, 7, {"position_encoding": None}, mask="neighbourhood"
    ),
    "mask_window_1": Case(4, 4, {"kernel_size": 1}, mask="random"),
    # Other arguments.
    "channels_first": Case(
        4, 6, {"data_format": "channels_first"}, compiled=True
    ),
    "channels_first_strides": Case(
        7, 6, {"data_format": "channels_first", "strides": (2, 1)}
    ),
    "bias": Case(5, 6, {"use_bias": True}),
    "bias_strides": Case(5, 6, {"use_bias": True, "strides": 2}, compiled=True),
    "no_position": Case(5, 6, {"position_encoding": None}, compiled=True),
    "no_position_strides": Case(
        5, 6, {"position_encoding": None, "strides": 2}
    ),
    "no_position_odd_heads": Case(
        5, 6, {"position_encoding": None, "filters": 6, "num_heads": 2}
    ),
    "absolute": Case(5, 6, {"position_encoding": "absolute"}, compiled=True),
    "absolute_strides": Case(
        6, 7, {"position_encoding": "absolute", "strides": 2}
    ),
    "absolute_one_channel": Case(
        4, 5, {"position_encoding": "absolute"}, channels=1
    ),
    "absolute_channels_first": Case(
        4,
        6,
        {"position_encoding": "absolute", "data_format": "channels_first"},
        channels=6,
    ),
    "position_only": Case(5, 6, {"use_content": False}, compiled=True),
    "position_only_bias_strides": Case(
        5, 7, {"use_content": False, "use_bias": True, "strides": 2}
    ),
    # Maps of many tiles, and of several bands of the tiled computation.
    "many_bands": Case(37, 9, batch=1, compiled=True),
    "many_bands_last_half_empty": Case(33, 3, batch=2, compiled=True),
    "many_bands_strides": Case(69, 3, {"strides": 2}, batch=1),
    "many_bands_strides_3": Case(100, 4, {"strides": (3, 1)}, batch=1),
    "many_bands_dilation": Case(75, 3, {"dilation_rate": 2}, batch=1),
    "many_bands_valid": Case(39, 5, {"padding": "valid"}, batch=1),
    "many_bands_mask": Case(37, 6, batch=1, mask="random", compiled=True),
    "many_bands_position_only": Case(
        37, 4, {"use_content": False}, batch=1, mask="neighbourhood"
    ),
    "many_bands_window_1": Case(37, 3, {"kernel_size": 1}, batch=1),
    "many_tiles_across": Case(3, 37, batch=1),
    "window_larger_than_tile": Case(37, 3, {"kernel_size": (9, 3)}, batch=1),
    "window_larger_than_tile_across": Case(
        3, 37, {"kernel_size": (3, 9)}, batch=1
    ),
    "window_larger_than_tile_strides": Case(
        70, 2, {"kernel_size": (11, 3), "strides": (2, 1)}, batch=1
    ),
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the oracle says of a case.

    Attributes:
        outputs: The output of the layer.
        scores: Its attention scores.
        directions: By array (the inputs, each weight), a direction to move in.
        changes: By array, the derivatives of outputs and scores along it, by
            central differences.
    """

    outputs: np.ndarray
    scores: np.ndarray
    directions: dict[str, np.ndarray]
    changes: dict[str, tuple[np.ndarray, np.ndarray]]

    def cotangents(self):
        """Random gradients of a loss by outputs and by scores."""
        random = np.random.default_rng(4)
        return (
            random.normal(size=self.outputs.shape),
            random.normal(size=self.scores.shape),
        )

    def check_gradients(self, gradients, *cotangents, rtol=1e-6, atol=1e-8):
        """Asserts that gradients agree with the central differences.

        Args:
            gradients: By array, for the loss that `cotangents` describe.
            *cotangents: Of the outputs, and perhaps of the scores.
            rtol: Tolerance, relative to the derivative.
            atol: Tolerance.
        """
        assert set(gradients) == set(self.directions)
        for name, direction in self.directions.items():
            assert gradients[name].shape == direction.shape, name
            expected = sum(
                np.sum(cotangent * part)
                for cotangent, part in zip(
                    cotangents, self.changes[name], strict=False
                )
            )
            np.testing.assert_allclose(
                np.sum(gradients[name] * direction),
                expected,
                rtol=rtol,
                atol=atol,
                err_msg=f"gradient of {name}",
            )


@functools.cache
def reference(name):
    """The `Reference` of the case of this name, computed once."""
    case = CASES[name]
    arrays = {"inputs": case.make_inputs(), **case.make_weights()}
    outputs, scores = case.oracle(arrays)
    directions, changes = central_differences(case.oracle, arrays)
    return Reference(outputs, scores, directions, changes)


def central_differences(function, arrays, step=1e-5):
    """Derivatives of all that `function(arrays)` returns, along directions.

    Args:
        function: Takes a dict of arrays, returns a tuple of arrays.
        arrays: Dict of float64 arrays.
        step: Length of the step to either side.

    Returns:
        By array, a random direction of length 1 and the derivatives along it.
    """
    random = np.random.default_rng(5)
    directions, changes = {}, {}
    for name, array in arrays.items():
        direction = random.normal(size=array.shape)
        direction /= np.linalg.norm(direction)
        above = function({**arrays, name: array + step * direction})
        below = function({**arrays, name: array - step * direction})
        directions[name] = direction
        changes[name] = tuple(
            (more - less) / (2 * step)
            for more, less in zip(above, below, strict=True)
        )
    return directions, changes
