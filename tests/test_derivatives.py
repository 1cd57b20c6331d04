"""Forward mode, `vmap` and mixed derivatives, through all calls of the kernel.

Derivatives of first order in reverse mode are in the tests of the layers.
"""

import functools

import numpy as np
import pytest

from keras_sasa.ops.block_attention import (
    block_attention,
    pooled_block_attention,
)
from keras_sasa.ops.local_attention import local_attention, projected_attention
from keras_sasa.ops.local_attention.epilogue import Epilogue
from keras_sasa.ops.local_attention.position import RowColumnEmbeddings
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.projections import Projections
from keras_sasa.ops.local_attention.window import window_axes
from tests.support.backend import BACKEND
from tests.support.parameters import large_on_jax

# Of derivatives of higher order, which compile for long.
every_order = pytest.mark.parametrize(
    "higher", [False, pytest.param(True, marks=pytest.mark.large)]
)

WINDOWS = {"kernel_size": 3, "num_heads": 2}
BLOCKS = {"block_size": 2, "num_heads": 2}
MAP, MATRIX, EMBEDDING = (2, 3, 4, 4), (4, 4), (3, 2, 1)


def attend_with_epilogue(inputs, scale, offset, *weights, **options):
    epilogue = Epilogue(scale, offset, relu=True, pool=2)
    return attend_to_projections(inputs, *weights, epilogue=epilogue, **options)


def attend_to_projections(inputs, query, key, value, *position, **options):
    problem = Problem(
        *window_axes(WINDOWS["kernel_size"]),
        WINDOWS["num_heads"],
        position=RowColumnEmbeddings(),
    )
    projections = Projections(query, key, value)
    return projected_attention(
        problem, inputs, projections, position, training=False, **options
    )


# Functions that call the kernel, and the shapes of their operands. The first
# is a map of images, the last a weight.
FUNCTIONS = {
    "windows": (
        functools.partial(local_attention, **WINDOWS),
        [MAP, MAP, MAP, EMBEDDING, EMBEDDING],
    ),
    "projected": (
        attend_to_projections,
        [MAP, MATRIX, MATRIX, MATRIX, EMBEDDING, EMBEDDING],
    ),
    "epilogue": (
        attend_with_epilogue,
        [MAP, (4,), (4,), MATRIX, MATRIX, MATRIX, EMBEDDING, EMBEDDING],
    ),
    "blocks": (
        functools.partial(block_attention, **BLOCKS),
        [MAP, MATRIX, MATRIX, (4, 4, 4)],
    ),
    "pooled": (
        functools.partial(pooled_block_attention, **BLOCKS),
        [MAP, MATRIX, MATRIX, (4, 4, 4), (4,), (4,)],
    ),
}


def make(name, implementation):
    """Returns a function, operands, and directions to move these in."""
    function, shapes = FUNCTIONS[name]
    random = np.random.default_rng(0)
    operands, directions = (
        [random.normal(size=shape).astype("float32") for shape in shapes]
        for _ in range(2)
    )
    function = functools.partial(function, implementation=implementation)
    return function, operands, directions


def assert_same(actual, expected):
    """Asserts that the kernel and the portable computation agree."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        other = np.asarray(other)
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(
            one, other, rtol=1e-4, atol=1e-5 * (1 + np.abs(other).max())
        )


@pytest.mark.skipif(BACKEND != "jax", reason="transformations of JAX")
@every_order
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("windows", "blocks") else large_on_jax(name)
        for name in FUNCTIONS
    ],
)
def test_transformations_of_jax(native_calls, name, higher):
    import jax
    from jax import numpy as jnp

    def transformed(implementation):
        function, operands, directions = make(name, implementation)

        def loss(*operands):
            return jnp.sum(jnp.sin(function(*operands)))

        def along(steps):
            """The loss, as a function of two steps in the directions."""
            moved = [
                operand + steps[0] * direction + steps[1] ** 2 * operand
                for operand, direction in zip(operands, directions, strict=True)
            ]
            return loss(*moved)

        def compute(operands, directions):
            image, *others, weight = operands
            both = jnp.stack([weight, 2 * weight])

            def one(image, weight):
                maps = [image[None]] + [
                    other[:1] if other.shape == MAP else other
                    for other in others
                ]
                return function(*maps, weight)

            results = [
                jax.vmap(
                    lambda weight: jax.vmap(lambda image: one(image, weight))(
                        image
                    )
                )(both),
                jax.jvp(function, operands, directions)[1],
            ]
            if not higher:
                return results
            steps = jnp.ones(2)
            return [
                *results,
                jax.vmap(
                    jax.grad(
                        lambda *pair: jnp.sum(jnp.sin(one(*pair))), (0, 1)
                    ),
                    (0, None),
                )(image, weight),
                jax.grad(lambda both: jnp.sum(jax.vmap(one)(image, both) ** 2))(
                    both
                ),
                jax.hessian(along)(steps),
                jax.jacfwd(jax.jacfwd(along))(steps),
                jax.jacrev(jax.jacfwd(along))(steps),
            ]

        return jax.tree.leaves(
            jax.jit(compute)(tuple(operands), tuple(directions))
        )

    actual = transformed("native")
    assert native_calls
    assert_same(actual, transformed("patches"))


# Not compiled as a whole, it compiles every operation.
@pytest.mark.large
@pytest.mark.skipif(BACKEND != "jax", reason="shard_map of JAX")
def test_shard_map_of_jax():
    """Gradients, and forward mode by a constant in there, not compiled."""
    import jax
    from jax import numpy as jnp
    from jax.sharding import Mesh, PartitionSpec

    images = jnp.arange(96, dtype="float32").reshape(2, 3, 4, 4) / 96

    def loss(images, step=1.0):
        maps = step * images
        maps = local_attention(maps, maps, maps, kernel_size=3, num_heads=2)
        return jnp.sum(jnp.sin(maps))

    def derivatives(images):
        along = jax.jacfwd(lambda step: loss(images, step))(jnp.float32(1))
        return along[None], jax.grad(loss)(images)

    devices = PartitionSpec("devices")
    along, gradient = jax.shard_map(
        derivatives,
        mesh=Mesh(np.array(jax.devices()), ("devices",)),
        in_specs=devices,
        out_specs=devices,
    )(images)
    assert along.shape == (2,)
    assert_same([jnp.sum(along)[None], gradient], derivatives(images))


@pytest.mark.skipif(BACKEND != "jax", reason="transformations of JAX")
def test_gradients_of_jax_call_the_kernel(native_calls):
    import jax

    function, operands, _ = make("windows", "native")

    def loss(*operands):
        return (function(*operands) ** 2).sum()

    text = jax.jit(jax.grad(loss, (0, 4))).lower(*operands).as_text()
    assert text.count("@keras_sasa_forward(") == 1
    assert text.count("@keras_sasa_backward(") == 1
    assert "dot_general" not in text


@pytest.mark.skipif(BACKEND != "jax", reason="forward mode of JAX")
def test_forward_mode_of_tiled():
    import jax

    expected, actual = (
        jax.jit(
            lambda operands, directions, f=function: jax.jvp(
                f, operands, directions
            )
        )(tuple(operands), tuple(directions))
        for function, operands, directions in (
            make("windows", "patches"),
            make("windows", "tiled"),
        )
    )
    assert_same(actual, expected)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
@every_order
@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode_of_tensorflow(native_calls, name, higher):
    import tensorflow as tf

    # A gradient of gathered rows is `tf.IndexedSlices`.
    dense = tf.convert_to_tensor

    def moved(implementation):
        function, operands, directions = make(name, implementation)
        operands, directions = (
            [tf.constant(array) for array in arrays]
            for arrays in (operands, directions)
        )

        def compute(operands, directions):
            with tf.autodiff.ForwardAccumulator(
                operands, directions
            ) as accumulator:
                with tf.GradientTape() as tape:
                    tape.watch(operands)
                    outputs = function(*operands)
                    loss = tf.reduce_sum(tf.sin(outputs))
                parts = [outputs]
                if higher:
                    parts += map(dense, tape.gradient(loss, operands))
            return [dense(accumulator.jvp(part)) for part in parts]

        results = compute(operands, directions)
        if higher:
            results += tf.function(compute)(operands, directions)
        return results

    actual = moved("native")
    assert native_calls
    assert_same(actual, moved("patches"))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of TensorFlow")
def test_a_graph_recomputes_when_the_upstream_gradient_is_there(
    native_available,
):
    """Otherwise it would keep queries, keys and values from early on."""
    import tensorflow as tf

    graphs = []

    @tf.function(autograph=False)
    def gradient(upstream, *operands):
        graphs.append(tf.compat.v1.get_default_graph())
        with tf.GradientTape() as tape:
            tape.watch(operands)
            outputs = attend_to_projections(*operands, implementation="native")
        return tape.gradient(outputs, operands, upstream)

    gradient(*map(tf.ones, [MAP, *FUNCTIONS["projected"][1]]))
    (graph,) = graphs

    @functools.cache
    def needs_upstream(operation):
        if operation is graph.inputs[0].op:
            return True
        before = [tensor.op for tensor in operation.inputs]
        return any(map(needs_upstream, [*before, *operation.control_inputs]))

    calls = [
        needs_upstream(operation)
        for operation in graph.get_operations()
        if operation.type == "XlaCallModule"
    ]
    # The prediction; the attention computed again, and its gradient.
    assert calls == [False, True, True]
    products = [
        operation
        for operation in graph.get_operations()
        if operation.type == "MatMul"
    ]
    assert products and all(map(needs_upstream, products))
