"""Attention in the place of the convolutions of a model that exists."""

import dataclasses
import re
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_sasa._keras_graphs import (
    all_layers,
    call_of,
    check_graph,
    has_graph,
)
from keras_sasa._text_tables import align
from keras_sasa.layers import SelfAttention2D
from keras_sasa.profile import Profile, Row, profile

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)

# Attributes of a convolution that are arguments of attention. Not `trainable`:
# attention starts with new weights, which are to be trained.
SHARED_ARGUMENTS = (
    "name",
    "strides",
    "dilation_rate",
    "data_format",
    "activation",
    "use_bias",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion changed; printing it gives a table.

    Args:
        before: `Profile` of the model with convolutions.
        after: `Profile` of the model with attention in their place.
    """

    before: Profile
    after: Profile

    @property
    def replaced(self) -> tuple[str, ...]:
        """Names of the replaced layers, behind those of models around them."""
        attention = SelfAttention2D.__name__
        names = {row.name for row in self.after.rows if row.layer == attention}
        return tuple(
            dict.fromkeys(
                row.name
                for row in self.before.rows
                if row.name in names and row.layer != attention
            )
        )

    def __str__(self) -> str:
        lines = [
            ("layer", "was", "output", "parameters", "now", "FLOPs", "now")
            + ("separable",)
        ]
        for name in self.replaced:
            before = _rows(self.before, name)
            after = _rows(self.after, name)
            shape = "x".join(map(str, before.rows[0].output_shape))
            lines.append(
                (name, before.rows[0].layer, shape, *_counts(before, after))
            )
        lines.append(("model", "", "", *_counts(self.before, self.after)))
        lines.append(("change", "", "", *self._changes()))
        text = align(lines, text_columns=3)
        uncounted = dict.fromkeys(self.before.uncounted + self.after.uncounted)
        if uncounted:
            text.append(f"FLOPs not counted: {', '.join(uncounted)}")
        return "\n".join(text)

    def _changes(self):
        before, after = self.before, self.after
        return (
            "",
            _change(before.parameters, after.parameters),
            "",
            _change(before.flops, after.flops),
            _change(before.flops_separable, after.flops_separable),
        )


def replace_convolutions(
    model: keras.Model,
    pattern: str | re.Pattern[str],
    kernel_size: int | Sequence[int] = 7,
    num_heads: int = 8,
    input_shape: Sequence[Any] | None = None,
) -> tuple[keras.Model, Conversion]:
    """Clones a model with `SelfAttention2D` in the place of convolutions.

    Every `Conv2D`, `DepthwiseConv2D` or `SeparableConv2D` whose name fits
    `pattern` is replaced, in models inside the model, too. 1x1 convolutions
    always stay, and so do those of classes derived from the three.

    Attention takes over the name, strides, dilation, dtype, activation,
    initializers, regularizers, and whether there is a bias. All channels of
    the input are seen, even where the convolution was in groups or depthwise.

    Padding "same" stays. A "valid" convolution of an image that was padded to
    the "same" size by a `ZeroPadding2D` gets "same" attention to the image
    without that padding, since pixels outside the image take no part in
    attention. Other "valid" convolutions can only be replaced with their own
    kernel size.

    The layers that stay keep their weights, in copies: `model` does not change.
    Attention starts with new weights, trainable also where the convolution was
    frozen. A compiled model is compiled again, with a new optimizer; where that
    cannot be done, a warning says why, and the clone is not compiled.

    Args:
        model: A functional or a built sequential `keras.Model`. A model of a
            class derived from those becomes a plain one, not compiled.
        pattern: Regular expression, a string or compiled, that `re.search`
            finds in the names of the layers to replace, for instance
            `"conv[45]_block"`.
        kernel_size: Odd integer or pair (height, width), window of attention.
        num_heads: Integer, number of attention heads.
        input_shape: Shape of the input without the batch, for the FLOPs.
            Needed if the model leaves sizes open; see
            `keras_sasa.profile.profile`.

    Returns:
        A pair of the new model and a `Conversion`, which tells what changed in
        parameters and FLOPs.

    Raises:
        ValueError: If the layers of the model are not known without a call,
            `pattern` is no regular expression, no convolution fits it, one
            that does cannot be replaced, or another layer cannot be cloned.

    Example:

    >>> import keras
    >>> from keras_sasa.conversion import replace_convolutions
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(32, 3, padding="same", name="conv1"),
    ...     keras.layers.Conv2D(64, 3, padding="same", name="conv2"),
    ... ])
    >>> attention, report = replace_convolutions(model, "conv2")
    >>> [type(layer).__name__ for layer in attention.layers]
    ['Conv2D', 'SelfAttention2D']
    >>> report.replaced
    ('conv2',)
    """
    check_graph(model)
    expression = _compile_pattern(pattern)
    convolutions = list(_convolutions(model))
    chosen = [layer for layer in convolutions if expression.search(layer.name)]
    if not chosen:
        raise ValueError(
            "`pattern` must be found in the name of at least one spatial "
            f"convolution of {model.name!r}, which are "
            f"{[layer.name for layer in convolutions]}. "
            f"Received: pattern={pattern!r}."
        )
    before = profile(model, input_shape)
    cloner = _Cloner(chosen, kernel_size, num_heads)
    clone = cloner.clone(model)
    cloner.copy_weights()
    if model.compiled:
        _compile(clone, model)
    return clone, Conversion(before, profile(clone, input_shape))


def _compile_pattern(pattern):
    reason = None
    try:
        expression = re.compile(pattern)
        if isinstance(expression.pattern, str):
            return expression
    except (re.error, TypeError) as error:
        reason = error
    raise ValueError(
        "`pattern` must be a regular expression of the names of layers, a "
        f"string or compiled. Received: pattern={pattern!r}"
        + (f" ({reason})." if reason else ".")
    ) from reason


def _compile(clone, model):
    """Compiles a clone as its original was, or warns why it is not."""
    plain = keras.Sequential, type(keras.Model(model.inputs, model.outputs))
    if type(model) not in plain:
        reason = f"a {type(model).__name__} may train in a way of its own"
    else:
        try:
            clone.compile_from_config(model.get_compile_config())
            return
        # Whatever a loss, a metric or an optimizer of the user raises.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    warnings.warn(
        f"The clone of {model.name!r} is not compiled, call its `compile`: "
        f"{reason}.",
        stacklevel=3,
    )


def _convolutions(model):
    """Yields the spatial convolutions, those of inner models included."""
    for layer in model.layers:
        if has_graph(layer):
            yield from _convolutions(layer)
        # Not of a derived class, whose call may do more.
        elif type(layer) in CONVOLUTIONS and max(layer.kernel_size) > 1:
            yield layer


class _Cloner:
    """Clones models, with attention for the chosen convolutions."""

    def __init__(self, chosen, kernel_size, num_heads):
        self._chosen = {id(layer) for layer in chosen}
        self._options = {"kernel_size": kernel_size, "num_heads": num_heads}
        # Keyed by identity, so that shared layers are shared by the clone.
        self._copies = {}
        self._replacements = {}

    def clone(self, model):
        sequential = isinstance(model, keras.Sequential)
        # Of one that was never called, Keras knows no `input`.
        inputs = model.inputs if sequential else model.input
        outputs = model.outputs if sequential else model.output
        # Keras would compile the clone of a compiled model, or fail to.
        graph = keras.Model(inputs, outputs, name=model.name)
        clone = keras.models.clone_model(
            graph,
            # Keras would lose the names of the input layers.
            input_tensors=keras.tree.map_structure(_copy_input, inputs),
            clone_function=self._copy,
            call_function=self._call,
        )
        if sequential:
            clone = keras.Sequential(clone.layers, name=model.name)
        return clone

    def copy_weights(self):
        for operation, copy in self._copies.values():
            # Models have their layers here, functions of Keras no weights.
            if isinstance(operation, keras.layers.Layer) and not has_graph(
                operation
            ):
                copy.set_weights(operation.get_weights())
                for weight, copied in zip(
                    operation.weights, copy.weights, strict=True
                ):
                    # It may be frozen alone, in a layer that is not.
                    if not weight.trainable:
                        copied.trainable = False
                for layer in all_layers(copy):
                    # It computes with constants made of its weights.
                    if isinstance(layer, keras.layers.Normalization):
                        layer.finalize_state()

    def _copy(self, operation):
        if id(operation) in self._chosen:
            # Replaced when called, since its input matters.
            return operation
        if id(operation) not in self._copies:
            if has_graph(operation):
                copy = self.clone(operation)
            else:
                copy = _copy_operation(operation)
            self._copies[id(operation)] = operation, copy
        return self._copies[id(operation)][1]

    def _call(self, operation, *args, **kwargs):
        if id(operation) not in self._chosen:
            return operation(*args, **kwargs)
        return self._attend(operation, *args, **kwargs)

    def _attend(self, convolution, inputs):
        image, padding = inputs, convolution.padding
        if padding == "valid":
            image = _without_padding(convolution, inputs)
            padding = "valid" if image is inputs else "same"
        if id(convolution) not in self._replacements:
            self._replacements[id(convolution)] = self._replacement(
                convolution, padding, image
            )
        attention = self._replacements[id(convolution)]
        if attention.padding != padding:
            raise _cannot_replace(
                convolution,
                "it is called on images that were padded and on others.",
            )
        return attention(image)

    def _replacement(self, convolution, padding, image):
        """Returns the attention layer."""
        # The objects themselves, which need not be serializable.
        arguments = {
            name: getattr(
                convolution,
                name.replace("kernel_", "depthwise_"),
                getattr(convolution, name, None),
            )
            for name in SHARED_ARGUMENTS
        }
        if isinstance(convolution, keras.layers.DepthwiseConv2D):
            axis = -1 if convolution.data_format == "channels_last" else 1
            filters = image.shape[axis] * convolution.depth_multiplier
        else:
            filters = convolution.filters
        try:
            attention = SelfAttention2D(
                filters,
                padding=padding,
                dtype=convolution.dtype_policy,
                **arguments,
                **self._options,
            )
        except ValueError as error:
            raise _cannot_replace(convolution, error) from error
        if (
            padding == "valid"
            and attention.kernel_size != convolution.kernel_size
        ):
            raise _cannot_replace(
                convolution,
                'with its padding "valid" the output keeps its size only with '
                f"kernel_size={convolution.kernel_size}. "
                f"Received: kernel_size={self._options['kernel_size']}.",
            )
        return attention


def _copy_operation(operation):
    try:
        copy = type(operation).from_config(operation.get_config())
    except Exception as error:
        raise ValueError(
            f"Layer {operation.name!r} cannot be cloned by its configuration "
            f"({type(error).__name__}: {error})."
        ) from error
    if isinstance(operation, keras.layers.Layer) and not has_graph(operation):
        try:
            # Before it is called: outputs may be as wide as a vocabulary.
            _copy_assets(operation, copy)
        except Exception as error:
            raise ValueError(
                f"Layer {operation.name!r} cannot be cloned with its state "
                f"({type(error).__name__}: {error})."
            ) from error
    return copy


def _copy_assets(operation, copy):
    """Copies the state of layers that is neither configuration nor weights."""
    layers = [
        [layer for layer in all_layers(whole) if _has_assets(layer)]
        for whole in (operation, copy)
    ]
    for layer, copied in zip(*layers, strict=True):
        variables = {}
        layer.save_own_variables(variables)
        copied.load_own_variables(variables)
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copied.load_assets(folder)
        # Files of Keras have an entry in every line, also one that has two.
        if (
            hasattr(layer, "get_vocabulary")
            and layer.get_vocabulary() != copied.get_vocabulary()
        ):
            raise ValueError("the file of its vocabulary is not the same.")


def _has_assets(layer):
    return hasattr(layer, "save_assets") and hasattr(layer, "load_assets")


def _copy_input(tensor):
    layer = call_of(tensor).operation
    return type(layer).from_config(layer.get_config()).output


def _without_padding(convolution, inputs):
    """Returns the image from before a padding that makes sizes "same".

    If `inputs` were not padded so, it returns them.
    """
    call = call_of(inputs)
    operation = call.operation
    if (
        not isinstance(operation, keras.layers.ZeroPadding2D)
        or operation.data_format != convolution.data_format
    ):
        return inputs
    (image,) = call.input_tensors
    first = 1 if convolution.data_format == "channels_last" else 2
    for size, (before, after), kernel, rate, stride in zip(
        image.shape[first : first + 2],
        operation.padding,
        convolution.kernel_size,
        convolution.dilation_rate,
        convolution.strides,
        strict=True,
    ):
        padded, lost = before + after, rate * (kernel - 1)
        same = padded == lost
        if size is not None:
            same = (size + padded - lost - 1) // stride == (size - 1) // stride
        if not same or before != padded // 2:
            return inputs
    return image


def _cannot_replace(convolution, reason):
    return ValueError(
        f"Convolution {convolution.name!r} cannot be replaced: {reason}"
    )


def _rows(whole: Profile, name: str) -> Profile:
    """Returns the part of a profile that belongs to layers of this name."""
    rows: tuple[Row, ...] = tuple(row for row in whole.rows if row.name == name)
    return Profile(rows)


def _counts(before, after):
    counts = (
        before.parameters,
        after.parameters,
        before.flops,
        after.flops,
        after.flops_separable,
    )
    return tuple(f"{count:,}" for count in counts)


def _change(before, after):
    return f"{after / before - 1:+.1%}" if before else "-"
