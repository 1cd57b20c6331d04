"""Attention weights of whole models, and their place in an image."""

import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from keras_sasa import NeighborhoodAttention2D, SelfAttention2D
from keras_sasa.applications import ResNet
from keras_sasa.applications.nat import NAT
from keras_sasa.visualize import (
    attention_calls,
    attention_maps,
    attention_statistics,
    pixel_attention,
    plot_attention,
    plot_detections,
    plot_history,
    position_logits,
    window_in_image,
)
from tests.support import oracle
from tests.support.nat_tensors import TINY


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def attention(name, **options):
    options = {"filters": 4, "kernel_size": 3, "num_heads": 2, **options}
    return SelfAttention2D(name=name, **options)


def small_resnet():
    return ResNet(
        (1, 1),
        stem="small",
        kernel_size=3,
        num_heads=2,
        input_shape=(8, 8, 3),
        width_multiplier=1 / 16,
        classes=4,
    )


def test_weights_are_those_of_the_oracle():
    """Behind another layer, so that the input of the layer matters."""
    inputs = keras.Input((5, 6, 3))
    doubled = keras.layers.Rescaling(2.0)(inputs)
    layer = attention("attend")
    model = keras.Model(inputs, layer(doubled))
    batch = images(2, 5, 6, 3)
    weights = {
        name: ops.convert_to_numpy(getattr(layer, name))
        for name in (
            "query_kernel",
            "key_kernel",
            "value_kernel",
            "row_embedding",
            "column_embedding",
        )
    }
    _, expected = oracle.self_attention_2d(
        2 * batch, weights, num_heads=2, kernel_size=3
    )
    maps = attention_maps(model, batch)
    assert list(maps) == ["attend"]
    assert maps["attend"].dtype == "float32"
    np.testing.assert_allclose(maps["attend"], expected, atol=1e-5)


def test_every_layer_of_a_resnet_in_order():
    maps = attention_maps(small_resnet(), images(2, 8, 8, 3))
    assert {name: weights.shape for name, weights in maps.items()} == {
        "group1_block1_attention": (2, 8, 8, 2, 3, 3),
        "group2_block1_attention": (2, 8, 8, 2, 3, 3),
    }
    assert list(maps) == sorted(maps)
    for weights in maps.values():
        np.testing.assert_allclose(weights.sum((-2, -1)), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "layers", ["group2_block1_attention", ["group2_block1_attention"]]
)
def test_chosen_layers(layers):
    model, batch = small_resnet(), images(1, 8, 8, 3)
    name = "group2_block1_attention"
    maps = attention_maps(model, batch, layers)
    assert list(maps) == [name]
    np.testing.assert_array_equal(
        maps[name], attention_maps(model, batch)[name]
    )


def test_loaded_model_and_unchanged_model(tmp_path):
    model, batch = small_resnet(), images(2, 8, 8, 3)
    before = model.get_config(), model.predict(batch, verbose=0)
    expected = attention_maps(model, batch)
    assert model.get_config() == before[0]
    np.testing.assert_array_equal(model.predict(batch, verbose=0), before[1])

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    maps = attention_maps(loaded, batch)
    for name, weights in expected.items():
        np.testing.assert_allclose(maps[name], weights, rtol=1e-6)


def test_weights_behind_the_native_kernel(tmp_path, native_available):
    """Of a loaded model whose layers all ask for the kernel."""
    maps = {}
    for implementation in ("patches", "native"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                attention("first", implementation=implementation),
                attention("second", implementation=implementation),
            ]
        )
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.layers[0].implementation == implementation
        maps[implementation] = attention_maps(loaded, images(2, 8, 8, 3))
    for name, weights in maps["native"].items():
        np.testing.assert_allclose(weights, maps["patches"][name], atol=1e-5)


def test_images_as_the_model_takes_them():
    """Bytes, and without the axis of a single channel."""
    inputs = keras.Input((6, 6, 1))
    model = keras.Model(inputs, attention("attend")(inputs / 16))
    batch = (16 * np.abs(images(2, 6, 6))).astype("uint8")
    np.testing.assert_array_equal(
        attention_maps(model, batch)["attend"],
        attention_maps(model, batch[..., None].astype("float32"))["attend"],
    )


def test_what_no_later_layer_needs_is_let_go_of():
    class Remember(keras.layers.Layer):
        outputs = []

        def call(self, inputs):
            outputs = inputs + 1
            self.outputs.append(weakref.ref(outputs))
            return outputs

    inputs = x = keras.Input((4, 4, 4))
    for number in range(3):
        x = Remember()(Remember()(x))
        x = keras.layers.Add()([x, attention(f"attend_{number}")(x)])
    model = keras.Model(inputs, x)
    Remember.outputs.clear()
    calls = attention_calls.find_calls(model)
    seen = []
    for call in attention_calls.attention_calls(
        model, images(1, 4, 4, 4), calls
    ):
        seen.append(call.name)
        alive = [output() for output in Remember.outputs]
        assert [each is not None for each in alive] == (
            [False] * (2 * len(seen) - 1) + [True]
        )
        del alive
    assert seen == ["attend_0", "attend_1", "attend_2"]
    # Nothing behind the last attention layer is computed.
    assert len(Remember.outputs) == 6


def test_neighborhood_attention():
    """Maps of every layer; its windows have no fixed place around a query."""
    model = NAT(
        TINY, weights=None, kernel_size=3, input_shape=(20, 26, 3), classes=5
    )
    maps = attention_maps(model, images(2, 20, 26, 3))
    assert {name: weights.shape for name, weights in maps.items()} == {
        "group1_block1_attention": (2, 5, 7, 1, 3, 3),
        "group2_block1_attention": (2, 3, 4, 2, 3, 3),
        "group2_block2_attention": (2, 3, 4, 2, 3, 3),
    }
    for weights in maps.values():
        np.testing.assert_allclose(weights.sum((-2, -1)), 1, atol=1e-5)
    with pytest.raises(ValueError, match="at least one `SelfAttention2D`"):
        position_logits(model, images(2, 20, 26, 3))


def test_pixel_of_neighborhood_attention():
    """Windows move at the border, and exceed a map that is too small."""
    inputs = keras.Input((5, 9, 4))
    layer = NeighborhoodAttention2D(2, 3, (2, 1), name="attend")
    model = keras.Model(inputs, layer(inputs))
    batch = images(2, 5, 9, 4)
    pixels = np.array([[0, 0], [4, 7]])
    look = pixel_attention(model, batch, pixels)["attend"]
    weights = attention_maps(model, batch)["attend"]
    np.testing.assert_array_equal(look.positions, pixels)
    # Rows 0, 2, 4 of a map that is padded to six rows; columns 0 to 2, 6 to 8.
    np.testing.assert_array_equal(look.centers, [[2, 1], [2, 7]])
    np.testing.assert_array_equal(look.weights[1], weights[1, 4, 7])
    expected = np.zeros((2, 5, 9), "float32")
    expected[:, ::2, 6:] = weights[1, 4, 7]
    np.testing.assert_array_equal(look.in_image[1], expected)
    assert (
        len(
            plot_attention(
                batch[..., :3],
                look.weights,
                look.positions,
                look.input_size,
                look.dilation_rate,
                centers=look.centers,
            ).axes
        )
        == 6
    )


def test_batch_normalization_is_not_training():
    model, batch = small_resnet(), images(4, 8, 8, 3)
    together = attention_maps(model, batch)
    alone = attention_maps(model, batch[:1])
    for name, weights in together.items():
        np.testing.assert_allclose(alone[name], weights[:1], atol=1e-5)


def assert_same_maps(actual, expected):
    assert list(actual) == list(expected)
    for name, weights in expected.items():
        np.testing.assert_allclose(actual[name], weights, atol=1e-6)


@pytest.mark.parametrize("kind", ["sequential", "layer"])
def test_augmentation_inside_a_model_is_not_training(kind):
    """Keras' augmentations are of training unless they are told."""

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.flip = keras.layers.RandomFlip()

        def call(self, inputs):
            return self.flip(inputs)

    flip = (
        Block()
        if kind == "layer"
        else keras.Sequential([keras.layers.RandomFlip()])
    )
    layer, batch = attention("attend"), images(6, 4, 5, 3)
    model = keras.Sequential([keras.Input((4, 5, 3)), flip, layer])
    before = [ops.convert_to_numpy(variable) for variable in model.variables]
    assert_same_maps(
        attention_maps(model, batch),
        attention_maps(
            keras.Sequential([keras.Input((4, 5, 3)), layer]), batch
        ),
    )
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_inputs_by_name():
    """In another order than that of their names."""
    zoom, area = (
        keras.Input((4, 5, 3), name=name) for name in ("zoom", "area")
    )
    outputs = attention("both")(attention("one")(zoom) + attention("two")(area))
    inner = keras.Model([zoom, area], outputs, name="inner")
    outer = [keras.Input((4, 5, 3)), keras.Input((4, 5, 3))]
    model = keras.Model(outer, inner({"zoom": outer[0], "area": outer[1]}))
    one, two = images(2, 2, 4, 5, 3)
    expected = attention_maps(inner, [one, two])
    assert_same_maps(
        attention_maps(inner, {"area": two, "zoom": one}), expected
    )
    assert_same_maps(
        attention_maps(model, [one, two]),
        {f"inner/{name}": weights for name, weights in expected.items()},
    )


def test_input_that_is_one_of_the_names():
    inputs = keras.Input((4, 5, 3), name="image")
    model = keras.Model(inputs, attention("attend")(inputs))
    batch, other = images(2, 2, 4, 5, 3)
    assert_same_maps(
        attention_maps(model, {"another": other, "image": batch}),
        attention_maps(model, batch),
    )


def test_optional_input_that_is_left_out():
    class Add(keras.layers.Layer):
        def call(self, inputs, other=None):
            return inputs if other is None else inputs + other

    image = keras.Input((4, 5, 3))
    other = keras.Input((4, 5, 3), optional=True)
    layer, batch = attention("attend"), images(2, 4, 5, 3)
    model = keras.Model([other, image], layer(Add()(image, other)))
    alone = keras.Sequential([keras.Input((4, 5, 3)), layer])
    assert_same_maps(
        attention_maps(model, [None, batch]), attention_maps(alone, batch)
    )
    assert list(pixel_attention(model, [None, batch], (1, 1))) == ["attend"]
    statistics = attention_statistics(model, [None, batch])["attend"]
    assert statistics.distance.shape == (2, 2)


def test_image_among_other_inputs():
    image = keras.Input((8, 10, 3), name="image")
    box = keras.Input((5, 4), name="box")
    outputs = {"a": attention("attend")(image), "b": keras.layers.Dense(2)(box)}
    model = keras.Model({"image": image, "box": box}, outputs)
    inputs = {"image": images(2, 8, 10, 3), "box": images(2, 5, 4)}
    look = pixel_attention(model, inputs, (7, 9))["attend"]
    np.testing.assert_array_equal(look.positions, [[7, 9]] * 2)


def test_no_image_among_the_inputs():
    inputs = keras.Input((16,))
    outputs = attention("attend")(keras.layers.Reshape((4, 4, 1))(inputs))
    with pytest.raises(ValueError, match=r"of `images` must be .*\(2, 16\)"):
        pixel_attention(keras.Model(inputs, outputs), images(2, 16), (1, 1))


class Scaled(keras.Model):
    """A subclassed model, inside of which there may be attention."""

    def __init__(self, *inside):
        super().__init__(name="scaled")
        self.inside = list(inside)

    def call(self, inputs):
        for layer in self.inside:
            inputs = layer(inputs)
        return 2 * inputs


def test_subclassed_model_inside_a_model():
    inputs = keras.Input((4, 4, 3))
    layer, batch = attention("attend"), images(2, 4, 4, 3)
    model = keras.Model(inputs, layer(Scaled()(inputs)))
    alone = keras.Sequential([keras.Input((4, 4, 3)), layer])
    assert_same_maps(
        attention_maps(model, batch), attention_maps(alone, 2 * batch)
    )


def test_attention_out_of_reach_is_named():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, Scaled(attention("hidden"))(inputs))
    with pytest.raises(
        ValueError, match=r"'scaled'.*of which are \['hidden'\]"
    ):
        attention_maps(model, images(1, 4, 4, 3))


def test_inner_model_called_by_keyword():
    layer, inputs = attention("attend"), keras.Input((4, 4, 3))
    inner = keras.Sequential([keras.Input((4, 4, 3)), layer], name="inner")
    model, batch = (
        keras.Model(inputs, inner(inputs=inputs)),
        images(2, 4, 4, 3),
    )
    np.testing.assert_array_equal(
        attention_maps(model, batch)["inner/attend"],
        attention_maps(inner, batch)["attend"],
    )


@pytest.mark.filterwarnings("ignore:Layer 'inner':UserWarning")
def test_mask_of_an_inner_model():
    """Keras warns that the mask is not handed on behind the inner model."""
    layer, inputs = attention("attend"), keras.Input((4, 4, 3))
    inner = keras.Sequential([keras.Input((4, 4, 3)), layer], name="inner")
    mask = keras.Input((4, 4), dtype="bool")
    model = keras.Model([inputs, mask], inner(inputs, mask=mask))
    batch, allowed = images(2, 4, 4, 3), images(2, 4, 4) > 0
    _, expected = layer(batch, mask=allowed, return_attention_scores=True)
    np.testing.assert_allclose(
        attention_maps(model, [batch, allowed])["inner/attend"],
        ops.convert_to_numpy(expected),
        atol=1e-6,
    )


def test_output_that_nobody_needs_is_let_go_of():
    class Two(keras.layers.Layer):
        unused = []

        def call(self, inputs):
            outputs = inputs - 1
            self.unused.append(weakref.ref(outputs))
            return inputs + 1, outputs

        def compute_output_shape(self, input_shape):
            return input_shape, input_shape

    inputs = x = keras.Input((4, 4, 4))
    for number in range(2):
        x, _ = Two()(x)
        x = attention(f"attend_{number}")(x)
    model = keras.Model(inputs, x)
    Two.unused.clear()
    calls = attention_calls.find_calls(model)
    for _ in attention_calls.attention_calls(model, images(1, 4, 4, 4), calls):
        assert not any(output() is not None for output in Two.unused)
    assert len(Two.unused) == 2


@pytest.mark.parametrize(
    "convert",
    [lambda batch: batch.tolist(), list, lambda batch: [batch]],
    ids=["numbers", "arrays", "one_input"],
)
def test_lists_of_images(convert):
    model, batch = small_resnet(), images(2, 8, 8, 3)
    assert_same_maps(
        attention_maps(model, convert(batch)), attention_maps(model, batch)
    )


@pytest.mark.parametrize(
    "batch, message",
    [
        (images(0, 8, 8, 3), r"`images` must be .*\[\(0, 8, 8, 3\)\]"),
        ([], r"`images` must be .*\[\(0,\)\]"),
        ([[1.0], [1.0, 2.0]], "`images` must be an array, or lists of equal"),
    ],
    ids=["empty", "nothing", "ragged"],
)
def test_wrong_images(batch, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(small_resnet(), batch)


def test_inputs_of_unlike_batches():
    inputs = [keras.Input((4, 4, 3)), keras.Input((4, 4, 3))]
    model = keras.Model(inputs, attention("attend")(inputs[0] + inputs[1]))
    with pytest.raises(ValueError, match="the same number in each input"):
        attention_maps(model, [images(2, 4, 4, 3), images(3, 4, 4, 3)])


@pytest.mark.parametrize(
    "pixels",
    [None, 5, (1, 2, 3), (1.5, 2.0), (True, False), [(1, 2)] * 3, [(1, 2), 3]],
    ids=str,
)
def test_wrong_pixels(pixels):
    with pytest.raises(ValueError, match="`pixels` must be a pair of integers"):
        pixel_attention(small_resnet(), images(2, 8, 8, 3), pixels)


def test_layers_of_other_kinds():
    model, batch = small_resnet(), images(1, 8, 8, 3)
    name = "group2_block1_attention"
    assert list(attention_maps(model, batch, (n for n in [name]))) == [name]
    for layers in (1, model.get_layer(name)):
        with pytest.raises(ValueError, match="^`layers` must be among"):
            attention_maps(model, batch, layers)


def test_inner_models_and_shared_layers():
    inputs = keras.Input((6, 6, 4))
    shared = attention("shared")
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), attention("a"), attention("b")], name="inner"
    )
    # Used elsewhere first: `shared.input` is in the other model.
    keras.Model(inputs, inner(shared(inputs)))
    first = keras.Input((6, 6, 4))
    x = shared(inner(shared(first)))
    model = keras.Model(first, x)
    batch = images(1, 6, 6, 4)
    maps = attention_maps(model, batch)
    assert set(maps) == {"shared", "shared:1", "inner/a", "inner/b"}

    def weights(layer, x):
        _, scores = layer(x, return_attention_scores=True)
        return ops.convert_to_numpy(scores)

    x = shared(batch)
    np.testing.assert_allclose(maps["shared"], weights(shared, batch))
    np.testing.assert_allclose(
        maps["inner/a"], weights(inner.layers[0], x), atol=1e-6
    )
    np.testing.assert_allclose(
        maps["inner/b"],
        weights(inner.layers[1], inner.layers[0](x)),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        maps["shared:1"], weights(shared, inner(x)), atol=1e-6
    )
    assert list(attention_maps(model, batch, "inner/b")) == ["inner/b"]


def test_mask_of_the_layer_is_kept():
    inputs = keras.Input((4, 4, 4))
    mask = keras.Input((4, 4), dtype="bool")
    outputs = attention("attend")(inputs, mask=mask)
    model = keras.Model([inputs, mask], outputs)
    allowed = np.ones((1, 4, 4), bool)
    allowed[0, 1, 2] = False
    maps = attention_maps(model, [images(1, 4, 4, 4), allowed])["attend"]
    # The key right of the query (1, 1).
    np.testing.assert_array_equal(maps[0, 1, 1, :, 1, 2], 0)
    assert (maps[0, 1, 1, :, 1, 0] > 0).all()


def test_float16_weights_are_float32_arrays():
    model = keras.Sequential(
        [keras.Input((4, 4, 4)), attention("attend", dtype="mixed_float16")]
    )
    assert attention_maps(model, images(1, 4, 4, 4))["attend"].dtype == (
        "float32"
    )


def test_model_without_attention():
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Conv2D(4, 3, name="only_conv")]
    )
    with pytest.raises(ValueError, match=r"SelfAttention2D.*only_conv"):
        attention_maps(model, images(1, 4, 4, 3))


def test_unknown_layer_names_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"\['group1_block1_attention', 'group2_block1_attention'\]"
        r".*layers='group3'",
    ):
        attention_maps(small_resnet(), images(1, 8, 8, 3), "group3")


@pytest.mark.parametrize("kind", ["subclass", "unbuilt"])
def test_model_without_a_graph(kind):
    class Subclass(keras.Model):
        pass

    model = (
        Subclass()
        if kind == "subclass"
        else keras.Sequential([attention("attend")])
    )
    with pytest.raises(ValueError, match="functional or a built sequential"):
        attention_maps(model, images(1, 4, 4, 3))


WINDOW = np.arange(1, 10).reshape(3, 3)


@pytest.mark.parametrize(
    "row, column, expected",
    [
        (1, 1, [[1, 2, 3, 0], [4, 5, 6, 0], [7, 8, 9, 0]]),
        (0, 0, [[5, 6, 0, 0], [8, 9, 0, 0], [0, 0, 0, 0]]),
        (2, 3, [[0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 4, 5]]),
    ],
)
def test_window_in_image(row, column, expected):
    placed = window_in_image(WINDOW, row, column, (3, 4))
    np.testing.assert_array_equal(placed, expected)


def test_window_larger_than_the_image():
    np.testing.assert_array_equal(
        window_in_image(WINDOW, 0, 0, (1, 2)), [[5, 6]]
    )


def test_window_with_dilation():
    expected = np.zeros((4, 5))
    expected[1::2, ::2] = WINDOW[1:]
    # Rows -1, 1 and 3; columns 0, 2 and 4.
    np.testing.assert_array_equal(
        window_in_image(WINDOW, 1, 2, (4, 5), dilation_rate=2), expected
    )
    expected = np.zeros((4, 5))
    expected[:3, ::2] = WINDOW
    np.testing.assert_array_equal(
        window_in_image(WINDOW, 1, 2, (4, 5), dilation_rate=(1, 2)), expected
    )


def test_window_of_many_heads_keeps_all_weights():
    """Weights are 0 outside the image, so that nothing is cut off."""
    model = keras.Sequential([keras.Input((5, 6, 3)), attention("attend")])
    maps = attention_maps(model, images(1, 5, 6, 3))["attend"]
    placed = window_in_image(maps[0, 0, 5], 0, 5, (5, 6))
    assert placed.shape == (2, 5, 6)
    np.testing.assert_allclose(placed.sum((-2, -1)), 1, rtol=1e-5)


def test_query_outside_the_image():
    with pytest.raises(ValueError, match=r"row=3, column=0, .*\(3, 4\)"):
        window_in_image(WINDOW, 3, 0, (3, 4))
    with pytest.raises(ValueError, match="row=0, column=-1"):
        window_in_image(WINDOW, 0, -1, (3, 4))


PIXELS = {
    # On the map of the layer 6 x 4 of an image of 12 x 8, so half of it.
    "same": ({}, (7, 2), (3, 1)),
    "dilated": ({"dilation_rate": 2}, (11, 0), (5, 0)),
    # Queries are the rows 0, 2, 4 and the columns 0, 2.
    "strided": ({"strides": 2}, (9, 7), (4, 2)),
    # Queries are the rows 1 to 4 and the columns 1 and 2.
    "valid": ({"padding": "valid"}, (0, 7), (1, 2)),
    "channels first": ({"data_format": "channels_first"}, (7, 2), (3, 1)),
}


@pytest.mark.parametrize(
    "options, pixel, position", PIXELS.values(), ids=PIXELS
)
def test_pixel_attention(options, pixel, position):
    layer = attention("attend", **options)
    first = layer.data_format == "channels_first"
    batch = images(2, 3, 12, 8) if first else images(2, 12, 8, 3)
    inputs = keras.Input(batch.shape[1:])
    # No pooling: TensorFlow has none on CPU with the channels first.
    halved = inputs[:, :, ::2, ::2] if first else inputs[:, ::2, ::2]
    model = keras.Model(inputs, layer(halved))
    look = pixel_attention(model, batch, pixel)["attend"]
    assert look.input_size == (6, 4)
    np.testing.assert_array_equal(look.positions, [position] * 2)
    start = 1 if layer.padding == "valid" else 0
    row, column = (
        (place - start) // stride
        for place, stride in zip(position, layer.strides, strict=True)
    )
    maps = attention_maps(model, batch)["attend"]
    np.testing.assert_allclose(look.weights, maps[:, row, column], rtol=1e-6)
    placed = look.in_image
    assert placed.shape == (2, 2, 6, 4)
    np.testing.assert_allclose(placed.sum((-2, -1)), 1, rtol=1e-5)
    np.testing.assert_array_equal(
        placed[1],
        window_in_image(
            look.weights[1], *position, (6, 4), layer.dilation_rate
        ),
    )


def test_pixels_of_each_image_and_chosen_layers():
    model, batch = small_resnet(), images(2, 8, 8, 3)
    looks = pixel_attention(model, batch, [(0, 7), (3, 4)])
    assert list(looks) == list(attention_maps(model, batch))
    look = looks["group2_block1_attention"]
    np.testing.assert_array_equal(look.positions, [[0, 7], [3, 4]])
    maps = attention_maps(model, batch)["group2_block1_attention"]
    np.testing.assert_array_equal(look.weights[0], maps[0, 0, 7])
    np.testing.assert_array_equal(look.weights[1], maps[1, 3, 4])
    name = "group1_block1_attention"
    assert list(pixel_attention(model, batch, (0, 0), name)) == [name]


def test_pixel_outside_the_image():
    with pytest.raises(ValueError, match=r"\(8, 8\).*\[\[0, 7\], \[3, 8\]\]"):
        pixel_attention(small_resnet(), images(2, 8, 8, 3), [(0, 7), (3, 8)])
    with pytest.raises(ValueError, match="must be rows and columns"):
        pixel_attention(small_resnet(), images(1, 8, 8, 3), (-1, 0))


def test_plot_attention_with_dilation():
    figure = plot_attention(
        images(1, 8, 8, 1), np.ones((1, 1, 3, 3)), [(4, 4)], dilation_rate=2
    )
    drawn = figure.axes[1].images[1].get_array()
    places = np.argwhere(~np.ma.getmaskarray(drawn))
    expected = [[row, column] for row in (2, 4, 6) for column in (2, 4, 6)]
    np.testing.assert_array_equal(places, expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_plot_attention(tmp_path, channels):
    weights = np.full((2, 3, 5, 5), 1 / 25)
    figure = plot_attention(
        images(2, 16, 16, channels),
        weights,
        [(0, 0), (7, 3)],
        input_size=(8, 8),
        title="a title",
    )
    assert len(figure.axes) == 2 * (1 + 3)
    assert figure.get_suptitle() == "a title"
    for axes in figure.axes:
        # All panels in the pixels of the layer's input.
        assert axes.get_xlim() == (-0.5, 7.5)
        assert axes.get_ylim() == (7.5, -0.5)
    drawn = figure.axes[1].images[1].get_array()
    assert drawn.count() == 9  # The quarter of the window in the image.
    assert figure.axes[1].get_xlabel() == "max 0.04"
    query = figure.axes[4].patches[0]
    assert query.get_xy() == (2.5, 6.5)
    figure.savefig(tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "shapes, message",
    [
        (((4, 4, 3), (2, 2, 3, 3), (2, 2)), "`images` must be an array"),
        (
            ((2, 3, 4, 4), (2, 2, 3, 3), (2, 2)),
            r"channels last.*\(2, 3, 4, 4\)",
        ),
        (((2, 4, 4, 3), (1, 2, 3, 3), (2, 2)), r"the 2 images.*\(1, 2, 3, 3\)"),
        (((2, 4, 4, 3), (2, 2, 3, 3), (2,)), r"the 2 images.*and \(2,\)"),
    ],
    ids=["one_image", "channels_first", "weights", "positions"],
)
def test_plot_attention_of_wrong_shapes(shapes, message):
    picture, weights, positions = map(np.zeros, shapes)
    with pytest.raises(ValueError, match=message):
        plot_attention(picture, weights, positions.astype(int), (4, 4))


def test_plot_history(tmp_path):
    history = {
        "accuracy": [0.5, 0.75, 0.8],
        "loss": [2.0, 1.0, 0.5],
        "val_accuracy": [0.4, 0.7, 0.7],
        "val_loss": [2.1, 1.2, 0.9],
        "learning_rate": [0.1, 0.01, 0.001],
    }
    figure = plot_history(history, title="a title")
    loss, accuracy = figure.axes
    assert loss.get_ylabel() == "loss"
    assert accuracy.get_ylabel() == "accuracy"
    assert loss.get_xlabel() == "epoch"
    training, validation = loss.lines
    np.testing.assert_array_equal(training.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(training.get_ydata(), history["loss"])
    np.testing.assert_array_equal(validation.get_ydata(), history["val_loss"])
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["training", "validation"]
    figure.savefig(tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 1000


def test_plot_history_of_what_is_measured_in_validation_only():
    figure = plot_history({"loss": [2.0], "val_loss": [3.0], "val_AP": [0.5]})
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "AP"]
    (line,) = figure.axes[1].get_lines()
    assert line.get_label() == "validation"
    assert line.get_color() == figure.axes[0].get_lines()[1].get_color()


def test_plot_history_of_fit():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(images(4, 2), images(4, 1), epochs=1, verbose=0)
    (axes,) = plot_history(history).axes
    assert [line.get_label() for line in axes.lines] == ["training"]


def test_plot_history_of_nothing():
    with pytest.raises(ValueError, match=r"at least one epoch.*\{\}"):
        plot_history({})


@pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_history({"loss": [1.0]}),
        lambda: plot_attention(
            images(1, 4, 4, 1), images(1, 2, 3, 3), [(0, 0)]
        ),
    ],
    ids=["plot_history", "plot_attention"],
)
def test_plots_without_matplotlib(monkeypatch, plot):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib$"):
        plot()


# In the quick run a test of the whole package imports it, too.
@pytest.mark.large
def test_import_without_matplotlib():
    """In a process of its own: Keras imports matplotlib where it can."""
    program = (
        "import sys; sys.modules['matplotlib'] = None; "
        "import keras_sasa.visualize"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_plot_detections():
    pytest.importorskip("matplotlib")
    images = [np.zeros((20, 30, 3), "uint8"), np.zeros((16, 16, 1))]
    found = [
        {"boxes": np.array([[2, 4, 12, 10]]), "labels": np.array([1])},
        {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int)},
    ]
    figure = plot_detections(images, found, ["a", "b"], title="t")
    first, second = figure.axes
    # Around whole pixels, the first of which is drawn from -0.5 to 0.5.
    (box,) = first.patches
    assert box.get_bbox().extents.tolist() == [1.5, 3.5, 11.5, 9.5]
    assert [text.get_text() for text in first.texts] == ["b"]
    assert not second.patches and figure.get_suptitle() == "t"
    with pytest.raises(ValueError, match="Received: 1 for 2 images"):
        plot_detections(images, found[:1], ["a", "b"])
