"""Distance, entropy and relative positions of heads, against loops."""

import math
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from keras_sasa import NeighborhoodAttention2D, SelfAttention2D
from keras_sasa.visualize import (
    AttentionStatistics,
    attention_calls,
    attention_maps,
    attention_statistics,
    model_inputs,
    plot_attention_statistics,
    plot_position_logits,
    position_logits,
)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def attention(name="attend", **options):
    # Far from equal weights.
    options = {
        "filters": 8,
        "kernel_size": 3,
        "num_heads": 2,
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.8),
        "embedding_initializer": keras.initializers.RandomNormal(stddev=0.8),
        **options,
    }
    return SelfAttention2D(name=name, **options)


def model_of(*layers, shape=(6, 7, 4)):
    return keras.Sequential([keras.Input(shape), *layers])


GEOMETRIES = {
    "square": {},
    "oblong": {"kernel_size": (3, 5)},
    "dilated": {"dilation_rate": (2, 1)},
    "strided": {"strides": (1, 2)},
    "valid": {"padding": "valid", "kernel_size": (5, 3)},
    "window larger than the image": {"kernel_size": (13, 3)},
}


def loops(weights, size, kernel_size, strides, padding, dilation_rate):
    """Distance and entropy of one head of one image, pixel by pixel."""
    distance = entropy = 0.0
    for out_row in range(weights.shape[0]):
        for out_column in range(weights.shape[1]):
            for a in range(kernel_size[0]):
                for b in range(kernel_size[1]):
                    down = dilation_rate[0] * (a - kernel_size[0] // 2)
                    right = dilation_rate[1] * (b - kernel_size[1] // 2)
                    row, column = out_row * strides[0], out_column * strides[1]
                    if padding == "valid":
                        row += dilation_rate[0] * (kernel_size[0] // 2)
                        column += dilation_rate[1] * (kernel_size[1] // 2)
                    weight = float(weights[out_row, out_column, a, b])
                    inside = (
                        0 <= row + down < size[0]
                        and 0 <= column + right < size[1]
                    )
                    assert inside or weight == 0
                    if weight > 0:
                        distance += weight * math.hypot(down, right)
                        entropy -= weight * math.log(weight)
    queries = weights.shape[0] * weights.shape[1]
    return distance / queries, entropy / queries


@pytest.mark.parametrize("options", GEOMETRIES.values(), ids=GEOMETRIES)
def test_statistics_are_those_of_loops(options):
    layer = attention(**options)
    model, batch = model_of(layer), images(2, 6, 7, 4)
    (statistics,) = attention_statistics(model, batch).values()
    weights = attention_maps(model, batch)["attend"]
    geometry = (
        (6, 7),
        layer.kernel_size,
        layer.strides,
        layer.padding,
        layer.dilation_rate,
    )
    for image in range(2):
        for head in range(2):
            distance, entropy = loops(
                weights[image, ..., head, :, :], *geometry
            )
            assert statistics.distance[image, head] == pytest.approx(
                distance, rel=1e-5
            )
            assert statistics.entropy[image, head] == pytest.approx(
                entropy, rel=1e-5
            )
    # Equal weights: those of a layer of zeros.
    for weight in layer.weights:
        weight.assign(np.zeros(weight.shape))
    equal = attention_maps(model, batch)["attend"][0, ..., 0, :, :]
    assert (
        statistics.uniform_distance,
        statistics.uniform_entropy,
    ) == pytest.approx(loops(equal, *geometry), rel=1e-5)
    assert (statistics.entropy < statistics.uniform_entropy).all()


def test_statistics_by_hand():
    """Every query of 1 x 3 pixels takes the mean of what it sees."""
    layer = attention(kernel_size=(1, 3), kernel_initializer="zeros")
    (heads,) = attention_statistics(
        model_of(layer, shape=(1, 3, 4)), images(1, 1, 3, 4)
    ).values()
    np.testing.assert_allclose(heads.distance, (1 / 2 + 2 / 3 + 1 / 2) / 3)
    np.testing.assert_allclose(
        heads.entropy, (2 * math.log(2) + math.log(3)) / 3, rtol=1e-6
    )
    assert heads.uniform_distance == pytest.approx(5 / 9)


def test_queries_without_a_key_do_not_count():
    inputs, mask = keras.Input((1, 4, 4)), keras.Input((1, 4), dtype="bool")
    layer = attention(kernel_size=(1, 3), kernel_initializer="zeros")
    model = keras.Model([inputs, mask], layer(inputs, mask=mask))
    # Of the queries the first sees itself, the second the first.
    allowed = np.array([[[True, False, False, False]]])
    (heads,) = attention_statistics(
        model, [images(1, 1, 4, 4), allowed]
    ).values()
    np.testing.assert_allclose(heads.distance, (0 + 1) / 2)
    np.testing.assert_allclose(heads.entropy, 0, atol=1e-6)


def test_image_without_any_key_has_no_statistics():
    inputs, mask = keras.Input((1, 4, 4)), keras.Input((1, 4), dtype="bool")
    layer = attention(kernel_size=(1, 3))
    model = keras.Model([inputs, mask], layer(inputs, mask=mask))
    allowed = np.array([[[False] * 4], [[True] * 4]])
    (heads,) = attention_statistics(
        model, [images(2, 1, 4, 4), allowed]
    ).values()
    for numbers in (heads.distance, heads.entropy):
        assert np.isnan(numbers[0]).all() and np.isfinite(numbers[1]).all()


def test_many_images_are_those_one_by_one(monkeypatch):
    monkeypatch.setattr(model_inputs, "_IMAGES_AT_A_TIME", 2)
    model, batch = (
        model_of(attention(), attention("second")),
        images(5, 6, 7, 4),
    )
    together = attention_statistics(model, batch)
    assert list(together) == ["attend", "second"]
    for name, heads in together.items():
        assert heads.distance.shape == heads.entropy.shape == (5, 2)
        for number in range(5):
            alone = attention_statistics(
                model, batch[number : number + 1], name
            )
            np.testing.assert_allclose(
                alone[name].distance[0], heads.distance[number], rtol=1e-5
            )
    logits = position_logits(model, batch)
    monkeypatch.undo()
    np.testing.assert_allclose(
        logits["second"], position_logits(model, batch)["second"], rtol=1e-5
    )


def test_one_layers_weights_at_a_time(monkeypatch):
    alive = []
    compute = attention_calls.AttentionCall.weights

    def weights(call):
        assert not [array for array in alive if array() is not None]
        computed = compute(call)
        alive.append(weakref.ref(computed))
        return computed

    monkeypatch.setattr(attention_calls.AttentionCall, "weights", weights)
    layers = [attention(f"attend_{number}") for number in range(4)]
    attention_statistics(model_of(*layers), images(10, 6, 7, 4))
    assert len(alive) == 2 * 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_bias": True, "bias_initializer": "random_normal"},
        {"use_content": False},
        {"strides": 2},
        {"padding": "valid", "kernel_size": (3, 5)},
        {"data_format": "channels_first"},
    ],
    ids=str,
)
def test_position_logits_are_the_mean_over_queries(options):
    layer = attention(**options)
    batch = images(3, 6, 7, 7)
    inputs = batch
    if layer.data_format == "channels_first":
        inputs = np.moveaxis(batch, 1, -1)
    model = model_of(layer, shape=batch.shape[1:])
    kernel, rows, columns = (
        ops.convert_to_numpy(getattr(layer, name))
        for name in ("query_kernel", "row_embedding", "column_embedding")
    )
    bias = ops.convert_to_numpy(layer.query_bias) if layer.use_bias else 0
    height, width = layer.kernel_size
    first = (0, 0)
    if layer.padding == "valid":
        first = (height // 2, width // 2)
    expected = np.zeros((2, height, width))
    count = 0
    for image in inputs:
        for row in range(first[0], image.shape[0] - first[0], layer.strides[0]):
            for column in range(
                first[1], image.shape[1] - first[1], layer.strides[1]
            ):
                query = (image[row, column] @ kernel + bias).reshape(2, 4)
                count += 1
                for head, a, b in np.ndindex(expected.shape):
                    both = np.concatenate([rows[a, head], columns[b, head]])
                    expected[head, a, b] += query[head] @ both
    expected /= count
    expected -= expected.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(
        position_logits(model, batch)["attend"], expected, atol=1e-5
    )


def test_position_logits_decide_where_content_is_absent():
    """Without content a constant image has the softmax of these logits."""
    layer = attention(use_content=False)
    model, batch = model_of(layer), np.ones((1, 6, 7, 4), "float32")
    logits = np.exp(position_logits(model, batch)["attend"])
    weights = attention_maps(model, batch)["attend"][0, 2, 3]
    np.testing.assert_allclose(
        logits / logits.sum(axis=(1, 2), keepdims=True), weights, rtol=1e-4
    )


def test_position_logits_without_relative_positions():
    model = model_of(
        attention("with"), attention("without", position_encoding=None)
    )
    batch = images(1, 6, 7, 4)
    assert list(position_logits(model, batch)) == ["with"]
    with pytest.raises(ValueError, match=r"layers='without'.*\['without'\]"):
        position_logits(model, batch, "without")
    model = model_of(attention("without", position_encoding="absolute"))
    with pytest.raises(ValueError, match="position_encoding='relative'"):
        position_logits(model, batch)


def statistics_of(layers, heads):
    numbers = np.linspace(0.5, 2.5, 2 * heads).reshape(2, heads)
    return {
        f"layer_{number}": AttentionStatistics(numbers, numbers + 0.5, 2.0, 2.5)
        for number in range(layers)
    }


def test_plot_attention_statistics(tmp_path):
    figure = plot_attention_statistics(statistics_of(2, 4), title="a title")
    distance, entropy, pixels = figure.axes
    assert "pixels of the layer" in distance.get_ylabel()
    assert entropy.get_ylabel() == "entropy (nats)"
    names = [text.get_text() for text in entropy.get_xticklabels()]
    assert names == ["layer_0", "layer_1"]
    first, *_ = distance.collections
    means = statistics_of(1, 4)["layer_0"].distance.mean(axis=0)
    np.testing.assert_allclose(first.get_offsets()[:, 1], means[0])
    # All within the axes, those above the dashes too.
    assert distance.get_ylim()[0] == 0 < means.max() < distance.get_ylim()[1]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*(f"head {n}" for n in range(1, 5)), "equal weights"]
    # 10 pixels stand where log(10) stands.
    assert pixels.get_ylim() == entropy.get_ylim()
    ticks = [text.get_text() for text in pixels.get_yticklabels()]
    place = pixels.get_yticks()[ticks.index("10")]
    assert place == pytest.approx(math.log(10))
    figure.savefig(tmp_path / "heads.png")


def test_plot_statistics_of_many_heads_and_unlike_layers(tmp_path):
    statistics = {
        **statistics_of(1, 3),
        "wide": statistics_of(1, 12)["layer_0"],
    }
    figure = plot_attention_statistics(statistics)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["equal weights"]
    assert len(figure.axes[0].collections[11].get_offsets()) == 1
    figure.savefig(tmp_path / "heads.png")


def test_plot_statistics_of_long_names(tmp_path):
    """As in a detector. The axes keep their size, and labels are whole."""
    statistics = {
        f"classification_head:1/classification_head_{name}": heads
        for name, heads in statistics_of(60, 4).items()
    }
    figure = plot_attention_statistics(statistics)
    figure.savefig(tmp_path / "heads.png")
    for axes in figure.axes[:2]:
        assert axes.get_window_extent().height > 1.2 * figure.dpi
    label = figure.axes[0].yaxis.label.get_window_extent()
    assert 0 <= label.y0 and label.y1 <= figure.bbox.y1


def test_plot_statistics_of_images_without_any_key():
    """They do not count, and a layer without others is empty."""
    some, none = statistics_of(1, 4)["layer_0"], statistics_of(1, 4)["layer_0"]
    some.distance[0] = none.distance[:] = np.nan
    distance, *_ = plot_attention_statistics({"a": some, "b": none}).axes
    first, *_ = distance.collections
    np.testing.assert_allclose(
        np.ma.filled(first.get_offsets(), np.nan)[:, 1],
        [some.distance[1, 0], np.nan],
    )
    assert np.isfinite(some.distance[1]).all()
    assert distance.get_ylim()[1] > some.distance[1].max()


@pytest.mark.parametrize(
    "plot", [plot_attention_statistics, plot_position_logits]
)
@pytest.mark.parametrize("layers", [{}, np.zeros((4, 7, 7))], ids=type)
def test_plots_of_no_layer(plot, layers):
    with pytest.raises(ValueError, match="must be a dict with at least one"):
        plot(layers)


def test_plot_position_logits(tmp_path):
    logits = {"first": images(3, 3, 5), "inner/second": images(2, 3, 5)}
    figure = plot_position_logits(logits, title="a title")
    window = figure.axes[0]
    assert window.get_title() == "head 1"
    assert window.get_xlim() == (-2.5, 2.5) and window.get_ylim() == (1.5, -1.5)
    most = np.abs(logits["first"]).max()
    assert window.images[0].get_clim() == pytest.approx((-most, most))
    np.testing.assert_allclose(window.images[0].get_array(), logits["first"][0])
    drawn = [len(axes.images) for axes in figure.axes[:6]]
    assert drawn == [1, 1, 1, 1, 1, 0]
    figure.savefig(tmp_path / "positions.png")


def test_statistics_of_neighborhood_attention():
    """Against a loop over the keys of every query."""
    inputs = keras.Input((5, 7, 4))
    layer = NeighborhoodAttention2D(2, 3, name="attend")
    model = keras.Model(inputs, layer(inputs))
    batch = np.random.default_rng(0).normal(size=(2, 5, 7, 4))
    weights = attention_maps(model, batch)["attend"]
    distance, uniform = np.zeros((2, 2)), 0.0
    for i, j, a, b in np.ndindex(5, 7, 3, 3):
        row, column = (
            min(max(place - 1, 0), size - 3) + key - place
            for place, size, key in ((i, 5, a), (j, 7, b))
        )
        far = np.hypot(row, column)
        distance += weights[:, i, j, :, a, b] * far / 35
        uniform += far / 9 / 35
    found = attention_statistics(model, batch)["attend"]
    np.testing.assert_allclose(found.distance, distance, rtol=1e-5)
    np.testing.assert_allclose(found.uniform_distance, uniform, rtol=1e-5)
    np.testing.assert_allclose(found.uniform_entropy, np.log(9), rtol=1e-6)
    assert found.entropy.shape == (2, 2)
