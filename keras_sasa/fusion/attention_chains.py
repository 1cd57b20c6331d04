"""Attention and the layers behind it that one call can compute."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from keras_sasa._keras_graphs import Call, calls_before, keras_mask
from keras_sasa.layers import BatchNormalization, SelfAttention2D
from keras_sasa.layers.batch_normalization import inference_scales_and_offsets
from keras_sasa.ops.local_attention.epilogue import Epilogue
from keras_sasa.ops.precision import compute_dtype

# Classes derived from these may compute something else.
_NORMALIZATIONS = (layers.BatchNormalization, BatchNormalization)
_POOLS = (layers.AveragePooling2D,)
_ACTIVATIONS = (layers.ReLU, layers.Activation)


@dataclasses.dataclass(frozen=True)
class AttentionChain:
    """Attention, perhaps a 2x2 average, a normalization, perhaps a ReLU.

    Nothing but the next layer sees the output of each, and every layer is
    called once in the graph.
    """

    attention: SelfAttention2D
    pool: layers.AveragePooling2D | None
    normalization: layers.BatchNormalization
    relu: layers.ReLU | layers.Activation | None

    @property
    def members(self) -> list[keras.Layer]:
        """The layers in the order of their calls."""
        chain = self.attention, self.pool, self.normalization, self.relu
        return [layer for layer in chain if layer is not None]

    def call(
        self, inputs: Any, epilogue: Epilogue | None, **options: None
    ) -> Any:
        """Computes the chain in inference mode, in one call if it can.

        Args:
            inputs: The input of the attention.
            epilogue: One of `epilogues_of`.
            **options: Of its call in the graph; all are `None`.
        """
        if epilogue is not None and keras_mask(inputs) is None:
            return self.attention(inputs, training=False, epilogue=epilogue)
        outputs = self.attention(inputs, training=False)
        if self.pool is not None:
            outputs = self.pool(outputs)
        outputs = self.normalization(outputs, training=False)
        return outputs if self.relu is None else self.relu(outputs)

    def fusible(self) -> bool:
        """Returns whether the epilogue of attention computes the same.

        Users may change the layers at any time.
        """
        attention, pool = self.attention, self.pool
        normalization, relu = self.normalization, self.relu
        return (
            all(
                # An own `call` of an object hides that of its class.
                "call" not in vars(layer)
                and layer.activity_regularizer is None
                and layer.compute_dtype == attention.compute_dtype
                for layer in self.members
            )
            and attention.data_format == "channels_last"
            and attention.activation is keras.activations.linear
            and normalization.axis in (-1, 3)
            and not normalization.renorm
            and (
                pool is None
                or (
                    tuple(pool.pool_size) == tuple(pool.strides) == (2, 2)
                    and pool.padding == "same"
                    and pool.data_format == "channels_last"
                )
            )
            and (relu is None or _is_relu(relu))
        )


def epilogues_of(chains: list[AttentionChain]) -> list[Epilogue | None]:
    """Returns the epilogues of chains, `None` where a call has to do without.

    They are valid for one call of the model.
    """
    epilogues = dict.fromkeys(range(len(chains)))
    groups = collections.defaultdict(list)
    for number, chain in enumerate(chains):
        if chain.fusible():
            dtype = compute_dtype(chain.normalization.compute_dtype)
            # Others would not have the same bits in a group.
            alone = number if chain.attention.filters % 16 else None
            groups[dtype, alone].append(number)
    for (dtype, _), numbers in groups.items():
        vectors = inference_scales_and_offsets(
            [chains[number].normalization for number in numbers], dtype
        )
        for number, (scale, offset) in zip(numbers, vectors, strict=True):
            chain = chains[number]
            epilogues[number] = Epilogue(
                scale,
                offset,
                relu=chain.relu is not None,
                pool=1 if chain.pool is None else 2,
            )
    return list(epilogues.values())


def _is_relu(layer):
    if type(layer) is layers.Activation:
        return layer.activation is keras.activations.relu
    return (
        layer.max_value is None
        and not layer.negative_slope
        and not layer.threshold
    )


def find_attention_chains(model: keras.Model) -> list[AttentionChain]:
    """Returns the chains in the graph of a functional model.

    Args:
        model: A functional `keras.Model`.
    """
    calls = calls_before(model.outputs)
    graph = _Graph(
        collections.Counter(id(call.operation) for call in calls),
        _consumers(calls),
        {id(tensor) for tensor in model.outputs},
    )
    chains = (
        _match(list(graph.path(call)))
        for call in calls
        if type(call.operation) is SelfAttention2D
    )
    return [chain for chain in chains if chain is not None]


def _consumers(calls):
    """Returns the calls that take each tensor, by the tensor's identity."""
    consumers = collections.defaultdict(list)
    for call in calls:
        for tensor in call.input_tensors:
            consumers[id(tensor)].append(call)
    return consumers


@dataclasses.dataclass(frozen=True)
class _Graph:
    """Who uses what in the graph of a model; objects by their identity."""

    num_calls: dict[int, int]
    consumers: dict[int, list[Call]]
    outputs: set[int]

    def path(self, call: Call) -> Iterator[Any]:
        """Yields the operations from a call on, as long as there is one way.

        All but the last pass their output to the next one alone.
        """
        while self._plain(call):
            yield call.operation
            (output,) = call.output_tensors
            consumers = self.consumers[id(output)]
            if id(output) in self.outputs or len(consumers) != 1:
                return
            (call,) = consumers

    def _plain(self, call):
        """Whether it is the only call, of one tensor without options."""
        return (
            self.num_calls[id(call.operation)] == 1
            and len(call.output_tensors) == 1
            and call.takes_one_tensor
        )


def _match(operations):
    """Returns the chain that a list of operations begins with, or `None`."""
    if not operations:
        return None
    attention, *rest = operations

    def take(classes):
        # Not `isinstance`: see above.
        return rest.pop(0) if rest and type(rest[0]) in classes else None

    pool = take(_POOLS)
    normalization = take(_NORMALIZATIONS)
    if normalization is None:
        return None
    return AttentionChain(attention, pool, normalization, take(_ACTIVATIONS))
