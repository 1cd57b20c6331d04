"""Every way to compute local attention, against the pixel loops."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_sasa.ops.local_attention import IMPLEMENTATIONS, local_attention
from keras_sasa.ops.local_attention.native import Channels
from keras_sasa.ops.local_attention.position import RowColumnEmbeddings
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.window import window_axes
from tests.support import oracle
from tests.support.backend import (
    BACKEND,
    MODES,
    gradients_of_gradients,
    value_and_gradients,
)
from tests.support.cases import CASES, Case, reference
from tests.support.parameters import in_turn, large, large_on_jax, product

# The kernel knows float32 only: what is float64 here says nothing of it.
FLOAT64 = sorted(set(IMPLEMENTATIONS) - {"native"})
NATIVE = [name for name, case in CASES.items() if case.mask is None]
COMPILED = [name for name, case in CASES.items() if case.compiled]
# Cases that tiles compile to programs of different operations.
DIFFERENT = (
    "strides_odd_map",
    "dilation_odd_map",
    "valid_strides_2_3",
    "mask_neighbourhood",
    "many_bands_mask",
    "channels_first",
    "position_only",
    "no_position",
)
DIFFERENT_ON_JAX = ("strides_odd_map", "mask_neighbourhood", "many_bands_mask")
# JAX compiles for seconds what TensorFlow runs in milliseconds.
ALL = COMPILED if BACKEND == "jax" else list(CASES)
# Those that the kernel projects itself when a layer predicts.
PROJECTED = [
    name
    for name in NATIVE
    if name in ALL
    and CASES[name].arguments.get("strides", 1) in (1, (1, 1))
    and CASES[name].arguments.get("padding", "same") == "same"
]
# A window of one pixel has a constant softmax: float64 rounding only.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}

# Several bands with a mask are in graph mode, those without are compiled.
TILED_COMPILED = {*in_turn(MODES[1:], DIFFERENT), ("graph_jit", "many_bands")}
PATCHES_COMPILED = in_turn(MODES[1:], DIFFERENT[:3])
NATIVE_COMPILED = in_turn(MODES[1:], [n for n in NATIVE if n in COMPILED])


def compiles_differently(implementation, mode, name):
    """Whether the quick run computes a case with tiles or patches."""
    if BACKEND == "jax":
        return name == "default" or (
            implementation == "tiled" and name in DIFFERENT_ON_JAX
        )
    if mode == "eager":
        # Patches compute the same with scores, which are the next test.
        return implementation == "tiled" or name == "default"
    if implementation == "tiled":
        return (mode, name) in TILED_COMPILED
    return (mode, name) in PATCHES_COMPILED


def scores_differ(implementation, _, name):
    """Whether the quick run computes the scores of a case."""
    if BACKEND == "jax":
        return (implementation, name) == ("tiled", "mask")
    return implementation == "patches" or name in ("default", *DIFFERENT)


def native_compiles_differently(training, mode, name):
    """Whether the quick run computes a case with the kernel."""
    if BACKEND == "jax":
        return name in COMPILED if training else name == "default"
    return mode == "eager" or (mode, name) in NATIVE_COMPILED


property_test = settings(
    max_examples=2 if BACKEND == "jax" else 15, deadline=None, derandomize=True
)


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def check_values_and_gradients(implementation, mode, name):
    """Compares a case of the table with the loop over pixels."""
    case, expected = CASES[name], reference(name)
    layer = case.make_layer(implementation)
    cotangent, _ = expected.cotangents()
    result = value_and_gradients(
        layer, case.make_inputs(), cotangent, mode=mode, mask=case.make_mask()
    )
    np.testing.assert_allclose(result.outputs, expected.outputs, **TOLERANCE)
    expected.check_gradients(result.gradients, cotangent)


@pytest.mark.parametrize(
    "implementation, mode, name",
    product(FLOAT64, MODES[:1], ALL, quick=compiles_differently),
)
def test_values_and_gradients(implementation, mode, name):
    check_values_and_gradients(implementation, mode, name)


@pytest.mark.parametrize(
    "implementation, mode, name",
    product(FLOAT64, MODES[:1], ALL, quick=scores_differ),
)
def test_scores_and_their_gradients(implementation, mode, name):
    case, expected = CASES[name], reference(name)
    layer = case.make_layer(implementation)
    cotangents = expected.cotangents()
    result = value_and_gradients(
        layer, case.make_inputs(), *cotangents, mode=mode, mask=case.make_mask()
    )
    np.testing.assert_allclose(result.outputs, expected.outputs, **TOLERANCE)
    np.testing.assert_allclose(result.scores, expected.scores, **TOLERANCE)
    # A key that takes no part has the weight 0, not a small one.
    np.testing.assert_array_equal(result.scores == 0, expected.scores == 0)
    expected.check_gradients(result.gradients, *cotangents)


@pytest.mark.skipif(
    len(MODES) == 1, reason="on this backend the other tests are compiled"
)
@pytest.mark.parametrize(
    "implementation, mode, name",
    product(FLOAT64, MODES[1:] or MODES, COMPILED, quick=compiles_differently),
)
def test_compiled_and_unknown_sizes(implementation, mode, name):
    check_values_and_gradients(implementation, mode, name)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("border", ["mask", "shift"])
def test_second_derivatives_of_native(native_available, border):
    random = np.random.default_rng(0)
    shapes = [(2, 5, 6, 8)] * 3
    shapes += [(3, 2, 2)] * 2 if border == "mask" else [(2, 5, 5)]
    arrays = [random.normal(size=shape).astype("float32") for shape in shapes]

    def attend(*tensors, implementation):
        options = {"border": border}
        if border == "shift":
            *tensors, options["position_bias"] = tensors
            options["scale"] = 0.5
        return local_attention(
            *tensors,
            kernel_size=3,
            num_heads=2,
            implementation=implementation,
            **options,
        )

    native, definition = (
        gradients_of_gradients(
            functools.partial(attend, implementation=name), arrays
        )
        for name in ("native", "patches")
    )
    for actual, expected in zip(native, definition, strict=True):
        np.testing.assert_allclose(
            actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max()
        )


@pytest.mark.large_on_jax
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_borders_by_hand(native_available, implementation):
    # Without logits every pixel is the mean of those around it in the image.
    outputs = local_attention(
        query=ops.zeros((1, 3, 3, 1)),
        key=ops.zeros((1, 3, 3, 1)),
        value=ops.reshape(ops.arange(1, 10, dtype="float32"), (1, 3, 3, 1)),
        kernel_size=3,
        num_heads=1,
        implementation=implementation,
    )
    np.testing.assert_allclose(
        to_numpy(outputs)[0, :, :, 0],
        [[3.0, 3.5, 4.0], [4.5, 5.0, 5.5], [6.0, 6.5, 7.0]],
        rtol=1e-6,
    )


@pytest.mark.large_on_jax
@pytest.mark.parametrize("implementation", FLOAT64)
def test_every_element_of_the_gradient(implementation):
    case = Case(3, 4, channels=2, batch=1)
    arrays = {"inputs": case.make_inputs(), **case.make_weights()}
    cotangent = np.random.default_rng(0).normal(size=(1, 3, 4, 8))
    expected = oracle.numerical_gradient(
        lambda arrays: case.oracle(arrays)[0], arrays, cotangent
    )
    result = value_and_gradients(
        case.make_layer(implementation), arrays["inputs"], cotangent
    )
    assert set(result.gradients) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            result.gradients[name], gradient, rtol=1e-6, atol=1e-8
        )


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("default", *DIFFERENT_ON_JAX) else large(name)
        for name in COMPILED
    ],
)
def test_float32_agrees_with_the_definition(name):
    case = CASES[name]
    inputs = case.make_inputs().astype("float32")
    cotangent = reference(name).cotangents()[0].astype("float32")

    def run(implementation):
        layer = case.make_layer(implementation, dtype="float32")
        return value_and_gradients(
            layer, inputs, cotangent, mask=case.make_mask()
        )

    expected, actual = run("patches"), run("tiled")
    np.testing.assert_allclose(
        actual.outputs, expected.outputs, rtol=1e-4, atol=1e-5
    )
    for array, gradient in expected.gradients.items():
        np.testing.assert_allclose(
            actual.gradients[array], gradient, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    "training, mode, name",
    [
        *product([True], MODES, NATIVE, quick=native_compiles_differently),
        *product([False], MODES, PROJECTED, quick=native_compiles_differently),
    ],
)
def test_native_values_and_gradients(native_calls, training, mode, name):
    case, expected = CASES[name], reference(name)
    layer = case.make_layer("native", dtype="float32")
    cotangent, _ = expected.cotangents()
    inputs = case.make_inputs().astype("float32")
    result = value_and_gradients(
        layer, inputs, cotangent, mode=mode, training=training
    )
    # Without training the kernel projects too; the gradient calls it again.
    assert len(native_calls) == (1 if training else 2)
    np.testing.assert_allclose(
        result.outputs, expected.outputs, rtol=1e-5, atol=1e-5
    )
    expected.check_gradients(result.gradients, cotangent, rtol=5e-5, atol=5e-5)


@st.composite
def native_cases(draw):
    """Cases of any shape and window that the kernel takes."""

    def pair(low, high):
        return draw(st.tuples(*[st.integers(low, high)] * 2))

    kernel_size = tuple(2 * half + 1 for half in pair(0, 7))
    strides = dilation_rate = (1, 1)
    if draw(st.booleans()):
        strides = pair(1, 4)
    else:
        dilation_rate = pair(1, 3)
    height, width = pair(1, 24)
    padding = "same"
    spans = [
        size - rate * (kernel - 1)
        for size, rate, kernel in zip(
            (height, width), dilation_rate, kernel_size, strict=True
        )
    ]
    if min(spans) > 0 and draw(st.booleans()):
        padding = "valid"
    heads = draw(st.integers(1, 4))
    head_width = draw(st.integers(1, 20))
    relative = head_width % 2 == 0 and draw(st.booleans())
    return Case(
        height,
        width,
        {
            "filters": heads * head_width,
            "num_heads": heads,
            "kernel_size": kernel_size,
            "strides": strides,
            "dilation_rate": dilation_rate,
            "padding": padding,
            "position_encoding": "relative" if relative else None,
            "use_content": not relative or draw(st.booleans()),
        },
        batch=draw(st.integers(1, 3)),
    )


@pytest.mark.large_on_jax
@settings(property_test, max_examples=4 if BACKEND == "jax" else 20)
@given(native_cases())
def test_native_agrees_with_the_definition(native_available, case):
    inputs = case.make_inputs()

    def run(implementation, dtype):
        layer = case.make_layer(implementation, dtype)
        cotangent = np.random.default_rng(0).normal(
            size=layer.compute_output_shape(case.input_shape)
        )
        return value_and_gradients(layer, inputs.astype(dtype), cotangent)

    # In float64, which leaves all of the tolerance to the kernel.
    actual, expected = run("native", "float32"), run("patches", "float64")
    scale = 1 + np.abs(expected.outputs).max()
    np.testing.assert_allclose(
        actual.outputs, expected.outputs, rtol=0, atol=1e-5 * scale
    )
    # Some gradients are sums of large terms that cancel.
    scale = 1 + max(
        np.abs(array).max() for array in expected.gradients.values()
    )
    for name, gradient in expected.gradients.items():
        np.testing.assert_allclose(
            actual.gradients[name],
            gradient,
            rtol=0,
            atol=2e-5 * scale,
            err_msg=name,
        )


@pytest.mark.large_on_jax
@pytest.mark.parametrize("shared", ["all", "key and value", "overlapping"])
def test_queries_keys_and_values_in_one_tensor(native_available, shared):
    """The kernel reads some of the channels of a tensor where they are."""
    layer = CASES["default"].make_layer("patches", "float32")
    inputs = np.random.default_rng(0).normal(size=(2, 6, 6, 12))
    cotangent = np.random.default_rng(1).normal(size=(2, 6, 6, 8))

    def run(copied):
        def attend(inputs):
            first = {
                "all": (0, 0, 0),
                "key and value": (0, 4, 4),
                "overlapping": (0, 2, 4),
            }[shared]
            position = tuple(
                ops.cast(weight, "float32")
                for weight in (layer.row_embedding, layer.column_embedding)
            )
            if not copied:
                return IMPLEMENTATIONS["native"].attend(
                    Problem(*window_axes(3), 2, position=RowColumnEmbeddings()),
                    *(Channels(inputs, number, 8) for number in first),
                    position,
                )
            return local_attention(
                *(1.0 * inputs[..., number : number + 8] for number in first),
                *position,
                kernel_size=3,
                num_heads=2,
                implementation="patches",
            )

        result = value_and_gradients(
            layer, inputs.astype("float32"), cotangent, function=attend
        )
        return [result.outputs, *result.gradients.values()]

    for actual, expected in zip(
        run(copied=False),
        run(copied=True),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "implementation, masked, mode",
    [
        *product(["patches"], [True], MODES, quick=lambda *_: True),
        *product(["native"], [False], MODES, quick=lambda *_: True),
        *product(
            ["tiled"],
            [False, True],
            MODES,
            # One of them in every mode.
            quick=lambda _, masked, mode: masked == (mode == "graph"),
        ),
    ],
)
def test_no_images(implementation, masked, mode, request):
    if implementation == "native":
        request.getfixturevalue("native_available")
    layer = CASES["default"].make_layer(implementation, "float32")
    result = value_and_gradients(
        layer,
        np.ones((0, 6, 6, 5), "float32"),
        np.ones((0, 6, 6, 8)),
        mode=mode,
        mask=np.ones((0, 6, 6), bool) if masked else None,
    )
    assert result.outputs.shape == (0, 6, 6, 8)
    for name, gradient in result.gradients.items():
        np.testing.assert_array_equal(gradient, 0, err_msg=name)


@pytest.mark.parametrize(
    "name",
    ["default", large_on_jax("dilation_2_3"), large_on_jax("many_bands")],
)
def test_dropout_is_the_same_for_all(name):
    case = CASES[name]
    cotangent, _ = reference(name).cotangents()
    results = [
        value_and_gradients(
            case.make_layer(implementation, dropout=0.5, seed=7),
            case.make_inputs(),
            cotangent,
            training=True,
        )
        for implementation in FLOAT64
    ]
    assert not np.allclose(results[0].outputs, reference(name).outputs)
    for result in results[1:]:
        np.testing.assert_allclose(
            result.outputs, results[0].outputs, **TOLERANCE
        )
        for array, gradient in results[0].gradients.items():
            np.testing.assert_allclose(
                result.gradients[array], gradient, **TOLERANCE
            )


@pytest.mark.large_on_jax
@pytest.mark.parametrize("implementation", FLOAT64)
def test_dropout_drops_weights_and_keeps_their_mean(implementation):
    case = CASES["default"]
    layer = case.make_layer(implementation, dropout=0.5, seed=7)
    inputs = case.make_inputs()
    many = np.concatenate([inputs] * 50)
    outputs = [to_numpy(layer(many, training=True)) for _ in range(2)]
    outputs = np.concatenate([np.split(each, 50) for each in outputs])
    # Other weights are dropped for other images, and in other calls.
    assert not np.allclose(outputs[0], outputs[1])
    assert not np.allclose(outputs[0], outputs[50])
    expected = reference("default").outputs
    error = np.mean(outputs, axis=0) - expected
    deviation = np.std(outputs, axis=0) / np.sqrt(len(outputs))
    assert np.mean(np.abs(error) / deviation) < 1.2
    np.testing.assert_allclose(
        to_numpy(layer(inputs, training=False)), expected, **TOLERANCE
    )


def attend(inputs, implementation="tiled", **arguments):
    """Output and scores of a layer with random weights, in float64."""
    batch, height, width, channels = inputs.shape
    case = Case(height, width, arguments, channels=channels, batch=batch)
    layer = case.make_layer(implementation)
    outputs, scores = layer(inputs, return_attention_scores=True)
    return to_numpy(outputs), to_numpy(scores), case.make_weights()


maps = st.integers(1, 12)
windows = st.tuples(*[st.sampled_from([1, 3, 5, 7])] * 2)
implementations = st.sampled_from(FLOAT64)


@pytest.mark.large_on_jax
@property_test
@given(maps, maps, windows, implementations)
def test_weights_sum_to_one(height, width, kernel_size, implementation):
    inputs = np.random.default_rng(0).normal(size=(1, height, width, 3))
    _, scores, _ = attend(inputs, implementation, kernel_size=kernel_size)
    assert scores.min() >= 0
    np.testing.assert_allclose(scores.sum((-2, -1)), 1, rtol=1e-12)


@pytest.mark.large_on_jax
@property_test
@given(maps, maps, windows, implementations)
def test_constant_image_stays_constant(
    height, width, kernel_size, implementation
):
    pixel = np.random.default_rng(0).normal(size=3)
    inputs = np.broadcast_to(pixel, (1, height, width, 3))
    outputs, _, weights = attend(
        inputs, implementation, kernel_size=kernel_size
    )
    expected = np.broadcast_to(pixel @ weights["value_kernel"], outputs.shape)
    np.testing.assert_allclose(outputs, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.large_on_jax
@property_test
@given(st.integers(0, 4), st.integers(0, 4), implementations)
def test_translation_equivariance(down, right, implementation):
    image = np.random.default_rng(0).normal(size=(1, 16, 17, 3))
    moved = np.roll(image, (down, right), axis=(1, 2))
    outputs, _, _ = attend(image, implementation, kernel_size=5)
    moved_outputs, _, _ = attend(moved, implementation, kernel_size=5)
    inside = slice(2 + 4, -2 - 4)
    np.testing.assert_allclose(
        np.roll(outputs, (down, right), axis=(1, 2))[:, inside, inside],
        moved_outputs[:, inside, inside],
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.large_on_jax
@property_test
@given(st.integers(0, 9), st.integers(0, 10), windows, maps, implementations)
def test_a_window_of_pixels_influences_an_output(
    row, column, kernel_size, seed, implementation
):
    random = np.random.default_rng(seed)
    case = Case(10, 11, {"kernel_size": kernel_size}, channels=3, batch=1)
    cotangent = np.zeros((1, 10, 11, 8))
    cotangent[0, row, column] = random.normal(size=8)
    result = value_and_gradients(
        case.make_layer(implementation), case.make_inputs(), cotangent
    )
    influence = np.abs(result.gradients["inputs"][0]).sum(-1) > 0
    high, wide = kernel_size
    expected = np.zeros((10, 11), bool)
    expected[
        max(row - high // 2, 0) : row + high // 2 + 1,
        max(column - wide // 2, 0) : column + wide // 2 + 1,
    ] = True
    np.testing.assert_array_equal(influence, expected)


@pytest.mark.large_on_jax
@property_test
@given(maps, maps, st.integers(1, 3), st.integers(1, 3), implementations)
def test_strided_output_is_a_part_of_the_whole(
    height, width, down, right, implementation
):
    inputs = np.random.default_rng(0).normal(size=(1, height, width, 3))
    whole, _, _ = attend(inputs, implementation)
    strided, _, _ = attend(inputs, implementation, strides=(down, right))
    np.testing.assert_allclose(
        strided, whole[:, ::down, ::right], rtol=1e-10, atol=1e-12
    )


@pytest.mark.large_on_jax
@pytest.mark.parametrize("name", ["mask", "many_bands_mask"])
@pytest.mark.parametrize("implementation", FLOAT64)
def test_masked_pixels_have_no_influence(implementation, name):
    case = CASES[name]
    layer, mask = case.make_layer(implementation), case.make_mask()
    inputs = case.make_inputs()
    other = np.where(mask[..., None], inputs, 100 * inputs + 1)
    outputs = to_numpy(layer(inputs, mask=mask))
    changed = to_numpy(layer(other, mask=mask))
    np.testing.assert_allclose(changed[mask], outputs[mask], **TOLERANCE)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_large_logits_in_half_precision(
    native_available, implementation, dtype, masked
):
    random = np.random.default_rng(0)
    query, key, value = (
        ops.cast(scale * random.normal(size=(1, 9, 9, 8)), dtype)
        for scale in (200, 200, 1)
    )
    mask = random.random((1, 9, 9)) < 0.5 if masked else None

    def attend(implementation):
        outputs = local_attention(
            query,
            key,
            value,
            kernel_size=3,
            num_heads=2,
            mask=mask,
            implementation=implementation,
        )
        assert keras.backend.standardize_dtype(outputs.dtype) == dtype
        return to_numpy(ops.cast(outputs, "float32"))

    # The logits are computed in float32, whatever the tensors are.
    np.testing.assert_allclose(
        attend(implementation), attend("patches"), rtol=0.01, atol=0.01
    )


@pytest.mark.parametrize(
    "policy", ["mixed_float16", large_on_jax("mixed_bfloat16")]
)
@pytest.mark.parametrize(
    "name", ["default", large_on_jax("strides_even_map"), large_on_jax("bias")]
)
def test_native_in_half_precision(native_calls, name, policy):
    case = CASES[name]
    dtype = policy.removeprefix("mixed_")
    inputs = case.make_inputs().astype("float32")
    cotangent = reference(name).cotangents()[0]

    def run(implementation):
        layer = case.make_layer(implementation, policy)

        return value_and_gradients(layer, inputs, cotangent)

    expected, actual = run("patches"), run("native")
    assert native_calls
    near = {"rtol": 0.05, "atol": 0.05}
    assert actual.outputs.dtype == dtype
    np.testing.assert_allclose(
        actual.outputs.astype("float32"),
        expected.outputs.astype("float32"),
        **near,
    )
    # That of the bias of the keys is nothing but rounding.
    gradients = expected.gradients.values()
    scale = max(np.abs(gradient).max() for gradient in gradients)
    for array, gradient in expected.gradients.items():
        np.testing.assert_allclose(
            actual.gradients[array] / scale, gradient / scale, **near
        )


def ones(*shape):
    return ops.ones(shape, dtype="float32")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"implementation": "fast"},
            r"\['native', 'patches', 'tiled'\].*'fast'",
        ),
        ({"kernel_size": 2}, r"odd.*kernel_size=\(2, 2\)"),
        ({"padding": "full"}, r"padding='full'"),
        ({"query": ones(6, 6, 8)}, r"query.shape=\(6, 6, 8\)"),
        ({"value": ones(1, 6, 8)}, r"value.shape=\(1, 6, 8\)"),
        ({"strides": 2}, r"height of `query` must equal .* 3.*\(1, 6, 6, 8\)"),
        ({"scale": float("nan")}, r"`scale` must be a finite.*scale=nan"),
        ({"num_heads": 3}, r"multiple of `num_heads`.*num_heads=3"),
        (
            {"row_embedding": ones(3, 2, 4)},
            r"`row_embedding`.*\(3, 2, 2\).*\(3, 2, 4\)",
        ),
        (
            {"column_embedding": ones(5, 2, 2)},
            r"`column_embedding`.*\(3, 2, 2\).*\(5, 2, 2\)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_arguments(change, message):
    arguments = {
        "query": ones(1, 6, 6, 8),
        "key": ones(1, 6, 6, 8),
        "value": ones(1, 6, 6, 8),
        "row_embedding": ones(3, 2, 2),
        "column_embedding": ones(3, 2, 2),
        "kernel_size": 3,
        "num_heads": 2,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        local_attention(**arguments)


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the loop over bands is TensorFlow's"
)
def test_memory_is_bounded_by_bands():
    from keras_sasa.ops.local_attention.query_tiles import choose_band

    # A tall map is computed in many bands, a small one at once.
    assert choose_band(2) == 2
    assert choose_band(100) == 2


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA of TensorFlow 2.21")
@pytest.mark.parametrize(
    "size, dtype",
    product(
        [(6, 6), (3, 2), (37, 9)],
        ["float32", "float64"],
        quick=lambda size, dtype: size != (3, 2) and dtype == "float32",
    ),
    ids=str,
)
def test_function_alone_compiled(size, dtype):
    import tensorflow as tf

    random = np.random.default_rng(0)
    tensors = [
        tf.constant(random.normal(size=(2, *size, 8)), dtype) for _ in range(4)
    ]
    tolerance = 1e-10 if dtype == "float64" else 1e-4

    def gradients(query, key, value, cotangent):
        with tf.GradientTape() as tape:
            tape.watch([query, key, value])
            outputs = local_attention(
                query, key, value, kernel_size=3, num_heads=2
            )
        return tape.gradient(
            outputs, [query, key, value], output_gradients=cotangent
        )

    compiled = tf.function(gradients, jit_compile=True)
    for actual, expected in zip(
        compiled(*tensors), gradients(*tensors), strict=True
    ):
        np.testing.assert_allclose(
            actual, expected, rtol=tolerance, atol=tolerance
        )
