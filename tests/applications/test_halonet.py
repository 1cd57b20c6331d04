"""HaloNets: parameters, shapes, results, published weights, errors.

The reference is the network of timm, written with the names and the axes of its
tensors, one pixel at a time where windows are involved.
"""

import dataclasses
import inspect
import math

import keras
import numpy as np
import pytest

from keras_sasa import applications
from keras_sasa.applications import halonet, halonet_weights
from keras_sasa.applications.halonet import HaloNet
from keras_sasa.applications.named_halonets import VARIANTS
from keras_sasa.detection import RetinaNet
from keras_sasa.visualize import attention_maps
from tests.support import oracle
from tests.support.halonet_tensors import TINY, TINY_GROUPS, timm_tensors
from tests.support.parameters import large
from tests.support.tensor_files import write_safetensors, write_torch

# Those of timm 1.0.31; the statistics of normalizations do not count.
PARAMETERS = {
    "HaloNet26T": 12_480_288,
    "HaloNet50TS": 22_733_280,
    "SEHaloNet33TS": 13_691_712,
    "ECAHaloNeXt26TS": 10_756_885,
}


def tiny(options=TINY, **arguments):
    arguments = {
        "weights": None,
        "input_shape": (16, 32, 3),
        "classes": 5,
        **arguments,
    }
    return HaloNet(options, **arguments)


@pytest.mark.parametrize(
    "name",
    [name if name == "ECAHaloNeXt26TS" else large(name) for name in PARAMETERS],
)
def test_parameters_and_levels(name):
    model = getattr(applications, name)(weights=None)
    trainable = sum(
        math.prod(weight.shape) for weight in model.trainable_weights
    )
    assert trainable == PARAMETERS[name]
    assert model.name == name.lower()
    assert model.output_shape == (None, 1000)
    filters = VARIANTS[name].filters
    for level, layer in enumerate(applications.GROUP_OUTPUTS):
        side = 64 // 2**level
        shape = model.get_layer(layer).output.shape
        assert shape == (None, side, side, filters[level])


@pytest.mark.parametrize("name", PARAMETERS)
def test_named_networks_take_what_halonet_takes(name, monkeypatch):
    build = getattr(applications, name)
    parameters = dict(inspect.signature(HaloNet).parameters)
    del parameters["options"]
    expected = {key: p.default for key, p in parameters.items()}
    expected["name"] = name.lower()
    own = inspect.signature(build).parameters
    assert {key: p.default for key, p in own.items()} == expected
    received = {}
    monkeypatch.setattr(
        "keras_sasa.applications.named_halonets.HaloNet",
        lambda options, **arguments: received.update(
            arguments, options=options
        ),
    )
    arguments = {key: f"value of {key}" for key in own}
    build(**arguments)
    assert received == {**arguments, "options": VARIANTS[name]}
    assert VARIANTS[name].network == name


def test_every_variant_is_published():
    assert set(halonet_weights.PUBLISHED) == set(VARIANTS)
    for file in halonet_weights.PUBLISHED.values():
        assert file.repository.startswith("timm/")
        assert file.name == "model.safetensors"


def reference(images, tensors, options):
    """Logits of the network, from tensors of timm."""

    def activate(x):
        if options.activation == "relu":
            return np.maximum(x, 0)
        return x / (1 + np.exp(-x))

    def normalize(x, name):
        mean, variance, weight, bias = (
            tensors[f"{name}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def windows(x, outside):
        """The 3x3 pixels around every pixel."""
        padded = np.pad(
            x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=outside
        )
        return np.stack(
            [
                padded[:, a : a + x.shape[1], b : b + x.shape[2]]
                for a in range(3)
                for b in range(3)
            ],
            axis=3,
        )

    def convolve(x, name, strides=1):
        kernel = tensors[f"{name}.conv.weight"]
        filters, width, side, _ = kernel.shape
        groups = x.shape[-1] // width
        pixels = windows(x, 0) if side == 3 else x[:, :, :, None]
        outputs = []
        for part, weight in zip(
            np.split(pixels, groups, axis=-1),
            np.split(kernel.reshape(filters, width, -1), groups),
            strict=True,
        ):
            outputs.append(np.einsum("bijkc,fck->bijf", part, weight))
        x = np.concatenate(outputs, axis=-1)[:, ::strides, ::strides]
        return normalize(x, f"{name}.bn")

    def attend(x, name, level, strides):
        heads = options.num_heads[level]
        query, both = (
            tensors[f"{name}.{part}.weight"][:, :, 0, 0] for part in ("q", "kv")
        )
        key_width = len(query) // heads
        both = np.split(both, heads)
        weights = {
            "query_kernel": query.T,
            "key_kernel": np.concatenate([b[:key_width] for b in both]).T,
            "value_kernel": np.concatenate([b[key_width:] for b in both]).T,
            "row_embedding": tensors[f"{name}.pos_embed.height_rel"],
            "column_embedding": tensors[f"{name}.pos_embed.width_rel"],
        }
        return oracle.halo_attention(
            x,
            weights,
            num_heads=heads,
            block_size=options.block_size,
            halo_size=options.halo_size,
            strides=strides,
        )[0]

    def gate(x, name):
        means = x.mean((1, 2))
        if options.channel_attention == "efficient":
            kernel = tensors[f"{name}.conv.weight"][0, 0]
            logits = np.stack(
                [np.convolve(m, kernel[::-1], "same") for m in means]
            )
        else:
            for part in ("fc1", "fc2"):
                weight = tensors[f"{name}.{part}.weight"][:, :, 0, 0]
                means = means @ weight.T + tensors[f"{name}.{part}.bias"]
                logits, means = means, np.maximum(means, 0)
        return x / (1 + np.exp(-logits[:, None, None]))

    x = activate(convolve(images, "stem.conv1", 2))
    x = activate(convolve(x, "stem.conv2"))
    x = activate(convolve(x, "stem.conv3", 1 if options.stem_pool else 2))
    if options.stem_pool:
        x = windows(x, -np.inf).max(3)[:, ::2, ::2]
    for level, blocks in enumerate(options.num_blocks):
        for number in range(blocks):
            name = f"stages.{level}.{number}"
            strides = 2 if level and not number else 1
            shortcut = x
            if number == 0:
                shortcut = convolve(x, f"{name}.shortcut", strides)
            x = activate(convolve(x, f"{name}.conv1_1x1"))
            if number + 1 in options.attention[level]:
                x = attend(x, f"{name}.self_attn", level, strides)
                x = activate(normalize(x, f"{name}.post_attn"))
            else:
                x = activate(convolve(x, f"{name}.conv2_kxk", strides))
                x = gate(x, f"{name}.attn")
            x = activate(convolve(x, f"{name}.conv3_1x1") + shortcut)
    if options.final_filters is not None:
        x = activate(convolve(x, "final_conv"))
    return (
        x.mean((1, 2)) @ tensors["head.fc.weight"].T + tensors["head.fc.bias"]
    )


@pytest.mark.parametrize(
    "options, suffix",
    [(TINY, ".safetensors"), (TINY_GROUPS, ".pth"), large(TINY, ".bin")],
    ids=["squeeze_excitation", "groups", "bin"],
)
def test_files_of_timm(options, suffix, tmp_path):
    """Logits are those of the reference, and those of a file of Keras."""
    tensors = timm_tensors(options)
    path = tmp_path / f"timm{suffix}"
    write = write_safetensors if suffix == ".safetensors" else write_torch
    write(path, tensors)
    images = np.random.default_rng(1).normal(size=(2, 16, 32, 3))
    model = tiny(options, weights=path, classifier_activation=None)
    logits = keras.ops.convert_to_numpy(model(images))
    expected = reference(images, tensors, options)
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)
    model.save(tmp_path / "ours.keras")
    loaded = keras.saving.load_model(tmp_path / "ours.keras")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(loaded(images)), logits
    )


def test_another_classifier_and_none(tmp_path):
    path = tmp_path / "timm.safetensors"
    write_safetensors(path, timm_tensors())
    expected = tiny(weights=path)
    with pytest.warns(
        UserWarning, match="of 7 classes, keeps .* has 5 classes"
    ):
        model = tiny(weights=path, classes=7)
    headless = tiny(weights=path, include_top=False)
    number = len(headless.weights)
    for other in (model, headless):
        for one, two in zip(
            expected.weights[:number], other.weights[:number], strict=True
        ):
            np.testing.assert_array_equal(
                *map(keras.ops.convert_to_numpy, (one, two))
            )


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"stages.0.0.conv1_1x1.bn.running_mean": None},
            "must hold the tensor 'stages.0.0.conv1_1x1.bn.running_mean'",
        ),
        ({"extra": np.ones(2)}, r"1 more tensors, \['extra'\]"),
        (
            {"final_conv.bn.bias": np.ones(3)},
            r"'final_conv.bn.bias' of .* must have the shape \(12,\).*\(3,\)",
        ),
        (
            {"stages.1.0.self_attn.q.weight": None},
            r"kv.weight' needs the tensor 'stages.1.0.self_attn.q.weight'",
        ),
        (
            {"stages.1.0.self_attn.kv.weight": np.ones((5, 16, 1, 1))},
            r"kv.weight' must hold a key of 8 .* \(5, 16, 1, 1\)",
        ),
        (
            {"stages.1.0.self_attn.q.weight": np.ones((16, 16, 3, 3))},
            r"q.weight' must have the shape \(outputs, inputs, 1, 1\)",
        ),
    ],
    ids=["missing", "unexpected", "misshapen", "no query", "values", "kernel"],
)
def test_wrong_tensors(changes, message, tmp_path, monkeypatch):
    """Nothing is half loaded."""
    tensors = timm_tensors()
    for name, tensor in changes.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor.astype("float32")
    write_safetensors(tmp_path / "wrong.safetensors", tensors)
    assigned = []
    monkeypatch.setattr(
        keras.Variable,
        "assign",
        lambda self, value: assigned.append(self.name),
    )
    with pytest.raises(ValueError, match=message):
        tiny(weights=tmp_path / "wrong.safetensors")
    assert not assigned


def test_download(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, timm_tensors())
    calls = []

    def get_file(name, origin, **options):
        calls.append((name, origin))
        return str(path)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    tiny(weights="imagenet")
    assert calls == [
        (
            "timm_halonet26t.a1h_in1k_main_model.safetensors",
            "https://huggingface.co/timm/halonet26t.a1h_in1k/resolve/main/"
            "model.safetensors",
        )
    ]


def test_stochastic_depth_and_unknown_sizes():
    model = tiny(drop_path_rate=0.2, input_shape=(None, None, 3))
    rates = [
        layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert rates == [0, 0.1, 0.2]
    images = np.random.default_rng(0).normal(size=(4, 32, 16, 3))
    whole = tiny(input_shape=(32, 16, 3))
    assert [w.path for w in whole.weights] == [w.path for w in model.weights]
    whole.set_weights(model.get_weights()[: len(whole.weights)])
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        keras.ops.convert_to_numpy(whole(images)),
        atol=1e-5,
    )


def test_backbone_of_a_detector_and_attention_maps():
    options = dataclasses.replace(
        TINY,
        num_blocks=(1, 1, 1, 1),
        attention=((), (), (1,), (1,)),
        filters=(16, 16, 16, 16),
        num_heads=(1, 1, 2, 2),
        final_filters=None,
    )
    backbone = tiny(options, include_top=False, input_shape=(64, 64, 3))
    detector = RetinaNet(backbone, num_classes=3, filters=16, head_depth=1)
    images = np.zeros((1, 64, 64, 3), "float32")
    found = detector.predict_on_batch(images)
    assert found["boxes"].shape == (1, 100, 4)
    maps = attention_maps(backbone, images)
    assert {name: weights.shape for name, weights in maps.items()} == {
        "group3_block1_attention": (1, 4, 4, 2, 4, 4),
        "group4_block1_attention": (1, 2, 2, 2, 4, 4),
    }
    for weights in maps.values():
        np.testing.assert_allclose(weights.sum((-1, -2)), 1, rtol=1e-5)


def test_preprocessing():
    scaled = halonet.preprocess_input(np.full((1, 2, 2, 3), 255.0))
    np.testing.assert_allclose(scaled[0, 0, 0, 0], (1 - 0.485) / 0.229)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"input_shape": (16, 24, 3)}, r"multiples of 16.*of \(16, 24\)"),
        ({"drop_path_rate": 1.0}, "`drop_path_rate` must be a number in"),
        ({"pooling": "sum"}, "`pooling` must be one of"),
        ({"weights": "nothing.pth"}, 'must be `None`, "imagenet" or the pat'),
        ({"weights": __file__}, "must end in one of .*`.safetensors`, `.bin`"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_a_network_that_is_not_published():
    options = dataclasses.replace(TINY, network="HaloNet0")
    with pytest.raises(ValueError, match="`options.network` must be one of"):
        tiny(options, weights="imagenet")


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="channels last.*'channels_first'"):
        tiny()
