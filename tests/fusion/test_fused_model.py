"""Models that fuse attention with the layers behind it while they predict."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_sasa import SelfAttention2D
from keras_sasa.applications import ResNet
from keras_sasa.fusion import FusedModel
from keras_sasa.fusion.attention_chains import (
    epilogues_of,
    find_attention_chains,
)
from keras_sasa.layers import self_attention_2d
from keras_sasa.ops.local_attention import portable
from tests.support.backend import BACKEND, MODES, value_and_gradients
from tests.support.parameters import large

IMAGES = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype("float32")


@pytest.fixture
def epilogues(monkeypatch):
    """The epilogues of all calls of attention, in a list."""
    received = []
    original = self_attention_2d.projected_attention

    def record(*arguments, epilogue, **options):
        received.append(epilogue)
        return original(*arguments, epilogue=epilogue, **options)

    monkeypatch.setattr(self_attention_2d, "projected_attention", record)
    return received


def attention(**options):
    return SelfAttention2D(
        **{"filters": 4, "kernel_size": 3, "num_heads": 2, **options}
    )


def build(*chain, model_class=FusedModel, dtype=None):
    """A model of layers that are called one after the other."""
    inputs = keras.Input((None, None, 3), dtype=dtype)
    x = inputs
    for layer in chain:
        x = layer(x)
    return randomize(model_class(inputs, x))


def randomize(model):
    """Gives all weights, moving statistics too, random values."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        values = random.normal(scale=0.5, size=weight.shape)
        weight.assign(
            abs(values) + 0.1 if "variance" in weight.path else values
        )
    return model


def plain(model):
    """The same layers in an ordinary model."""
    return keras.Model(model.input, model.output)


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def check_same(model, inputs=IMAGES, **call):
    outputs, expected = model(inputs, **call), plain(model)(inputs, **call)
    outputs, expected = (
        keras.tree.map_structure(to_numpy, one) for one in (outputs, expected)
    )
    for one, other in zip(
        keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True
    ):
        assert np.std(other) > 0
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def pool(**options):
    return layers.AveragePooling2D(
        **{"pool_size": 2, "padding": "same", **options}
    )


FUSED = {
    "normalization": lambda: [attention(), layers.BatchNormalization()],
    "relu": lambda: [attention(), layers.BatchNormalization(), layers.ReLU()],
    "pool": lambda: [
        attention(),
        pool(),
        layers.BatchNormalization(axis=3),
        layers.ReLU(),
    ],
    "activation": lambda: [*chain_with(), layers.Activation("relu")],
    "no_scale": lambda: [
        attention(),
        layers.BatchNormalization(scale=False),
        layers.ReLU(),
    ],
    "no_offset": lambda: [
        attention(use_bias=True, strides=2),
        layers.BatchNormalization(center=False, trainable=False),
    ],
    "behind_and_before_others": lambda: [
        layers.Conv2D(5, 3, padding="same"),
        attention(kernel_size=5, dropout=0.5),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(3, 1),
    ],
}


@pytest.mark.parametrize("name", FUSED)
def test_fused(name, epilogues):
    chain = FUSED[name]()
    model = build(*chain)
    check_same(model)
    check_same(model, training=False)
    fused, alone, *_ = epilogues
    assert alone is None
    relus = (layers.ReLU, layers.Activation)
    assert fused.relu == any(isinstance(layer, relus) for layer in chain)
    assert fused.pool == (2 if name == "pool" else 1)
    assert [type(layer) for layer in model.layers[1:]] == list(map(type, chain))


@pytest.mark.parametrize("name", ["pool"])
@pytest.mark.parametrize(
    "mode", [MODES[0], *(large(mode) for mode in MODES[1:])]
)
def test_gradients(name, mode):
    """A gradient in inference mode reaches all weights of the chain."""
    model = build(*FUSED[name]())
    cotangent = np.random.default_rng(2).normal(size=(2, 3, 4, 4))
    results = [
        value_and_gradients(
            model, IMAGES, cotangent, mode=mode, function=function
        )
        for function in (model, plain(model))
    ]
    assert results[0].gradients.keys() >= {"inputs", "gamma", "beta"}
    for key, expected in results[1].gradients.items():
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(
            results[0].gradients[key], expected, rtol=1e-4, atol=1e-4
        )


class OwnNormalization(layers.BatchNormalization):
    """Keras' normalization, as another class."""


def with_own_call(layer):
    original = layer.call
    layer.call = lambda inputs, **options: 2 * original(inputs, **options)
    return layer


def chain_with(*others, **options):
    return [attention(**options), *others, layers.BatchNormalization()]


ALONE = {
    "activation": lambda: chain_with(activation="gelu"),
    "activity_regularizer": lambda: chain_with(activity_regularizer="l2"),
    "another_dtype": lambda: chain_with(dtype="mixed_bfloat16"),
    "another_layer": lambda: chain_with(layers.Dropout(0.5)),
    "axis": lambda: [
        attention(),
        layers.Resizing(4, 4),
        layers.BatchNormalization(axis=1),
    ],
    "derived_class": lambda: [attention(), OwnNormalization()],
    "no_normalization": lambda: [attention(), layers.ReLU()],
    "pool_3": lambda: chain_with(pool(pool_size=3)),
    "pool_strides": lambda: chain_with(pool(strides=1)),
    "pool_valid": lambda: chain_with(pool(padding="valid")),
    "gelu": lambda: [*chain_with(), layers.Activation("gelu")],
    "relu_6": lambda: [*chain_with(), layers.ReLU(6.0)],
    "renorm": lambda: [attention(), layers.BatchNormalization(renorm=True)],
}


@pytest.mark.large_on_jax
@pytest.mark.parametrize("name", ALONE)
def test_not_fused(name, epilogues):
    check_same(build(*ALONE[name]()))
    assert set(epilogues) == {None}


@pytest.mark.large_on_jax
def test_training_and_exports_are_not_fused(epilogues):
    model = build(*FUSED["pool"]())
    values = [weight.numpy() for weight in model.weights]
    outputs = to_numpy(model(IMAGES, training=True))
    for weight, value in zip(model.weights, values, strict=True):
        weight.assign(value)
    expected = to_numpy(plain(model)(IMAGES, training=True))
    np.testing.assert_array_equal(outputs, expected)
    with portable():
        check_same(model)
    assert set(epilogues) == {None}


def test_training_of_a_layer_around_it(epilogues):
    """`call` alone leaves `training` to the call around it."""

    class Around(layers.Layer):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def call(self, inputs):
            return self.model.call(inputs)

    model = build(*FUSED["relu"]())
    around = Around(model)
    expected = to_numpy(model(IMAGES, training=True))
    epilogues.clear()
    np.testing.assert_array_equal(around(IMAGES, training=True), expected)
    assert epilogues == [None]
    around(IMAGES)
    model.call(IMAGES)
    assert epilogues[1] and epilogues[2]


def test_frozen_normalization_while_training(epilogues):
    chain = FUSED["relu"]()
    model = build(*chain)
    chain[1].trainable = False
    check_same(model, training=True)
    assert set(epilogues) == {None}


@pytest.mark.parametrize("number", range(3))
def test_own_call_of_a_layer(number, epilogues):
    chain = FUSED["relu"]()
    model = build(*chain)
    with_own_call(chain[number])
    check_same(model)
    assert set(epilogues) == {None}


def test_attributes_may_change(epilogues):
    chain = FUSED["relu"]()
    model = build(*chain)
    check_same(model)
    chain[1].axis = 1
    chain[2].negative_slope = 0.5
    chain[1].axis = -1
    check_same(model)
    assert [epilogue is None for epilogue in epilogues] == [False, True] + [
        True,
        True,
    ]


@pytest.mark.large_on_jax
def test_masks(epilogues):
    """A pixel of zeros is masked, in the graph or by an argument."""
    mask = np.random.default_rng(3).random(IMAGES.shape[:3]) < 0.5
    images = np.where(mask[..., None], IMAGES, 0)
    check_same(build(layers.Masking(), *FUSED["relu"]()), images)
    model = build(*FUSED["relu"]())
    with pytest.warns(UserWarning, match="does not support masking"):
        check_same(model, images, mask=mask)
    assert set(epilogues) == {None}


def test_mask_that_is_not_in_the_graph(epilogues):
    class Masking(layers.Layer):
        def call(self, inputs):
            outputs = keras.ops.abs(inputs)
            mask = keras.ops.any(inputs[..., :1] > 0.5, axis=-1)
            keras.src.backend.set_keras_mask(outputs, mask)
            return outputs

    check_same(build(Masking(), *FUSED["relu"]()))
    assert set(epilogues) == {None}
    model = build(*FUSED["relu"]())
    (epilogue,) = epilogues_of(find_attention_chains(model))
    with pytest.raises(ValueError, match="`epilogue` cannot be combined"):
        model.layers[1](
            IMAGES, mask=np.ones(IMAGES.shape[:3], bool), epilogue=epilogue
        )


def test_epilogues_of_several_chains():
    """Each has the bits that it has alone, whatever the others are."""
    chain = []
    for filters, options in [
        (16, {}),
        (12, {"epsilon": 0.1}),
        (48, {"scale": False, "epsilon": 0.01}),
        (32, {"center": False}),
        (20, {}),
    ]:
        chain.append(attention(filters=filters))
        chain.append(layers.BatchNormalization(**options))
    chains = find_attention_chains(build(*chain))
    assert len(chains) == 5
    for one, epilogue in zip(chains, epilogues_of(chains), strict=True):
        (alone,) = epilogues_of([one])
        for name in ("scale", "offset"):
            np.testing.assert_array_equal(
                to_numpy(getattr(epilogue, name)),
                to_numpy(getattr(alone, name)),
            )


def test_other_consumers(epilogues):
    inputs = keras.Input((None, None, 3))
    first = attention()(inputs)
    second = layers.BatchNormalization()(first)
    third = layers.ReLU()(second)
    for outputs in ([first, third], layers.Add()([first, third])):
        check_same(randomize(FusedModel(inputs, outputs)))
    assert set(epilogues) == {None}
    epilogues.clear()
    # The normalization is the last of a chain, since others see its output.
    for outputs in ([second, third], layers.Add()([second, third])):
        check_same(randomize(FusedModel(inputs, outputs)))
    assert [one and one.relu for one in epilogues] == [False, None] * 2


def test_shared_layers(epilogues):
    inputs = keras.Input((None, None, 4))
    shared = attention()
    x = layers.BatchNormalization()(shared(inputs))
    x = layers.BatchNormalization()(shared(x))
    images = np.random.default_rng(4).normal(size=(2, 4, 5, 4))
    check_same(randomize(FusedModel(inputs, x)), images.astype("float32"))
    inputs = keras.Input((None, None, 4))
    shared = layers.BatchNormalization()
    x = shared(attention()(inputs))
    x = shared(attention()(x))
    check_same(randomize(FusedModel(inputs, x)), images.astype("float32"))
    assert set(epilogues) == {None}


def test_options_in_the_graph(epilogues):
    inputs = keras.Input((None, None, 3))
    x, _ = attention()(inputs, return_attention_scores=True)
    check_same(randomize(FusedModel(inputs, layers.BatchNormalization()(x))))
    x = attention()(inputs)
    x = layers.BatchNormalization()(x, training=True)
    model = randomize(FusedModel(inputs, x))
    model(IMAGES)
    assert set(epilogues) == {None}


@pytest.mark.large_on_jax
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_types(dtype, epilogues):
    keras.config.set_dtype_policy(dtype)
    try:
        model = build(*FUSED["pool"]())
    finally:
        keras.config.set_dtype_policy("float32")
    outputs, expected = model(IMAGES), plain(model)(IMAGES)
    assert outputs.dtype == expected.dtype
    np.testing.assert_allclose(
        to_numpy(outputs), to_numpy(expected), rtol=0.05, atol=0.05
    )
    assert epilogues[0] and not epilogues[1]


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 by default")
def test_float64(epilogues):
    keras.config.set_dtype_policy("float64")
    try:
        model = build(*FUSED["pool"]())
        outputs, expected = model(IMAGES), plain(model)(IMAGES)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    assert epilogues[0] and not epilogues[1]


def small_network():
    model = ResNet(
        (1, 1),
        stem="small",
        input_shape=(9, 9, 3),
        width_multiplier=0.25,
        num_heads=2,
        classes=5,
    )
    return randomize(model)


SQUARES = np.random.default_rng(5).normal(size=(3, 9, 9, 3)).astype("float32")


def fused(epilogues):
    """Whether all calls of attention since the last time were fused."""
    (answer,) = {epilogue is not None for epilogue in epilogues}
    epilogues.clear()
    return answer


@pytest.mark.large_on_jax
def test_networks_fuse_all_attention(epilogues, tmp_path):
    model = small_network()
    # Graphs would take long to trace.
    model.compile(loss="sparse_categorical_crossentropy", run_eagerly=True)
    expected = to_numpy(plain(model)(SQUARES))
    assert not fused(epilogues)
    outputs = model.predict(SQUARES, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert fused(epilogues)
    model.evaluate(SQUARES, np.arange(3), verbose=0)
    assert fused(epilogues)
    model.fit(SQUARES, np.arange(3), verbose=0)
    assert not fused(epilogues)

    # Inside another model, cloned, loaded, and cut off.
    nested = keras.Sequential([keras.Input((9, 9, 3)), model])
    outputs = model(SQUARES)
    assert fused(epilogues)
    np.testing.assert_array_equal(nested(SQUARES), outputs)
    assert fused(epilogues)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(SQUARES), outputs)
    assert fused(epilogues)
    for file in ("model.keras", "model.h5"):
        model.save(tmp_path / file)
        loaded = keras.models.load_model(tmp_path / file)
        assert type(loaded) is FusedModel
        np.testing.assert_array_equal(loaded(SQUARES), outputs)
        assert fused(epilogues)
    name = "group2_block1_spatial_normalization"
    middle = model.get_layer(name).output
    FusedModel(model.input, middle)(SQUARES)
    assert fused(epilogues)
    assert type(keras.Model(model.input, middle)) is not FusedModel
