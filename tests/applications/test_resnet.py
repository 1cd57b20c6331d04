"""The networks: parameters, shapes, options, weights, errors."""

import inspect

import keras
import numpy as np
import pytest

from keras_sasa import AttentionStem, SelfAttention2D, applications
from keras_sasa.applications import NUM_BLOCKS, ResNet, named_networks
from keras_sasa.applications.spatial_operators import SPATIAL_OPERATORS
from tests.support.networks import open_blocks

SMALL = {
    "stem": "small",
    "input_shape": (16, 16, 3),
    "width_multiplier": 0.25,
    "classes": 5,
}


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def small(**options):
    return ResNet((1, 1), **{**SMALL, **options})


@pytest.mark.parametrize(
    "build, parameters",
    [
        (applications.ConvResNet26, 13_696_552),
        (applications.ConvResNet38, 19_626_792),
        (applications.ConvResNet50, 25_557_032),
        (applications.SASAResNet26, 10_342_632),
        (applications.SASAResNet38, 14_190_632),
        (applications.SASAResNet50, 18_038_632),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_trainable_parameters(build, parameters):
    assert trainable_parameters(build()) == parameters


@pytest.mark.parametrize("kind", ["SASA", "Conv"])
@pytest.mark.parametrize("depth", NUM_BLOCKS)
def test_named_networks_take_what_resnet_takes(kind, depth, monkeypatch):
    build = getattr(applications, f"{kind}ResNet{depth}")
    parameters = dict(inspect.signature(ResNet).parameters)
    del parameters["num_blocks"]
    expected = {name: p.default for name, p in parameters.items()}
    expected["spatial"] = {"SASA": "attention", "Conv": "conv"}[kind]
    expected["name"] = f"{kind}ResNet{depth}".lower()
    own = inspect.signature(build).parameters
    assert {name: p.default for name, p in own.items()} == expected
    assert all(
        own[name].annotation == parameters[name].annotation for name in own
    )
    received = {}
    monkeypatch.setattr(
        named_networks,
        "ResNet",
        lambda num_blocks, **options: received.update(
            options, num_blocks=num_blocks
        ),
    )
    options = {name: f"value of {name}" for name in own}
    build(**options)
    assert received == {**options, "num_blocks": NUM_BLOCKS[depth]}


def test_depth_counts_the_layers_of_the_name():
    for depth, blocks in NUM_BLOCKS.items():
        assert 3 * sum(blocks) + 2 == depth


def test_defaults_are_the_papers():
    model = applications.SASAResNet26()
    attention = [x for x in model.layers if isinstance(x, SelfAttention2D)]
    assert len(attention) == sum(NUM_BLOCKS[26])
    for layer in attention:
        assert layer.kernel_size == (7, 7)
        assert layer.num_heads == 8
        assert layer.strides == (1, 1)
        assert layer.position_encoding == "relative"
        assert layer.use_content and not layer.use_bias
    assert [layer.filters for layer in attention][:3] == [64, 128, 128]
    assert model.get_layer("stem_conv").kernel_size == (7, 7)
    assert not any(isinstance(x, AttentionStem) for x in model.layers)


@pytest.mark.parametrize("stem", ["conv", "attention", "small"])
def test_outputs_of_the_groups(stem):
    model = ResNet(
        (1, 1, 1, 1),
        stem=stem,
        width_multiplier=0.25,
        include_top=False,
        input_shape=(64, 96, 3),
    )
    scale = 1 if stem == "small" else 4
    for group, name in enumerate(applications.GROUP_OUTPUTS):
        side = scale * 2**group
        shape = model.get_layer(name).output.shape
        assert shape == (None, 64 // side, 96 // side, 64 * 2**group)
    assert model.output_shape == shape


@pytest.mark.parametrize("side", [1, 15, 30])
def test_odd_sizes(side):
    for downsampling in ("pool", "stride"):
        for spatial in ("attention", "conv"):
            model = small(
                input_shape=(side, side + 1, 3),
                downsampling=downsampling,
                spatial=spatial,
            )
            outputs = model(np.zeros((1, side, side + 1, 3), "float32"))
            assert tuple(outputs.shape) == (1, 5)


def test_twins_differ_in_the_spatial_operator_only():
    attention = {x.name: x for x in small().layers}
    twin = {x.name: x for x in small(spatial="conv").layers}
    for name in set(attention) - set(twin):
        assert name.endswith(("_attention", "_pool")), name
    for name in set(twin) - set(attention):
        assert name.endswith("_spatial_conv"), name
    for name in set(attention) & set(twin):
        assert attention[name].output.shape == twin[name].output.shape


def test_operator_of_each_group():
    model = small(spatial=("conv", "attention"))
    names = [x.name for x in model.layers]
    assert "group1_block1_spatial_conv" in names
    assert "group2_block1_attention" in names


def test_new_operator_is_a_row(monkeypatch):
    def depthwise(options, x, filters, strides, name):
        return keras.layers.DepthwiseConv2D(
            3, strides, padding="same", name=f"{name}_depthwise"
        )(x)

    with pytest.raises(ValueError, match="spatial='depthwise'"):
        small(spatial="depthwise")
    monkeypatch.setitem(SPATIAL_OPERATORS, "depthwise", depthwise)
    model = small(spatial=("conv", "depthwise"))
    names = [layer.name for layer in model.layers]
    assert "group1_block1_spatial_conv" in names
    assert "group2_block1_depthwise" in names


def test_blocks_start_as_their_shortcuts():
    """Whatever the attention is: its gradients would grow from block to block.

    The scale of the last normalization alone is zero, and is trained.
    """
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    images = images.astype("float32")
    model = small()
    before = np.asarray(model(images))
    model.get_layer("group2_block1_attention").value_kernel.assign(
        np.ones((32, 32))
    )
    np.testing.assert_array_equal(np.asarray(model(images)), before)
    assert np.abs(np.asarray(open_blocks(model)(images)) - before).max() > 1e-4
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.gamma.trainable


def test_options_reach_the_attention():
    model = small(
        kernel_size=(3, 5),
        num_heads=2,
        position_encoding="relative",
        use_content=False,
        downsampling="stride",
        implementation="patches",
    )
    layer = model.get_layer("group2_block1_attention")
    assert layer.kernel_size == (3, 5)
    assert layer.num_heads == 2
    assert not layer.use_content
    assert layer.strides == (2, 2)
    assert layer.implementation == "patches"
    layer = small(position_encoding="absolute").get_layer(
        "group1_block1_attention"
    )
    assert layer.position_encoding == "absolute"


def test_width_multiplier_scales_every_width():
    model = ResNet((1, 1), width_multiplier=1.5)
    widths = {x.name: x.filters for x in model.layers if hasattr(x, "filters")}
    assert widths["stem_conv"] == 96
    assert widths["group1_block1_attention"] == 96
    assert widths["group1_block1_expand_conv"] == 384
    assert widths["group2_block1_attention"] == 192
    # A width that no head could share is rounded.
    assert (
        ResNet((1,), width_multiplier=0.3)
        .get_layer("group1_block1_attention")
        .filters
        == 16
    )


@pytest.mark.parametrize(
    "options, shape",
    [
        ({}, (2, 5)),
        ({"include_top": False}, (2, 8, 8, 128)),
        ({"include_top": False, "pooling": "avg"}, (2, 128)),
        ({"include_top": False, "pooling": "max"}, (2, 128)),
    ],
    ids=["top", "map", "avg", "max"],
)
def test_heads(options, shape):
    outputs = small(**options)(np.zeros((2, 16, 16, 3), "float32"))
    assert tuple(outputs.shape) == shape


def test_classifier_activation():
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    outputs = np.asarray(small()(images.astype("float32")))
    np.testing.assert_allclose(outputs.sum(-1), 1, rtol=1e-5)
    assert small(classifier_activation=None).layers[-1].activation is (
        keras.activations.linear
    )


def test_input_tensor():
    images = keras.Input((16, 16, 3))
    scaled = keras.layers.Rescaling(1 / 255)(images)
    model = small(input_tensor=scaled, input_shape=None)
    assert model.inputs[0] is images
    assert model.output_shape == (None, 5)


def test_unknown_image_size():
    model = small(input_shape=(None, None, 3), include_top=False)
    for side in (8, 13):
        outputs = model(np.zeros((1, side, side, 3), "float32"))
        half = -(-side // 2)
        assert tuple(outputs.shape) == (1, half, half, 128)


def test_channels_first_builds():
    keras.config.set_image_data_format("channels_first")
    model = ResNet((1, 1), stem="attention", width_multiplier=0.25)
    assert model.input_shape == (None, 3, 224, 224)
    assert model.get_layer("group2_output").output.shape == (None, 128, 28, 28)


def test_keras_file_round_trip(tmp_path):
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    images = images.astype("float32")
    model = open_blocks(small(stem="attention", spatial=("conv", "attention")))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        np.asarray(model(images)), np.asarray(loaded(images))
    )


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_of_a_file(tmp_path, suffix):
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    images = images.astype("float32")
    path = tmp_path / f"network{suffix}"
    model = open_blocks(small(implementation="patches"))
    if suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    loaded = small(weights=path, implementation="tiled")
    np.testing.assert_allclose(
        np.asarray(model(images)), np.asarray(loaded(images)), rtol=1e-4
    )


def test_weights_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no pretrained weights"):
        small(weights="imagenet")
    with pytest.raises(ValueError, match="missing.weights.h5"):
        small(weights="missing.weights.h5")
    text = tmp_path / "notes.txt"
    text.write_text("not weights")
    with pytest.raises(ValueError, match=r"must end in .*notes\.txt"):
        small(weights=text)
    for suffix in (".weights.h5", ".keras"):
        broken = tmp_path / f"broken{suffix}"
        broken.write_text("not weights")
        with pytest.raises(ValueError, match="`weights` does not hold"):
            small(weights=broken)
    other = tmp_path / "other.weights.h5"
    small(classes=7).save_weights(other)
    with pytest.raises(ValueError, match="`weights` does not hold"):
        small(weights=other)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"spatial": "convolution"}, "spatial='convolution'"),
        ({"spatial": ("conv",)}, "each of the 2 groups"),
        ({"stem": "patchify"}, "stem='patchify'"),
        ({"downsampling": "max"}, "downsampling='max'"),
        ({"pooling": "sum"}, "pooling='sum'"),
        ({"width_multiplier": 0}, "width_multiplier=0"),
        ({"kernel_size": 4}, r"kernel_size=\(4, 4\)"),
        ({"implementation": "fast"}, "implementation='fast'"),
        ({"position_encoding": "learned"}, "position_encoding='learned'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize("num_blocks", [50, (), (1, 0), (1, 1, 1, 1, 1)])
def test_bad_num_blocks(num_blocks):
    with pytest.raises(ValueError, match="num_blocks="):
        ResNet(num_blocks)


def test_preprocess_input():
    images = np.full((1, 2, 2, 3), 255.0, "float32")
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(
        applications.preprocess_input(images)[0, 0, 0], expected, rtol=1e-5
    )


def test_decode_predictions(monkeypatch):
    # The list of names is downloaded; a made one takes its place.
    from keras.src.applications import imagenet_utils

    names = {str(n): [f"n{n:08d}", f"name {n}"] for n in range(1000)}
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", names)
    predictions = np.zeros((1, 1000))
    predictions[0, 7] = 0.75
    best = applications.decode_predictions(predictions, top=1)
    assert best == [[("n00000007", "name 7", 0.75)]]


def test_training_learns():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images = random.normal(size=(8, 16, 16, 3)).astype("float32")
    labels = np.arange(8) % 5
    model = small(stem="attention")
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(images, labels, epochs=16, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.large
def test_gradients_do_not_grow_with_depth():
    """They do where all blocks take part from the start."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images = random.normal(size=(8, 16, 16, 3)).astype("float32")

    def gradient_at_the_stem(model):
        kernel = model.get_layer("stem_conv").kernel
        before = np.asarray(kernel)
        model.compile(
            keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy"
        )
        model.train_on_batch(images, np.arange(8) % 5)
        return np.linalg.norm(before - np.asarray(kernel))

    blocks = (3, 4, 6)
    assert gradient_at_the_stem(ResNet(blocks, **SMALL)) < 10
    model = open_blocks(ResNet(blocks, **SMALL))
    assert gradient_at_the_stem(model) > 100
