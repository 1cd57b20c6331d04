"""Parameters, FLOPs and time of every call of a layer."""

import csv
import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, tree

from keras_sasa._keras_graphs import run_with
from keras_sasa._text_tables import align
from keras_sasa.detection.feature_pyramid import UpsampleLike
from keras_sasa.detection.raw_outputs import RawOutputs
from keras_sasa.layers import AttentionStem, SelfAttention2D
from keras_sasa.profile.timing import milliseconds

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One call of one layer.

    Args:
        name: Name of the layer, behind those of the models it is nested in.
        layer: Name of its class.
        output_shape: Shape of its (first) output without the batch.
        parameters: Number of its parameters; 0 from the second call on.
        trainable_parameters: Number of those that are trained.
        flops: FLOPs of the equations as written, `None` if unknown.
        flops_separable: FLOPs with the shared terms computed once, or `None`.
        milliseconds: Median time of the call on its own, or `None`.
    """

    name: str
    layer: str
    output_shape: Shape
    parameters: int
    trainable_parameters: int
    flops: int | None
    flops_separable: int | None
    milliseconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Profile:
    """Parameters and FLOPs of a model; printing it gives a table.

    Args:
        rows: One `Row` for every call of a layer, in an order of computation.
        milliseconds: Median time of one call of the whole model, or `None`.
            Less than the sum of the rows where layers are computed together.
    """

    rows: tuple[Row, ...]
    milliseconds: float | None = None

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def trainable_parameters(self) -> int:
        return sum(row.trainable_parameters for row in self.rows)

    @property
    def flops(self) -> int:
        return sum(row.flops or 0 for row in self.rows)

    @property
    def flops_separable(self) -> int:
        return sum(row.flops_separable or 0 for row in self.rows)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the layers whose FLOPs are unknown and not in the totals."""
        names = (row.name for row in self.rows if row.flops is None)
        return tuple(dict.fromkeys(names))

    @property
    def layer_milliseconds(self) -> float:
        """Sum of the times of the rows."""
        return sum(row.milliseconds or 0 for row in self.rows)

    def __str__(self) -> str:
        timed = self.milliseconds is not None
        headings = ("layer", "class", "output", "parameters", "FLOPs")
        lines = [(*headings, "separable", *(("ms", "share") if timed else ()))]
        for row in self.rows:
            shape = "x".join(map(str, row.output_shape))
            counts = (row.parameters, row.flops, row.flops_separable)
            lines.append(
                (
                    row.name,
                    row.layer,
                    shape,
                    *map(_digits, counts),
                    *(self._time(row.milliseconds) if timed else ()),
                )
            )
        total = (self.parameters, self.flops, self.flops_separable)
        times = self._time(self.layer_milliseconds) if timed else ()
        lines.append(("total", "", "", *map(_digits, total), *times))
        text = align(lines, text_columns=3)
        if timed:
            text.append(
                f"one call of the whole model: {self.milliseconds:.2f} ms"
            )
        text.append(
            f"of the parameters {self.trainable_parameters:,} are trained"
        )
        if self.uncounted:
            text.append(f"FLOPs not counted: {', '.join(self.uncounted)}")
        return "\n".join(text)

    def _time(self, number):
        if number is None:
            return "-", "-"
        share = number / (self.layer_milliseconds or 1)
        return f"{number:.2f}", f"{share:.1%}"

    def write_csv(self, path: str) -> None:
        """Writes the rows, every field a column, as a CSV file."""
        names = [field.name for field in dataclasses.fields(Row)]
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for row in self.rows:
                shape = "x".join(map(str, row.output_shape))
                writer.writerow(
                    {**dataclasses.asdict(row), "output_shape": shape}
                )


def profile(
    model: keras.Model,
    input_shape: Sequence[Any] | None = None,
    repeats: int = 0,
) -> Profile:
    """Counts parameters and FLOPs of a model, and times it, for one image.

    Functional and sequential models are walked call by call, models nested in
    them too. A subclassed model, or a layer made of layers, is traced by
    calling its `call` on symbolic tensors. The module's documentation says
    what counts how much.

    Args:
        model: A built `keras.Model`.
        input_shape: Shape of the input without the batch. Needed if the model
            leaves sizes open or is subclassed; may differ from the model's own
            where its layers allow. For several inputs a list of shapes.
        repeats: Integer, how often every layer on its own and the model are
            called to be timed; 0 for no times. Each is compiled as a graph and
            gets random tensors.

    Returns:
        A `Profile`. Layers whose FLOPs are unknown are in `uncounted`, with
        their parameters counted.

    Raises:
        ValueError: If sizes of the input are unknown or do not fit the model,
            the model is not built or cannot be traced, or `repeats` is not an
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
    of the parameters 256 are trained
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
    walk = _Walk(repeats)
    if not isinstance(model, (keras.Function, keras.Sequential)):
        try:
            graph = _trace(model, (call_inputs,), {})
        except Exception as error:
            # What a foreign `call` raises does not say what was tried.
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
        # A dict of inputs, where the model was made with one.
        structure = getattr(model, "input", call_inputs)
        timed = tree.pack_sequence_as(structure, inputs)
        whole = milliseconds(model, (timed,), {}, repeats)
    return Profile(tuple(walk.rows), whole)


# The FLOPs of the layers, on shapes alone.


def convolution_flops(
    positions: int,
    kernel_size: Shape,
    channels: int,
    filters: int,
    groups: int = 1,
) -> int:
    """FLOPs of a convolution without bias, or of a projection.

    Args:
        positions: Pixels of the output (of the input, if it is transposed).
        kernel_size: Sizes of the window; `()` for a projection.
        channels: Channels of the input.
        filters: Channels of the output.
        groups: Groups that channels and filters are divided into.
    """
    window = math.prod(kernel_size)
    return 2 * positions * window * (channels // groups) * filters


def self_attention_flops(
    image: Shape,
    output: Shape,
    channels: int,
    filters: int,
    num_heads: int,
    kernel_size: Shape,
    position_encoding: str | None = "relative",
    use_content: bool = True,
    use_bias: bool = False,
    separable: bool = False,
) -> int:
    """FLOPs of `SelfAttention2D`.

    Args:
        image: Height and width of the input: keys and values.
        output: Height and width of the output: queries.
        channels: Channels of the input.
        filters: Channels of the output.
        num_heads: Number of heads.
        kernel_size: Height and width of the window.
        position_encoding: As in `SelfAttention2D`.
        use_content: As in `SelfAttention2D`.
        use_bias: As in `SelfAttention2D`.
        separable: Whether q.r is computed from its two halves.
    """
    pixels, queries = math.prod(image), math.prod(output)
    window = math.prod(kernel_size)
    projected = queries + (2 if use_content else 1) * pixels
    total = convolution_flops(projected, (), channels, filters)
    if use_bias:
        total += projected * filters
    if position_encoding == "absolute":
        total += pixels * channels
    # For one query, all heads: one product for every key.
    products = 2 * window * filters
    attend = products + num_heads * window  # weighted sum, softmax
    if use_content:
        attend += products
    if position_encoding == "relative" and not separable:
        attend += products
    elif position_encoding == "relative":
        terms = 2 if use_content else 1
        attend += sum(kernel_size) * filters + terms * num_heads * window
    return total + queries * attend


def attention_stem_flops(
    image: Shape,
    channels: int,
    filters: int,
    block_size: int,
    num_heads: int,
    num_mixtures: int,
    values: str = "spatially_aware",
    separable: bool = False,
) -> int:
    """FLOPs of `AttentionStem`, normalization and pooling included.

    Args:
        image: Height and width of the input.
        channels: Channels of the input.
        filters: Channels of the output.
        block_size: Side of a block.
        num_heads: Number of heads.
        num_mixtures: Number of matrices mixed into one.
        values: As in `AttentionStem`.
        separable: Whether the matrices are mixed once for every place in a
            block, not once for every pixel.
    """
    pixels, block = math.prod(image), block_size**2
    project = convolution_flops(pixels, (), channels, filters)
    value = project
    if values == "conv":
        value = project * block
    elif values == "spatially_aware":
        width = filters // num_heads
        # p(a, b, m): emb_row + emb_col, its product with nu^m, softmax.
        value += block * (width + num_mixtures * (2 * width + 1))
        places = block if separable else pixels
        value += convolution_flops(places, (), channels, filters) * num_mixtures
    # q.k, softmax, weighted sum over the pixels of a block.
    attend = pixels * block * (2 * filters + num_heads + 2 * filters)
    blocks = math.prod(-(-size // block_size) for size in image)
    pool = blocks * block * filters
    return 2 * project + value + attend + 2 * pixels * filters + pool


# From a layer, the shapes of its inputs and of its output (without the batch)
# to FLOPs: a number, a pair (as written, separable), `None` for unknown.
Count = Callable[[Any, list[Shape], Shape], int | tuple[int, int] | None]


def _sizes(layer, shape: Shape) -> Shape:
    """Returns the shape without the channels."""
    first = layer.data_format == "channels_first"
    return tuple(shape[1:] if first else shape[:-1])


def _channels(layer, shape: Shape) -> int:
    return shape[0] if layer.data_format == "channels_first" else shape[-1]


def _bias_and_activation(layer, output: Shape) -> int:
    linear = layer.activation in (None, keras.activations.linear)
    return math.prod(output) * (bool(layer.use_bias) + (not linear))


def _count_conv(layer, inputs, output):
    return convolution_flops(
        math.prod(_sizes(layer, output)),
        layer.kernel_size,
        _channels(layer, inputs[0]),
        layer.filters,
        layer.groups,
    ) + _bias_and_activation(layer, output)


def _count_conv_transpose(layer, inputs, output):
    return convolution_flops(
        math.prod(_sizes(layer, inputs[0])),
        layer.kernel_size,
        _channels(layer, inputs[0]),
        layer.filters,
    ) + _bias_and_activation(layer, output)


def _count_depthwise(layer, inputs, output):
    return convolution_flops(
        1, layer.kernel_size, 1, math.prod(output)
    ) + _bias_and_activation(layer, output)


def _count_separable(layer, inputs, output):
    positions = math.prod(_sizes(layer, output))
    channels = _channels(layer, inputs[0]) * layer.depth_multiplier
    return (
        convolution_flops(positions, layer.kernel_size, 1, channels)
        + convolution_flops(positions, (), channels, layer.filters)
        + _bias_and_activation(layer, output)
    )


def _count_dense(layer, inputs, output):
    return convolution_flops(
        1, (), inputs[0][-1], math.prod(output)
    ) + _bias_and_activation(layer, output)


def _count_self_attention(layer, inputs, output):
    count = functools.partial(
        self_attention_flops,
        _sizes(layer, inputs[0]),
        _sizes(layer, output),
        _channels(layer, inputs[0]),
        layer.filters,
        layer.num_heads,
        layer.kernel_size,
        layer.position_encoding,
        layer.use_content,
        layer.use_bias,
    )
    activation = _count_activation(layer, inputs, output)
    return tuple(
        count(separable=separable) + activation for separable in (False, True)
    )


def _count_attention_stem(layer, inputs, output):
    count = functools.partial(
        attention_stem_flops,
        _sizes(layer, inputs[0]),
        _channels(layer, inputs[0]),
        layer.filters,
        layer.block_size,
        layer.num_heads,
        layer.num_mixtures,
        layer.values,
    )
    return count(separable=False), count(separable=True)


def _count_activation(layer, inputs, output):
    linear = layer.activation is keras.activations.linear
    return 0 if linear else math.prod(output)


def _count_upsampling(layer, inputs, output):
    return 0 if layer.interpolation == "nearest" else None


def _count_pool(layer, inputs, output):
    return math.prod(layer.pool_size) * math.prod(output)


def _count_inputs(layer, inputs, output):
    return sum(map(math.prod, inputs))


def _count_merge(layer, inputs, output):
    return (len(inputs) - 1) * math.prod(output)


def _count_for_each_element(number):
    return lambda layer, inputs, output: number * math.prod(output)


def _table(*lines):
    """Returns a dictionary from every name to the count of its line."""
    return {name: count for names, count in lines for name in names.split()}


_KERAS_COUNTS: dict[str, Count] = _table(
    ("Conv1D Conv2D Conv3D", _count_conv),
    ("Conv1DTranspose Conv2DTranspose Conv3DTranspose", _count_conv_transpose),
    ("DepthwiseConv1D DepthwiseConv2D", _count_depthwise),
    ("SeparableConv1D SeparableConv2D", _count_separable),
    ("Dense", _count_dense),
    ("BatchNormalization Normalization Rescaling", _count_for_each_element(2)),
    # Sums of the elements and of their squares (3), then scale and shift (2).
    ("GroupNormalization", _count_for_each_element(5)),
    ("Activation", _count_activation),
    ("ELU LeakyReLU PReLU ReLU Softmax", _count_for_each_element(1)),
    ("Add Maximum Minimum Multiply Subtract", _count_merge),
    ("AveragePooling1D AveragePooling2D AveragePooling3D", _count_pool),
    ("MaxPooling1D MaxPooling2D MaxPooling3D", _count_pool),
    ("GlobalAveragePooling1D GlobalAveragePooling2D", _count_inputs),
    ("GlobalAveragePooling3D GlobalMaxPooling1D", _count_inputs),
    ("GlobalMaxPooling2D GlobalMaxPooling3D Average", _count_inputs),
    ("UpSampling2D", _count_upsampling),
    (
        "ActivityRegularization AlphaDropout Concatenate Cropping1D Cropping2D "
        "Cropping3D Dropout Flatten GaussianDropout GaussianNoise Identity "
        "Permute RepeatVector Reshape SpatialDropout1D SpatialDropout2D "
        "SpatialDropout3D UpSampling1D UpSampling3D ZeroPadding1D "
        "ZeroPadding2D ZeroPadding3D",
        _count_for_each_element(0),
    ),
)

# Subclasses of a layer count as the layer.
COUNTS: dict[type, Count] = {
    SelfAttention2D: _count_self_attention,
    AttentionStem: _count_attention_stem,
    RawOutputs: _count_for_each_element(0),
    UpsampleLike: _count_for_each_element(0),
    **{getattr(layers, name): count for name, count in _KERAS_COUNTS.items()},
}

# Functions of `keras.ops` in a graph, `x + y` for instance. Their classes are
# not public, but are named as the functions.
OPERATION_COUNTS: dict[str, Count] = _table(
    (
        "Absolute Add Divide Exp Log Maximum Minimum Multiply Negative Relu "
        "Sigmoid Softmax Sqrt Square Subtract Tanh TrueDivide",
        _count_for_each_element(1),
    ),
    (
        "Cast Concatenate ExpandDims Flip GetItem Pad Reshape Split Squeeze "
        "Stack Transpose",
        _count_for_each_element(0),
    ),
)


class _Walk:
    """Goes through a model call by call, with shapes for tensors."""

    def __init__(self, repeats):
        self.rows = []
        self._repeats = repeats
        self._counted_weights = set()

    def visit(self, operation, name, *args, **kwargs):
        """Adds the rows of one call; returns its symbolic outputs."""
        if isinstance(operation, keras.Function):
            outputs = self.run(operation, name, args)
        elif isinstance(operation, keras.Sequential):
            (outputs,) = args
            for layer in operation.layers:
                outputs = self.visit(layer, _join(name, layer.name), outputs)
        elif graph := _inner_layers(operation, args, kwargs):
            outputs = self.run(graph, name, (args, kwargs))
        else:
            return self._count(operation, name, args, kwargs)
        if name:
            self.add_rest(operation, name)
        return outputs

    def run(self, graph, name, inputs):
        outputs = run_with(
            graph,
            _tensors(inputs),
            lambda operation: functools.partial(
                self.visit, operation, _join(name, operation.name)
            ),
        )
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            return outputs[0]
        return outputs

    def _count(self, operation, name, args, kwargs):
        inputs = [tuple(tensor.shape) for tensor in _tensors((args, kwargs))]
        _check_channels(operation, name, inputs)
        inputs = [shape[1:] for shape in inputs]
        outputs = operation.compute_output_spec(*args, **kwargs)
        output = tuple(_tensors(outputs)[0].shape[1:])
        count = _find_count(operation)
        flops = time = None
        # Some layers of Keras forget sizes that they could infer.
        known = not any(None in shape for shape in (*inputs, output))
        if count and known:
            flops = count(operation, inputs, output)
        if self._repeats and known:
            time = milliseconds(operation, args, kwargs, self._repeats)
        pair = flops if isinstance(flops, tuple) else (flops, flops)
        self._add_row(operation, name, output, *pair, time)
        return outputs

    def add_rest(self, layer, name):
        """Adds a row for weights of no row: own ones, layers not called."""
        if any(id(w) not in self._counted_weights for w in layer.weights):
            self._add_row(layer, name, (), 0, 0)

    def _add_row(self, operation, name, output, *numbers):
        weights = [
            weight
            for weight in getattr(operation, "weights", ())
            if id(weight) not in self._counted_weights
        ]
        self._counted_weights.update(map(id, weights))
        trainable = set(map(id, getattr(operation, "trainable_weights", ())))
        row = Row(
            name,
            type(operation).__name__,
            output,
            _parameters(weights),
            _parameters(w for w in weights if id(w) in trainable),
            *numbers,
        )
        self.rows.append(row)


def _parameters(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def _join(path, name):
    return f"{path}/{name}" if path else name


def _tensors(structure):
    return [
        leaf
        for leaf in tree.flatten(structure)
        if isinstance(leaf, keras.KerasTensor)
    ]


def _find_count(operation) -> Count | None:
    for kind in type(operation).__mro__:
        if kind in COUNTS:
            return COUNTS[kind]
    if isinstance(operation, layers.Layer):
        return None
    return OPERATION_COUNTS.get(type(operation).__name__)


def _trace(layer, args, kwargs) -> keras.Function:
    """Returns the graph of what the layer calls."""
    outputs = layer.call(*args, **kwargs)
    return keras.Function(_tensors((args, kwargs)), outputs)


def _inner_layers(operation, args, kwargs) -> keras.Function | None:
    """Returns the graph of a layer that is unknown and made of layers."""
    if not isinstance(operation, layers.Layer) or _find_count(operation):
        return None
    try:
        graph = _trace(operation, args, kwargs)
    except Exception:
        # A `call` that needs real tensors; the layer stays uncounted.
        return None
    made_of_layers = any(
        isinstance(inner, layers.Layer) for inner in graph.operations
    )
    return graph if made_of_layers else None


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
            "FLOPs depend on the size of the input: `input_shape` (without the "
            "batch) must give, as positive integers, what the model leaves "
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
    """Returns a list of shapes: `input_shape`, or the one that it is."""
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
            "`input_shape` must be a shape without the batch, of integers, or "
            "a list of one for each input. "
            f"Received: input_shape={input_shape!r}."
        ) from error


def _check_channels(operation, name, inputs):
    """Raises `ValueError` for a shape that the layer was not built for."""
    spec = getattr(operation, "input_spec", None)
    for axis, size in (getattr(spec, "axes", None) or {}).items():
        if inputs[0][axis] != size:
            raise ValueError(
                "`input_shape` does not fit the model: axis "
                f"{axis} of the input of layer {name!r} must be {size}. "
                f"Received there, with a batch of 1: {inputs[0]}."
            )


def _digits(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
