"""How an implementation is added, chosen and refused."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_sasa import AttentionStem, SelfAttention2D, doctor
from keras_sasa.ops import block_attention, dispatch, local_attention
from keras_sasa.ops.block_attention.interface import BlockAttention
from keras_sasa.ops.local_attention.interface import LocalAttention
from keras_sasa.ops.local_attention.position import (
    PositionTerm,
    RowColumnEmbeddings,
)
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.projections import Projections
from keras_sasa.ops.local_attention.window import window_axes

IMAGES = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")


class Toy(LocalAttention):
    """Returns ones; computes no masks, and runs where `missing` is `None`."""

    name = "toy"
    portable = True
    missing = None

    def unavailable_reason(self):
        return self.missing

    def unsupported_reason(self, problem):
        return "it takes no mask" if problem.masked else None

    def compute(
        self,
        problem,
        query,
        key,
        value,
        position=(),
        mask=None,
        dropout_mask=None,
    ):
        self.problem = problem
        return ops.ones_like(query), None


class BlockToy(BlockAttention):
    name = "toy"
    portable = True

    def compute(self, problem, inputs, query_kernel, key_kernel, value):
        return ops.ones((*inputs.shape[:3], query_kernel.shape[-1]))


@pytest.fixture
def toy():
    """A toy in the first row of both tables."""
    tables = local_attention.IMPLEMENTATIONS, block_attention.IMPLEMENTATIONS
    originals = list(map(dict, tables))
    toys = Toy(), BlockToy()
    for table, row, original in zip(tables, toys, originals, strict=True):
        table.clear()
        table.update(dispatch.by_name(row), **original)
    dispatch._warn.cache_clear()
    yield toys[0]
    dispatch._warn.cache_clear()
    for table, original in zip(tables, originals, strict=True):
        table.clear()
        table.update(original)


def layer(**options):
    return SelfAttention2D(4, 3, num_heads=2, **options)


def test_the_first_that_supports_the_problem_computes(toy):
    outputs = layer()(IMAGES)
    np.testing.assert_array_equal(outputs, np.ones((2, 5, 6, 4)))
    assert toy.problem == Problem(
        *window_axes(3), 2, position=RowColumnEmbeddings(), training=False
    )
    # Its batch normalization divides by the root of 1 + epsilon.
    np.testing.assert_allclose(
        AttentionStem(4, 2, 2)(IMAGES), np.ones((2, 3, 3, 4)), rtol=1e-5
    )


@pytest.mark.parametrize("implementation", [None, "toy"])
def test_another_computes_what_is_not_supported(toy, implementation):
    mask = np.ones((2, 5, 6), bool)
    outputs = layer(implementation=implementation)(IMAGES, mask=mask)
    assert np.std(outputs) > 0


def test_by_name(toy):
    layer(implementation="toy")(IMAGES)
    assert toy.problem
    assert np.std(layer(implementation="patches")(IMAGES)) > 0
    with pytest.raises(ValueError, match=r"\['native', .*'toy'\] or `None`"):
        layer(implementation="other")


def test_where_it_does_not_run(toy):
    toy.missing = "it is Sunday"
    with pytest.raises(ValueError, match='"toy"` does not run here: it is Sun'):
        layer(implementation="toy")(IMAGES)
    with pytest.warns(RuntimeWarning, match='"toy".*Sunday.*slower') as caught:
        layer()(IMAGES)
        layer()(IMAGES)
    assert len(caught) == 1


def test_it_is_listed(toy):
    toy.missing = "it is Sunday"
    assert list(local_attention.available())[0] == "toy"
    assert local_attention.available()["toy"] == "it is Sunday"
    listed = doctor.report()["attention"]["toy"]
    assert listed == "does not run: it is Sunday"


def test_only_portable_ones_are_exported(toy):
    with local_attention.portable():
        layer()(IMAGES)
    assert toy.problem
    del toy.problem
    toy.portable = False
    with local_attention.portable():
        outputs = layer()(IMAGES)
    assert np.std(outputs) > 0


def test_nothing_supports_the_problem():
    class Picky(Toy):
        def unsupported_reason(self, problem):
            return "it is picky"

    table = dispatch.by_name(Picky())
    with pytest.raises(ValueError, match='"toy": it is picky'):
        dispatch.choose(table, None, Problem(*window_axes(3), 2))


def test_a_name_of_another_function_means_a_portable_one():
    table = block_attention.IMPLEMENTATIONS
    problem = block_attention.BlockProblem(2, 2, channels=3)
    assert "tiled" not in table
    assert dispatch.choose(table, "tiled", problem).portable
    AttentionStem(4, 2, 2, implementation="tiled")(IMAGES)
    with pytest.raises(ValueError, match="must be one of.*'tiled'"):
        AttentionStem(4, 2, 2, implementation="other")


@dataclasses.dataclass(frozen=True)
class HeadBiases(PositionTerm):
    """A bias for each head and each place of the window."""

    weight_names = ("biases",)

    def weight_shapes(self, offsets, num_heads, filters):
        return ((num_heads, *offsets),)

    def logits(self, query, weights, key_offsets):
        (biases,) = weights
        return biases


def test_a_new_position_term():
    """Implementations that do not know it leave it to the next one."""
    problem = Problem(*window_axes(3), 2, content=False, position=HeadBiases())
    (shape,) = problem.position.weight_shapes(problem.offsets, 2, 4)
    biases = np.full(shape, -1e9, "float32")
    # One head looks at the pixel above, the other at the pixel itself.
    biases[0, 0, 1] = biases[1, 1, 1] = 0.0
    kernel = np.concatenate([np.eye(3, 2), np.eye(3, 2)], 1).astype("float32")
    outputs = local_attention.projected_attention(
        problem, IMAGES, Projections(kernel, None, kernel), (biases,)
    )
    outputs = ops.convert_to_numpy(outputs)
    np.testing.assert_allclose(
        outputs[:, 1:, :, :2], IMAGES[:, :-1, :, :2], rtol=1e-5
    )
    np.testing.assert_allclose(outputs[..., 2:], IMAGES[..., :2], rtol=1e-5)
    for implementation in local_attention.IMPLEMENTATIONS.values():
        reason = implementation.unsupported_reason(problem)
        assert reason is None or "no other positions" in reason


UNSUPPORTED = {
    "mask": {"masked": True},
    "dropout": {"dropout": True},
    "scores": {"scores": True},
    "float64": {"dtype": "float64"},
    "positions": {"position": object()},
}


@pytest.mark.parametrize("word", UNSUPPORTED)
def test_what_the_kernel_does_not_support(word):
    native = local_attention.IMPLEMENTATIONS["native"]
    problem = Problem(*window_axes(3), 2)
    assert native.unsupported_reason(problem) is None
    problem = dataclasses.replace(problem, **UNSUPPORTED[word])
    assert word in native.unsupported_reason(problem)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"channels": 65}, "64 channels"),
        ({"value_map": True}, "matrices"),
        ({"dtype": "float64"}, "float64"),
    ],
)
def test_what_the_kernel_of_blocks_does_not_support(change, words):
    native = block_attention.IMPLEMENTATIONS["native"]
    problem = block_attention.BlockProblem(2, 2, channels=3)
    assert native.unsupported_reason(problem) is None
    problem = dataclasses.replace(problem, **change)
    assert words in native.unsupported_reason(problem)


def test_embeddings_of_both_axes_or_none():
    maps = ops.zeros((1, 3, 3, 4))
    with pytest.raises(ValueError, match="Received: column_embedding=None"):
        local_attention.local_attention(
            maps, maps, maps, ops.zeros((3, 2, 1)), kernel_size=3, num_heads=2
        )


@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 5, "strides": 2},
        {"kernel_size": 3, "dilation_rate": 2},
        {"kernel_size": 1, "padding": "valid"},
    ],
)
def test_keys_are_centred_on_queries(options, size):
    axis, _ = window_axes(**options)
    queries = np.arange(size)[axis.queries()]
    keys = axis.keys(axis.output_size(size))
    assert keys.shape == (len(queries), axis.kernel_size)
    np.testing.assert_array_equal(keys[:, axis.kernel_size // 2], queries)
    np.testing.assert_array_equal(
        np.diff(keys, axis=1), axis.dilation_rate if keys.shape[1] > 1 else 0
    )


def test_weights_and_config_do_not_depend_on_the_implementation(toy):
    first, second = layer(implementation="toy"), layer()
    for one in (first, second):
        one.build((None, None, None, 3))
    names = [[weight.name for weight in one.weights] for one in (first, second)]
    assert (
        names[0]
        == names[1]
        == [
            "query_kernel",
            "key_kernel",
            "value_kernel",
            "row_embedding",
            "column_embedding",
        ]
    )
    config = {**first.get_config(), "name": second.name, "implementation": None}
    assert keras.tree.map_structure(str, config) == keras.tree.map_structure(
        str, second.get_config()
    )
