import csv
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_sasa import (
    AttentionStem,
    HaloAttention2D,
    NeighborhoodAttention2D,
    SelfAttention2D,
)
from keras_sasa.applications import NUM_BLOCKS, ResNet
from keras_sasa.profile import plot_profile, profile, walk
from keras_sasa.profile import published as published_networks
from keras_sasa.profile.command import main
from keras_sasa.profile.layer_flops import COUNTS
from keras_sasa.profile.published import PUBLISHED, profile_published
from tests.support.parameters import large

# The paper's numbers, written down a second time: FLOPs in 1e9 as printed and
# as derived (naive, separable), parameters in 1e6 as printed and as derived.
PAPER = {
    "ImageNet: ResNet": {
        "26, convolution": (4.7, 4.68, None, 13.7, None),
        "38, convolution": (6.5, 6.43, None, 19.6, None),
        "50, convolution": (8.2, 8.18, None, 25.6, None),
        "26, conv stem + attention": (4.5, 4.48, 4.39, 10.3, 10.33),
        "38, conv stem + attention": (5.7, 5.73, 5.60, 14.1, 14.17),
        "50, conv stem + attention": (7.0, 6.97, 6.81, 18.0, 18.01),
        "26, full attention": (4.7, None, None, 10.3, None),
        "38, full attention": (6.0, None, None, 14.1, None),
        "50, full attention": (7.2, None, None, 18.0, None),
    },
    "groups: conv | attention": {
        "- | 1 2 3 4": (7.0, None, None, 18.0, 18.01),
        "1 | 2 3 4": (7.3, None, None, 18.1, 18.09),
        "1 2 | 3 4": (7.5, None, None, 18.5, 18.48),
        "1 2 3 | 4": (8.0, None, None, 20.8, 20.84),
        "1 2 3 4 | -": (8.2, None, None, 25.6, 25.56),
        "2 3 4 | 1": (7.9, None, None, 25.5, 25.48),
        "3 4 | 1 2": (7.8, None, None, 25.0, 25.09),
        "4 | 1 2 3": (7.2, None, None, 22.7, 22.73),
    },
    "kernel size": {
        "3": (6.6, 6.51, None, None, None),
        "5": (6.7, 6.69, None, None, None),
        "7": (7.0, 6.97, None, None, None),
        "9": (7.3, 7.33, None, None, None),
        "11": (7.7, 7.79, None, None, None),
    },
    "logits": {
        "q.k + q.r": (7.0, None, None, 18.0, None),
        "q.r only": (6.1, None, None, 16.7, None),
        "q.k, no position": (6.9, None, None, None, None),
        "q.k, absolute position": (6.9, None, None, None, None),
    },
    "stem of full attention": {
        "plain": (7.1, None, None, None, None),
        "convolution for values": (7.4, None, None, None, None),
        "spatially aware values": (7.2, None, None, None, None),
    },
}
ROWS = [(table, name) for table, rows in PAPER.items() for name in rows]
# One network of each kind. To build all of them takes twenty seconds.
QUICK = {
    "resnet26_conv",
    "resnet26_attention",
    "resnet26_full_attention",
    "resnet50_attention",
    "resnet50_position_only",
}
ALL_ROWS = [
    pytest.param(
        row.table,
        row.name,
        marks=[] if row.configuration in QUICK else pytest.mark.large,
    )
    for row in PUBLISHED
]

TRAINABLE_PARAMETERS = {
    "26, convolution": 13_696_552,
    "38, convolution": 19_626_792,
    "50, convolution": 25_557_032,
    "26, conv stem + attention": 10_342_632,
    "38, conv stem + attention": 14_190_632,
    "50, conv stem + attention": 18_038_632,
}
EMBEDDINGS = {26: 12_992, 38: 19_712, 50: 26_432}


@pytest.fixture
def published(monkeypatch):
    """Returns the profile of one network; each is built once."""

    def profile_one(table, name):
        (row,) = (r for r in PUBLISHED if (r.table, r.name) == (table, name))
        monkeypatch.setattr(published_networks, "PUBLISHED", (row,))
        ((_, ours),) = profile_published()
        return ours

    return profile_one


def embedding_parameters(ours, kernel_size=7):
    """k * filters for every attention layer."""
    return sum(
        kernel_size * row.output_shape[-1]
        for row in ours.rows
        if row.layer == "SelfAttention2D"
    )


def test_every_number_of_the_paper_is_in_the_tables():
    ours = {(row.table, row.name): row for row in PUBLISHED}
    assert list(ours) == ROWS
    for (table, name), row in ours.items():
        assert PAPER[table][name] == (
            row.flops,
            row.derived_flops,
            row.derived_separable,
            row.parameters,
            row.derived_parameters,
        )


@pytest.mark.parametrize("table, name", ALL_ROWS)
def test_flops_of_the_paper(published, table, name):
    printed, derived, separable, *_ = PAPER[table][name]
    ours = published(table, name)
    assert ours.uncounted == ()
    assert ours.flops / 1e9 == pytest.approx(printed, abs=0.15)
    if derived:
        assert ours.flops / 1e9 == pytest.approx(derived, rel=0.02)
    if separable:
        assert ours.flops_separable / 1e9 == pytest.approx(separable, rel=0.02)


@pytest.mark.parametrize("table, name", ALL_ROWS)
def test_parameters_of_the_paper(published, table, name):
    *_, printed, derived = PAPER[table][name]
    ours = published(table, name)
    millions = ours.trainable_parameters / 1e6
    if printed:
        assert millions == pytest.approx(printed, rel=0.02)
        assert millions == pytest.approx(printed, abs=0.1)
    if derived:
        expected = derived + embedding_parameters(ours) / 1e6
        assert millions == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(
    "name, expected",
    [
        (name, expected) if "26" in name else large(name, expected)
        for name, expected in TRAINABLE_PARAMETERS.items()
    ],
)
def test_exact_parameters(published, name, expected):
    ours = published("ImageNet: ResNet", name)
    assert ours.trainable_parameters == expected


@pytest.mark.parametrize(
    "depth, expected",
    [
        large(depth, expected) if depth == 38 else (depth, expected)
        for depth, expected in EMBEDDINGS.items()
    ],
)
def test_exact_parameters_of_embeddings(published, depth, expected):
    ours = published("ImageNet: ResNet", f"{depth}, conv stem + attention")
    assert embedding_parameters(ours) == expected


def test_embeddings_of_a_model():
    model = ResNet(NUM_BLOCKS[26], include_top=False, width_multiplier=0.25)
    embeddings = sum(
        math.prod(weight.shape)
        for weight in model.trainable_weights
        if weight.name.endswith("_embedding")
    )
    assert embeddings == embedding_parameters(profile(model, (64, 64, 3)))
    assert embeddings == EMBEDDINGS[26] // 4


@pytest.mark.parametrize("whole", [False, large(True)])
def test_main_prints_tables_and_writes_csv(
    whole, monkeypatch, capsys, tmp_path
):
    if not whole:
        quick = tuple(row for row in PUBLISHED if row.configuration in QUICK)
        monkeypatch.setattr(published_networks, "PUBLISHED", quick)
    expected = profile_published()
    main(["--csv", str(tmp_path / "tables.csv")])
    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert max(map(len, text.splitlines())) < 100
    assert "multiplication and an addition count as two" in " ".join(lines)
    headings = "naive paper derived separable derived trained paper derived"
    for row, _ in expected:
        assert f"{row.table} {headings}" in lines
        assert any(line.startswith(f"{row.name} ") for line in lines)
    # ours, paper prints, derived | separable: ours, derived | parameters
    assert (
        "50, conv stem + attention 7.01 7.0 6.97 6.87 6.81 18.04 18.0 18.01"
    ) in lines
    assert "q.r only 6.18 6.1 - 6.03 - 16.78 16.7 -" in lines

    with open(tmp_path / "tables.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    for (row, ours), cell in zip(expected, cells, strict=True):
        assert (cell["table"], cell["network"]) == (row.table, row.name)
        paper, _, _, parameters, _ = PAPER[row.table][row.name]
        assert float(cell["flops"]) == ours.flops / 1e9
        assert float(cell["flops_separable"]) == ours.flops_separable / 1e9
        assert float(cell["paper_flops"]) == paper
        assert cell["paper_parameters"] == str(parameters or "")


# In the quick run a test of the guides runs it in the same process.
@pytest.mark.large
def test_command_runs():
    command = [sys.executable, "-m", "keras_sasa.profile", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--csv FILE" in result.stdout


# Layers on an input, and their FLOPs by hand.
LAYERS = {
    # 30 pixels, 9 products of 2 channels, 4 filters; a bias for each output.
    "conv": (
        layers.Conv2D(4, 3, padding="same"),
        (5, 6, 2),
        2 * 30 * 9 * 2 * 4 + 120,
    ),
    # 2x2 pixels of output, 2 of the 4 channels for every filter.
    "conv, groups, strides, activation": (
        layers.Conv2D(
            6, (3, 1), 2, groups=2, use_bias=False, activation="relu"
        ),
        (5, 4, 4),
        2 * 4 * 3 * 2 * 6 + 24,
    ),
    "conv, channels first": (
        layers.Conv2D(4, 3, padding="same", data_format="channels_first"),
        (2, 5, 6),
        2 * 30 * 9 * 2 * 4 + 120,
    ),
    "conv 1d": (layers.Conv1D(4, 3), (7, 2), 2 * 5 * 3 * 2 * 4 + 20),
    # 3x4 outputs of 2 * 3 channels.
    "depthwise": (
        layers.DepthwiseConv2D(3, depth_multiplier=3),
        (5, 6, 2),
        2 * 12 * 9 * 6 + 72,
    ),
    # Depthwise to 6 channels, then pointwise to 4.
    "separable": (
        layers.SeparableConv2D(4, 3, depth_multiplier=3),
        (5, 6, 2),
        2 * 12 * 9 * 6 + 2 * 12 * 6 * 4 + 48,
    ),
    # Each of 30 pixels of the input is spread over 9; output 10x12.
    "transposed": (
        layers.Conv2DTranspose(4, 3, 2, padding="same"),
        (5, 6, 2),
        2 * 30 * 9 * 2 * 4 + 480,
    ),
    "dense": (layers.Dense(4, activation="softmax"), (3,), 2 * 3 * 4 + 4 + 4),
    "dense on pixels": (layers.Dense(4), (5, 6, 3), 30 * (2 * 3 * 4 + 4)),
    "normalization": (layers.BatchNormalization(), (5, 6, 2), 120),
    "layer normalization": (layers.LayerNormalization(), (5, 6, 2), 300),
    "relu": (layers.ReLU(), (5, 6, 2), 60),
    "activation": (layers.Activation("gelu"), (5, 6, 2), 60),
    "linear": (layers.Activation("linear"), (5, 6, 2), 0),
    "max pool": (layers.MaxPooling2D(3, 2, padding="same"), (5, 6, 2), 162),
    "average pool": (layers.AveragePooling2D(2), (5, 6, 2), 4 * 12),
    "global pool": (layers.GlobalAveragePooling2D(), (5, 6, 2), 60),
    "padding": (layers.ZeroPadding2D(2), (5, 6, 2), 0),
    "dropout": (layers.Dropout(0.5), (5, 6, 2), 0),
    "flatten": (layers.Flatten(), (5, 6, 2), 0),
    "nearest": (layers.UpSampling2D(2), (5, 6, 2), 0),
}


@pytest.mark.parametrize("layer, shape, flops", LAYERS.values(), ids=LAYERS)
def test_layer_by_hand(layer, shape, flops):
    counted = profile(keras.Sequential([keras.Input(shape), layer]))
    assert counted.flops == counted.flops_separable == flops
    assert counted.parameters == layer.count_params()
    assert counted.uncounted == ()


# 4x5 pixels, 3 channels, 4 filters, 2 heads, windows of 3x3. One projection of
# a pixel: 2 * 3 * 4 = 24. For a query: q.k, q.r and the weighted sum 2 * 9 * 4
# = 72 each, softmax 2 * 9 = 18. Separable q.r: (3 + 3) * 2 * 2 channels of a
# half in 2 heads = 24, and 18 additions for each of row and column.
ATTENTION = {
    "default": ({}, 3 * 20 * 24 + 20 * (72 + 72 + 72 + 18), 5880),
    "q.r only": (
        {"use_content": False},
        2 * 20 * 24 + 20 * (72 + 72 + 18),
        2 * 20 * 24 + 20 * (24 + 18 + 72 + 18),
    ),
    "no position": ({"position_encoding": None}, 4680, 4680),
    # The encoding is added to 20 pixels of 3 channels.
    "absolute": ({"position_encoding": "absolute"}, 4740, 4740),
    # Three projections of 20 pixels have 4 biases each.
    "bias": ({"use_bias": True}, 6120 + 240, 5880 + 240),
    # 2x3 queries; keys and values for all pixels.
    "strides": ({"strides": 2}, 46 * 24 + 6 * 234, 46 * 24 + 6 * 222),
    "valid": ({"padding": "valid"}, 46 * 24 + 6 * 234, 46 * 24 + 6 * 222),
    # Windows of 15: 120 for 72, 30 for 18; rows and columns 8 * 4 = 32.
    "rectangle": (
        {"kernel_size": (3, 5)},
        1440 + 20 * (120 + 120 + 120 + 30),
        1440 + 20 * (120 + 32 + 60 + 120 + 30),
    ),
    "channels first": ({"data_format": "channels_first"}, 6120, 5880),
}


@pytest.mark.parametrize(
    "options, flops, separable", ATTENTION.values(), ids=ATTENTION
)
def test_self_attention_by_hand(options, flops, separable):
    options = {"kernel_size": 3, "num_heads": 2, **options}
    layer = SelfAttention2D(4, **options)
    channels_first = layer.data_format == "channels_first"
    shape = (3, 4, 5) if channels_first else (4, 5, 3)
    counted = profile(keras.Sequential([keras.Input(shape), layer]))
    assert (counted.flops, counted.flops_separable) == (flops, separable)
    assert counted.parameters == layer.count_params()


# 5x6 pixels, 4 channels, 2 heads, windows of 3x3. Four projections of a pixel:
# 4 * 2 * 4 * 4 = 128, biases 16. For a query: q.k and the weighted sum, 2 * 9 *
# 4 = 72 each; position biases and softmax, 2 * 9 = 18 each. A window of 3x3
# dilated by 2 covers 6x6 pixels, to which the image is padded.
NEIGHBORHOODS = {
    "default": ({}, 30 * (128 + 16 + 72 + 72 + 18 + 18)),
    "no bias": ({"use_bias": False}, 30 * (128 + 72 + 72 + 18 + 18)),
    "dilation": ({"dilation_rate": 2}, 36 * (128 + 16 + 72 + 72 + 18 + 18)),
}


@pytest.mark.parametrize(
    "options, flops", NEIGHBORHOODS.values(), ids=NEIGHBORHOODS
)
def test_neighborhood_attention_by_hand(options, flops):
    layer = NeighborhoodAttention2D(2, 3, **options)
    counted = profile(keras.Sequential([keras.Input((5, 6, 4)), layer]))
    assert counted.flops == counted.flops_separable == flops
    assert counted.parameters == layer.count_params()


# 6x9 pixels, 4 channels, 6 filters, 4 of keys, 2 heads, blocks of 3x3, windows
# of 5x5. For a pixel: projections to keys and values, 2 * 4 * (4 + 6) = 80.
# For a query: its projection, 2 * 4 * 4 = 32; q.k 2 * 25 * 4 = 200; embeddings
# of 5 rows and 5 columns, 2 * 10 * 4 = 80; two sums and softmax, 3 * 2 * 25 =
# 150; weighted sum 2 * 25 * 6 = 300.
HALOS = {
    "default": ({}, 54 * (80 + 762)),
    "strides": ({"strides": 3}, 54 * 80 + 6 * 762),
    # Every pixel is a query; then 3x4 averages of 2x2 pixels and 6 channels.
    "pooled": ({"strides": 2}, 54 * (80 + 762) + 12 * 4 * 6),
}


@pytest.mark.parametrize("options, flops", HALOS.values(), ids=HALOS)
def test_halo_attention_by_hand(options, flops):
    layer = HaloAttention2D(6, 2, 3, 1, key_filters=4, **options)
    counted = profile(keras.Sequential([keras.Input((6, 9, 4)), layer]))
    assert counted.flops == counted.flops_separable == flops
    assert counted.parameters == layer.count_params()


# 4x6 pixels, 3 channels, 4 filters, 2 heads, blocks of 2x2. A projection of all
# pixels: 24 * 2 * 3 * 4 = 576. For a query: q.k and weighted sum 2 * 4 * 4 = 32
# each, softmax 2 * 4 = 8. Normalization 2 * 96, pooling 96.
STEM = 2 * 576 + 24 * (32 + 32 + 8) + 2 * 96 + 96
# The mixture in 4 places: add 2 channels; 3 products of 2; softmax of 3.
MIXTURE = 4 * (2 + 3 * 4 + 3)
STEMS = {
    "plain": (STEM + 576, STEM + 576),
    "conv": (STEM + 4 * 576, STEM + 4 * 576),
    # Three matrices of 3x4 are mixed in every pixel, or in 4 places.
    "spatially_aware": (
        STEM + 576 + MIXTURE + 24 * 3 * 24,
        STEM + 576 + MIXTURE + 4 * 3 * 24,
    ),
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("values, flops", STEMS.items())
def test_attention_stem_by_hand(values, flops, data_format):
    layer = AttentionStem(
        4,
        block_size=2,
        num_heads=2,
        num_mixtures=3,
        values=values,
        data_format=data_format,
    )
    shape = (4, 6, 3) if data_format == "channels_last" else (3, 4, 6)
    counted = profile(keras.Sequential([keras.Input(shape), layer]))
    assert (counted.flops, counted.flops_separable) == flops
    assert counted.parameters == layer.count_params()


def test_stem_pools_full_windows_at_the_border():
    model = keras.Sequential([keras.Input((3, 3, 1)), AttentionStem(4, 2, 2)])
    larger = keras.Sequential([keras.Input((4, 4, 1)), AttentionStem(4, 2, 2)])
    # Four blocks in both; seven queries less. For one: three projections,
    # four mixtures, attention, normalization.
    query = 3 * 2 * 4 + 4 * 2 * 4 + (32 + 32 + 8) + 2 * 4
    assert profile(larger).flops - profile(model).flops == 7 * query


def test_merges():
    inputs = keras.Input((5, 6, 2))
    for layer, flops in (
        (layers.Add(), 120),
        (layers.Multiply(), 120),
        (layers.Average(), 180),
        (layers.Concatenate(), 0),
    ):
        outputs = layer([inputs, inputs, inputs])
        assert profile(keras.Model(inputs, outputs)).flops == flops


def test_functions_of_keras_in_a_graph():
    inputs = keras.Input((5, 6, 2))
    outputs = keras.ops.relu(inputs + 1)[..., :1]
    counted = profile(keras.Model(inputs, outputs))
    assert counted.flops == 60 + 60
    assert counted.uncounted == ()


def test_shared_layer_counts_each_call_and_its_parameters_once():
    inputs = keras.Input((5, 6, 2))
    layer = layers.Conv2D(2, 1, use_bias=False, name="shared")
    outputs = layers.Add(name="add")([layer(inputs), layer(layer(inputs))])
    counted = profile(keras.Model(inputs, outputs))
    assert [row.name for row in counted.rows] == ["shared"] * 3 + ["add"]
    assert [row.parameters for row in counted.rows] == [4, 0, 0, 0]
    assert counted.flops == 3 * 30 * 2 * 4 + 60


def test_shared_layer_at_two_sizes():
    layer = SelfAttention2D(4, 3, num_heads=2, name="head")
    large, small = keras.Input((8, 8, 4)), keras.Input((4, 4, 4))
    model = keras.Model([large, small], [layer(large), layer(small)])
    rows = {row.output_shape: row for row in profile(model).rows}
    assert rows[8, 8, 4].flops == 4 * rows[4, 4, 4].flops


def test_nested_models():
    inner = keras.Input((None, None, 2))
    block = keras.Model(
        inner, layers.ReLU(name="relu")(layers.Conv2D(2, 1)(inner)), name="net"
    )
    tail = keras.Sequential([layers.Flatten(), layers.Dense(3)], name="tail")
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, tail(block(block(inputs))))
    counted = profile(model)
    names = [row.name.split("/")[0] for row in counted.rows]
    assert names == ["net"] * 4 + ["tail"] * 2
    assert counted.rows[1].name == "net/relu"
    conv = 2 * 16 * 2 * 2 + 32
    assert counted.flops == 2 * (conv + 32) + 2 * 32 * 3 + 3
    assert counted.parameters == model.count_params()


class Scale(layers.Layer):
    """A layer with one weight that the profile does not know."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],))

    def call(self, inputs):
        return inputs * self.scale


class Block(layers.Layer):
    """A layer made of layers and functions, with a weight of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(2, 1, name="conv")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.scale = self.add_weight(shape=(2,))

    def call(self, inputs):
        return self.conv(self.conv(inputs)) * self.scale


class Subclassed(keras.Model):
    def __init__(self, outside=False):
        super().__init__()
        self.block = Block(name="block")
        self.dense = layers.Dense(3, name="dense")
        self.outside = outside

    def call(self, inputs):
        if self.outside:
            inputs = np.asarray(inputs)
        return self.dense(self.block(inputs))


def test_uncounted_layer_is_listed():
    inputs = keras.Input((4, 4, 2))
    layer = Scale(name="scale")
    model = keras.Model(inputs, layers.ReLU()(layer(layer(inputs))))
    counted = profile(model)
    assert counted.uncounted == ("scale",)
    assert counted.flops == 32
    assert counted.parameters == 2
    assert [row.flops for row in counted.rows] == [None, None, 32]
    assert "FLOPs not counted: scale" in str(counted)


def test_unknown_ways_of_known_layers_are_listed():
    inputs = keras.Input((4, 4, 2))
    x = layers.UpSampling2D(interpolation="bilinear", name="bilinear")(inputs)
    # Keras infers no sizes for this one.
    x = layers.EinsumDense("abcd,de->abce", (None, None, 2), name="product")(x)
    counted = profile(keras.Model(inputs, layers.ReLU(name="relu")(x)))
    assert counted.uncounted[:2] == ("bilinear", "product")


def test_layer_made_of_layers_is_opened():
    model = keras.Sequential([keras.Input((4, 4, 2)), Block(name="block")])
    counted = profile(model)
    assert counted.flops == 2 * (2 * 16 * 2 * 2 + 32) + 32
    assert counted.parameters == model.count_params() == 8
    assert counted.rows[0].name == counted.rows[1].name == "block/conv"
    assert counted.rows[-1].name == "block"
    assert counted.uncounted == ()


def test_subclassed_model():
    model = Subclassed()
    model(np.zeros((1, 4, 4, 2)))
    for _ in range(2):
        counted = profile(model, (4, 4, 2))
        block = 2 * (2 * 16 * 2 * 2 + 32) + 32
        assert counted.flops == block + 16 * (2 * 2 * 3 + 3)
        assert counted.parameters == model.count_params()


def test_subclassed_model_that_cannot_be_traced():
    model = Subclassed(outside=True)
    model(np.zeros((1, 4, 4, 2)))
    with pytest.raises(ValueError, match="Received: model=<Subclassed.*failed"):
        profile(model, (4, 4, 2))


def test_input_shape():
    model = ResNet((1,), include_top=False, width_multiplier=0.25)
    counted = profile(model, input_shape=(64, 32, 3))
    twice = profile(model, input_shape=(64, 64, 3))
    assert twice.flops == 2 * counted.flops
    assert counted.rows[-1].output_shape == (16, 8, 64)
    assert counted.parameters == model.count_params()
    # A model with a size of its own takes another one.
    fixed = ResNet((1,), width_multiplier=0.25, input_shape=(64, 64, 3))
    assert profile(fixed, (32, 32, 3)).flops < profile(fixed).flops


def test_model_is_left_as_it_was():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(
        inputs, SelfAttention2D(4, 3, num_heads=2, name="a")(inputs)
    )
    profile(model, (8, 8, 2))
    # Fails once a layer has been called a second time.
    assert model.get_layer("a").output.shape == (None, 4, 4, 4)


def test_frozen_layers_are_not_trained():
    model = ResNet((1,), width_multiplier=0.25, input_shape=(32, 32, 3))
    trained = profile(model).trainable_parameters
    assert 0 < trained < profile(model).parameters == model.count_params()
    model.get_layer("predictions").trainable = False
    weights = model.get_layer("predictions").count_params()
    assert profile(model).trainable_parameters == trained - weights
    model.trainable = False
    assert profile(model).trainable_parameters == 0


def test_totals_are_sums_of_rows():
    model = ResNet((1, 1), width_multiplier=0.25, input_shape=(32, 32, 3))
    counted = profile(model)
    assert len(counted.rows) == len(model.layers) - 1
    assert counted.flops == sum(row.flops for row in counted.rows)
    assert str(counted).splitlines()[-2].split() == [
        "total",
        f"{counted.parameters:,}",
        f"{counted.flops:,}",
        f"{counted.flops_separable:,}",
    ]


def test_every_counted_layer_is_one_of_keras():
    for kind in COUNTS:
        assert issubclass(kind, layers.Layer)


def test_unknown_size_is_an_error():
    model = ResNet((1,), include_top=False, name="open")
    with pytest.raises(
        ValueError,
        match="axis 1 of input 0, axis 2 of input 0 of model 'open'.*=None",
    ):
        profile(model)
    with pytest.raises(ValueError, match=r"axis 2 .*=\(32, None, 3\)"):
        profile(model, (32, None, 3))
    with pytest.raises(ValueError, match=r"axis 1 .*=\(0, 32, 3\)"):
        profile(model, (0, 32, 3))


def test_subclassed_model_needs_input_shape():
    model = Subclassed()
    model(np.zeros((1, 4, 4, 2)))
    with pytest.raises(ValueError, match="Unknown: the whole input"):
        profile(model)


def test_input_shape_that_does_not_fit_is_an_error():
    model = ResNet((1,), include_top=False)
    with pytest.raises(ValueError, match=r"axes.*=\(32, 32\)"):
        profile(model, (32, 32))
    with pytest.raises(ValueError, match=r"'stem_conv' must be 3.*32, 32, 4\)"):
        profile(model, (32, 32, 4))


def test_unbuilt_model_is_an_error():
    model = keras.Sequential([layers.Dense(3)], name="unbuilt")
    with pytest.raises(ValueError, match="Received: model=.*unbuilt"):
        profile(model, (4,))
    with pytest.raises(ValueError, match="Received: model=3"):
        profile(3)


def small_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            SelfAttention2D(8, kernel_size=3, num_heads=2, name="attention"),
            keras.Sequential([layers.ReLU(name="relu")], name="inner"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, name="dense"),
        ],
        name="small",
    )


def test_times_of_layers(monkeypatch):
    # Measured times of layers this small can be 0 on a busy machine.
    monkeypatch.setattr(
        walk,
        "milliseconds",
        lambda layer, *_: {"attention": 3.0}.get(layer.name, 0.5),
    )
    measured = profile(small_model(), repeats=2)
    assert measured.milliseconds >= 0
    times = [row.milliseconds for row in measured.rows]
    assert times == [3.0, 0.5, 0.5, 0.5]
    assert measured.layer_milliseconds == sum(times)
    lines = str(measured).splitlines()
    assert lines[0].split()[-2:] == ["ms", "share"]
    assert lines[1].split()[-2] == f"{times[0]:.2f}"
    share = times[0] / sum(times)
    assert lines[1].split()[-1] == f"{share:.1%}"
    assert f"whole model: {measured.milliseconds:.2f} ms" in lines[-2]


def test_a_slow_layer_is_seen_to_be_slow():
    class Slow(layers.Layer):
        def call(self, inputs):
            # Products of matrices far larger than any overhead.
            outputs = inputs
            for _ in range(20):
                outputs = outputs @ inputs
            return outputs

    model = keras.Sequential(
        [keras.Input((300, 300)), Slow(name="slow"), layers.ReLU(name="relu")]
    )
    slow, relu = profile(model, repeats=5).rows
    assert slow.milliseconds > 5 * relu.milliseconds


def test_no_times_unless_asked():
    measured = profile(small_model())
    assert measured.milliseconds is None
    assert all(row.milliseconds is None for row in measured.rows)


@pytest.mark.parametrize("repeats", [-1, 1.5, "2"])
def test_bad_repeats(repeats):
    with pytest.raises(ValueError, match=f"repeats={repeats!r}"):
        profile(small_model(), repeats=repeats)


def test_main_on_a_saved_model(capsys, tmp_path):
    path, table, picture = (
        str(tmp_path / name) for name in ("m.keras", "m.csv", "m.png")
    )
    model = small_model()
    model.save(path)
    main([path, "--repeats", "1", "--csv", table, "--picture", picture])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["layer", "class", "output"]
    expected = profile(model)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [row.name for row in expected.rows]
    assert sum(int(row["flops"]) for row in rows) == expected.flops
    assert rows[0]["output_shape"] == "8x8x8"
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_main_needs_sizes_that_are_open(tmp_path, capsys):
    path = str(tmp_path / "m.keras")
    keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3, name="conv")]
    ).save(path)
    with pytest.raises(SystemExit, match="axis 1 of input 0"):
        main([path])
    main([path, "--input-shape", "8", "8", "3", "--repeats", "0"])
    assert "6x6x4" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing.keras"], "File not found"),
        (["--picture", "p.png"], "--picture and --input-shape need a MODEL"),
        (
            ["m.keras", "--csv", "no/m.csv"],
            "--csv: the directory of 'no/m.csv' does",
        ),
        (["--csv", "."], "--csv: '.' is a directory"),
        (["m.keras", "--picture", "m.xyz"], "'m.xyz' must end in one of .png"),
    ],
)
def test_main_refuses(arguments, message, tmp_path, monkeypatch, capsys):
    """Before anything is measured."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code not in (0, None)
    assert message in f"{error.value.code} {capsys.readouterr().err}"
    assert not list(tmp_path.iterdir())


def test_main_on_a_model_with_classes_of_its_own(tmp_path):
    class Own(layers.Layer):
        def call(self, inputs):
            return inputs

    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((4,)), Own()]).save(path)
    with pytest.raises(
        SystemExit, match="only the program behind.*class 'Own'"
    ) as error:
        main([str(path)])
    assert "\n" not in error.value.code


@pytest.mark.parametrize("input_shape", [8, {"x": (8, 8, 4)}, "shape"])
def test_input_shape_of_a_wrong_kind(input_shape):
    with pytest.raises(ValueError, match="`input_shape` must be a shape"):
        profile(small_model(), input_shape)


def test_input_shape_of_numpy():
    shape = np.array([8, 8, 4])
    assert profile(small_model(), shape).flops == profile(small_model()).flops


def test_times_of_a_model_with_a_dict_of_inputs():
    inputs = {name: keras.Input((4,), name=name) for name in ("two", "one")}
    outputs = layers.Dense(2)(inputs["one"]) + inputs["two"][:, :2]
    measured = profile(keras.Model(inputs, outputs), repeats=1)
    assert measured.milliseconds is not None


def test_picture_joins_small_layers():
    inputs = keras.Input((16,))
    outputs = inputs
    for width in range(1, 41):
        outputs = layers.Dense(width, name=f"dense{width}")(outputs)
    counted = profile(keras.Model(inputs, outputs))
    axes = plot_profile(counted).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == 31
    assert names[-1] == "10 other layers"
    assert names[-2] == "dense40"
    lengths = [bar.get_width() for bar in axes.patches]
    assert sum(lengths) == counted.parameters
    assert max(lengths[:-1]) == 40 * 40
