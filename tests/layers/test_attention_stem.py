"""The stem: its attention against the pixel loops, and as a Keras layer."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.testing import TestCase

from keras_sasa import AttentionStem, _derivatives
from keras_sasa.ops.block_attention import block_attention, pool
from tests.support import oracle
from tests.support.backend import (
    MODES,
    gradients_of_gradients,
    value_and_gradients,
)
from tests.support.cases import central_differences
from tests.support.config import assert_config_complete
from tests.support.parameters import large_on_jax

VALUES = ("spatially_aware", "plain", "conv")
# The quick run compiles tiles (float64) and the kernel (float32).
COMPILED = {("float64", "conv"), ("float32", "spatially_aware")}
SIZES = (large_on_jax((8, 4)), (5, 7), large_on_jax((2, 3)))

# How far float64 and float32 may be from the oracle.
TOLERANCES = {
    "float64": {"rtol": 1e-9, "atol": 1e-11},
    "float32": {"rtol": 1e-4, "atol": 1e-5},
}


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def make_stem(values, dtype="float64", **arguments):
    """A built stem; embeddings are large enough to matter."""
    stem = AttentionStem(
        8,
        num_heads=2,
        num_mixtures=3,
        values=values,
        embedding_initializer=keras.initializers.RandomNormal(stddev=1.0),
        dtype=dtype,
        **arguments,
    )
    stem.build((None, None, None, 3))
    return stem


def attend(arrays, values):
    """What the oracle says, of inputs and weights by the layer's names."""
    weights = {k: v for k, v in arrays.items() if k != "inputs"}
    if values == "spatially_aware":
        names = [f"value_kernel_{n}" for n in range(3)]
        weights["value_kernels"] = np.stack([weights[n] for n in names])
    return oracle.attention_stem(
        arrays["inputs"], weights, num_heads=2, block_size=4, values=values
    )


@pytest.fixture(params=["float32", large_on_jax("float64")])
def dtype(request):
    """float32 is what the kernel takes, if it runs here."""
    return request.param


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("values", VALUES)
def test_values_and_gradients(values, size, dtype, request):
    stem = make_stem(values, dtype)
    random = np.random.default_rng(0)
    arrays = {"inputs": random.normal(size=(2, *size, 3))}
    for weight in stem.weights:
        if "normalization" not in weight.path:
            array = keras.ops.convert_to_numpy(weight)
            arrays[weight.name] = array.astype("float64")
    expected = attend(arrays, values)
    directions, changes = central_differences(
        lambda arrays: (attend(arrays, values),), arrays
    )
    cotangent = random.normal(size=expected.shape)
    compiles = size == (5, 7) and (
        (dtype, values) in COMPILED or request.config.getoption("--run-large")
    )
    for mode in MODES if compiles else MODES[:1]:
        result = value_and_gradients(
            stem,
            arrays["inputs"].astype(dtype),
            cotangent,
            mode=mode,
            function=stem.attend,
        )
        np.testing.assert_allclose(
            result.outputs, expected, **TOLERANCES[dtype]
        )
        for name in arrays:
            np.testing.assert_allclose(
                np.sum(result.gradients[name] * directions[name]),
                np.sum(cotangent * changes[name][0]),
                rtol=1e-6 if dtype == "float64" else 1e-4,
                atol=1e-8 if dtype == "float64" else 1e-3,
                err_msg=name,
            )


def normalize_randomly(stem):
    """Gives the batch normalization numbers; some scales are negative."""
    random = np.random.default_rng(5)
    arrays = {
        name: random.uniform(lowest, highest, 8)
        for name, lowest, highest in (
            ("gamma", -1, 1),
            ("beta", -1, 1),
            ("mean", -1, 1),
            ("variance", 0.5, 2),
        )
    }
    weights = stem.batch_normalization.weights
    for weight, array in zip(weights, arrays.values(), strict=True):
        weight.assign(array)
    return arrays


@pytest.mark.parametrize("mode", ["predict", "train", "frozen"])
def test_normalization_and_pool_follow(mode, dtype):
    stem = make_stem("spatially_aware", dtype)
    numbers = normalize_randomly(stem)
    stem.trainable = mode != "frozen"
    images = np.random.default_rng(0).normal(size=(2, 6, 9, 3)).astype(dtype)
    maps = keras.ops.convert_to_numpy(stem.attend(images))
    mean, variance = numbers["mean"], numbers["variance"]
    if mode == "train":
        mean, variance = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
    maps = (maps - mean) / np.sqrt(variance + 1e-5)
    maps = maps * numbers["gamma"] + numbers["beta"]
    expected = np.empty((2, 2, 3, 8))
    for row in range(2):
        for column in range(3):
            block = maps[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            expected[:, row, column] = block.max((1, 2))
    outputs = keras.ops.convert_to_numpy(
        stem(images, training=mode != "predict")
    )
    tolerance = 1e-6 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(
        outputs, expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("mode", MODES)
def test_kernel_pools_as_keras_does(native_calls, mode):
    random = np.random.default_rng(0)
    images = random.normal(size=(2, 9, 38, 3)).astype("float32")
    cotangent = random.normal(size=(2, 3, 10, 8))
    stem = make_stem("spatially_aware", "float32")
    normalize_randomly(stem)
    actual = value_and_gradients(stem, images, cotangent, mode=mode)
    # The output; and again, without the pool, for its gradient.
    assert len(native_calls) == 2
    stem.implementation = "patches"
    expected = value_and_gradients(stem, images, cotangent, mode=mode)
    assert len(native_calls) == 2
    np.testing.assert_allclose(
        actual.outputs, expected.outputs, rtol=1e-4, atol=1e-5
    )
    for name, gradient in expected.gradients.items():
        np.testing.assert_allclose(
            actual.gradients[name],
            gradient,
            rtol=1e-4,
            atol=1e-5 * np.abs(gradient).max(),
            err_msg=name,
        )


@pytest.mark.large_on_jax
@pytest.mark.parametrize("shape", [(0, 5, 6, 3), (2, 0, 6, 3), (2, 5, 0, 3)])
def test_empty_images(native_calls, shape):
    stem = make_stem("spatially_aware", "float32")
    images = np.ones(shape, "float32")
    result = value_and_gradients(
        stem, images, np.ones((*shape[:3], 8)), function=stem.attend
    )
    assert result.outputs.shape == (*shape[:3], 8)
    for name, gradient in result.gradients.items():
        np.testing.assert_array_equal(gradient, 0, err_msg=name)
    rows, columns = (-(-size // 4) for size in shape[1:3])
    assert len(native_calls) == 1
    result = value_and_gradients(
        stem, images, np.ones((shape[0], rows, columns, 8))
    )
    assert result.outputs.shape == (shape[0], rows, columns, 8)
    assert len(native_calls) == 3


def test_gradient_without_images():
    maps = ops.convert_to_tensor(np.ones((0, 5, 6, 8), "float32"))
    (gradient,) = _derivatives.backpropagate(
        lambda maps: [pool(maps, 4)], [maps], [ops.zeros((0, 2, 2, 8))]
    )
    assert gradient.shape == (0, 5, 6, 8)


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_nan_stays_in_its_block(native_calls, special):
    images = np.random.default_rng(0).normal(size=(1, 9, 40, 3))
    images[0, 5, 37, 1] = special
    stem = make_stem("spatially_aware", "float32")
    pooled = to_numpy(stem(images.astype("float32")))
    maps = to_numpy(stem.attend(images.astype("float32")))
    expected = np.zeros((1, 9, 40), bool)
    expected[:, 4:8, 36:] = True
    np.testing.assert_array_equal(~np.isfinite(maps).any(-1), expected)
    assert np.isfinite(maps[~expected]).all()
    expected = np.zeros((1, 3, 10), bool)
    expected[:, 1, 9] = True
    np.testing.assert_array_equal(~np.isfinite(pooled).any(-1), expected)
    assert len(native_calls) == 2


@pytest.mark.large_on_jax
def test_gradients_of_gradients(native_calls):
    random = np.random.default_rng(0)
    # Small, as sines of large gradients tell more of rounding than of them.
    arrays = [
        random.normal(0, 0.5, shape).astype("float32")
        for shape in ((1, 5, 6, 3), (3, 8), (3, 8), (16, 3, 8))
    ]

    def function(implementation):
        return lambda *tensors: block_attention(
            *tensors, block_size=4, num_heads=2, implementation=implementation
        )

    actual = gradients_of_gradients(function("native"), arrays)
    assert native_calls
    expected = gradients_of_gradients(function("patches"), arrays)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max()
        )


# The helper of Keras hands `fit` a generator; `fit` warns of its own default.
ignore_shuffle = pytest.mark.filterwarnings(
    "ignore:`shuffle=True` was passed:UserWarning"
)


@ignore_shuffle
@pytest.mark.parametrize(
    "values", ["spatially_aware", large_on_jax("plain"), large_on_jax("conv")]
)
def test_as_a_keras_layer(values):
    weights = {"spatially_aware": 2 + 4 + 3, "plain": 3, "conv": 3}[values]
    TestCase().run_layer_test(
        AttentionStem,
        {"filters": 8, "values": values},
        input_shape=(2, 8, 12, 3),
        expected_output_shape=(2, 2, 3, 8),
        expected_num_trainable_weights=weights + 2,
        expected_num_non_trainable_weights=2,
        expected_num_losses=0,
    )


def test_config_holds_every_argument():
    assert_config_complete(
        AttentionStem,
        filters=12,
        block_size=3,
        num_heads=3,
        num_mixtures=2,
        values="conv",
        data_format="channels_first",
        implementation="tiled",
        momentum=0.9,
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        embedding_initializer=keras.initializers.RandomNormal(0.0, 0.5, 2),
        kernel_regularizer=keras.regularizers.L2(0.1),
        embedding_regularizer=keras.regularizers.L2(0.2),
        kernel_constraint=keras.constraints.MaxNorm(1),
        embedding_constraint=keras.constraints.MaxNorm(2),
    )


@pytest.mark.parametrize("values", ["spatially_aware", "conv"])
def test_channels_first(values, dtype):
    stem = make_stem(values, dtype)
    images = np.random.default_rng(0).normal(size=(2, 6, 9, 3)).astype(dtype)
    config = {**stem.get_config(), "data_format": "channels_first"}
    first = AttentionStem.from_config(config)
    inputs = np.moveaxis(images, -1, 1)
    first.build(inputs.shape)
    first.set_weights(stem.get_weights())
    outputs = keras.ops.convert_to_numpy(first(inputs))
    np.testing.assert_allclose(
        np.moveaxis(outputs, 1, -1), keras.ops.convert_to_numpy(stem(images))
    )
    assert first.compute_output_shape(inputs.shape) == outputs.shape


@pytest.mark.large_on_jax
@pytest.mark.parametrize("implementation", [None, "patches"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy, implementation):
    stem = make_stem("spatially_aware", policy, implementation=implementation)
    exact = make_stem("spatially_aware", "float32")
    exact.set_weights(stem.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 6, 9, 3))
    outputs = stem(images)
    assert keras.backend.standardize_dtype(outputs.dtype) == stem.compute_dtype
    np.testing.assert_allclose(
        to_numpy(outputs), to_numpy(exact(images)), rtol=0.05, atol=0.05
    )


@pytest.mark.large_on_jax
def test_integer_images(dtype):
    stem = make_stem("spatially_aware", dtype)
    images = np.random.default_rng(0).integers(0, 3, (1, 6, 9, 3), "uint8")
    np.testing.assert_array_equal(
        to_numpy(stem(images)), to_numpy(stem(images.astype(dtype)))
    )


@pytest.mark.large_on_jax
def test_kernel_takes_few_channels(native_calls):
    for channels in (64, 65):
        stem = AttentionStem(4, num_heads=2)
        images = np.ones((1, 4, 4, channels), "float32")
        stem(images)
        stem.attend(images)
        assert len(native_calls) == 2


def test_unknown_sizes():
    images = keras.Input((None, None, 3))
    outputs = AttentionStem(8)(images)
    assert outputs.shape == (None, None, None, 8)
    model = keras.Model(images, outputs)
    outputs = model(np.zeros((1, 9, 4, 3), "float32"))
    assert tuple(outputs.shape) == (1, 3, 1, 8)


@pytest.mark.parametrize(
    "policy",
    [
        large_on_jax("float32"),
        large_on_jax("float64"),
        "mixed_float16",
        large_on_jax("mixed_bfloat16"),
    ],
)
def test_one_fit_step(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3))
    model = keras.Sequential(
        [
            keras.Input((8, 12, 3)),
            AttentionStem(8),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, dtype="float32"),
        ]
    )
    model.compile("sgd", "mse")
    history = model.fit(images, np.ones((2, 3)), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    stem = model.layers[0]
    outputs = to_numpy(stem(images))
    assert np.isfinite(outputs).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(to_numpy(loaded.layers[0](images)), outputs)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"filters": 10}, "filters=10, num_heads=4"),
        ({"block_size": 0}, "`block_size` must be a positive.*block_size=0"),
        ({"num_mixtures": 1.5}, r"num_mixtures=1\.5"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"values": "aware"}, "spatially_aware.*values='aware'"),
        ({"data_format": "NCHW"}, "data_format='NCHW'"),
        ({"implementation": "fast"}, "implementation='fast'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionStem(**arguments)


def test_bad_inputs():
    with pytest.raises(ValueError, match=r"four axes.*\(2, 8, 3\)"):
        AttentionStem(8).build((2, 8, 3))
    with pytest.raises(ValueError, match=r"must be known.*None"):
        AttentionStem(8)(keras.Input((8, 8, None)))


@pytest.mark.large_on_jax
def test_large_logits_in_half_precision():
    stem = AttentionStem(8, num_heads=2, values="plain", dtype="float16")
    images = np.random.default_rng(0).normal(size=(1, 8, 8, 3))
    stem.build(images.shape)
    for kernel in (stem.query_kernel, stem.key_kernel):
        kernel.assign(500 * keras.ops.convert_to_tensor(kernel))
    outputs = stem.attend(keras.ops.cast(images, "float16"))
    assert np.isfinite(keras.ops.convert_to_numpy(outputs)).all()


def test_loading_restores_the_normalization(tmp_path):
    images = keras.Input((8, 8, 3))
    model = keras.Model(
        images, AttentionStem(8, dtype="mixed_bfloat16")(images)
    )
    normalization = model.layers[1].batch_normalization
    normalization.momentum = 0.5
    normalization.epsilon = 1e-2
    normalization.synchronized = keras.backend.backend() == "tensorflow"
    normalization.trainable = False
    normalization.dtype_policy = "float32"
    model.save(tmp_path / "model.keras")
    for again in (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
    ):
        assert again.layers[1].momentum == 0.5
        assert again.layers[1].dtype_policy.name == "mixed_bfloat16"
        for name in (
            "dtype_policy",
            "epsilon",
            "momentum",
            "synchronized",
            "trainable",
        ):
            assert getattr(
                again.layers[1].batch_normalization, name
            ) == getattr(normalization, name)
        assert len(again.trainable_weights) == len(model.trainable_weights)
