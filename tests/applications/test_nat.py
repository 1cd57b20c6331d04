"""NAT and DiNAT: parameters, shapes, results, published weights, errors.

The reference is the network of the paper, written with the names and the axes
of the published tensors, one pixel at a time where windows are involved.
"""

import inspect
import math

import keras
import numpy as np
import pytest

from keras_sasa import NeighborhoodAttention2D, applications
from keras_sasa.applications import nat, nat_weights, published_file
from keras_sasa.applications.named_nat import VARIANTS
from keras_sasa.applications.nat import NAT, NATOptions
from keras_sasa.detection import RetinaNet
from tests.support import oracle
from tests.support.nat_tensors import TINY, checkpoint, on_the_hub
from tests.support.parameters import large
from tests.support.tensor_files import write_safetensors, write_torch

PARAMETERS = {
    "NATMini": 19_984_174,
    "NATTiny": 27_901_582,
    "NATSmall": 50_743_297,
    "NATBase": 89_769_652,
    "DiNATMini": 19_984_174,
    "DiNATTiny": 27_901_582,
    "DiNATSmall": 50_719_681,
    "DiNATBase": 89_769_652,
    "DiNATLarge": 200_943_514,
}


def tiny(options=TINY, **arguments):
    arguments = {
        "weights": None,
        "kernel_size": 3,
        "input_shape": (20, 26, 3),
        "classes": 5,
        **arguments,
    }
    return NAT(options, **arguments)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("NATMini", "NATSmall") else large(name)
        for name in PARAMETERS
    ],
)
def test_parameters(name):
    model = getattr(applications, name)(weights=None)
    assert model.count_params() == PARAMETERS[name]
    assert model.name == name.lower()
    assert model.output_shape == (None, 1000)


@pytest.mark.large
def test_parameters_of_wide_windows():
    model = applications.DiNATLarge(
        weights=None,
        kernel_size=11,
        dilations=(8, 4, 2, 1),
        input_shape=(384, 384, 3),
    )
    assert model.count_params() == 201_144_250


@pytest.mark.parametrize("name", PARAMETERS)
def test_named_networks_take_what_nat_takes(name, monkeypatch):
    build = getattr(applications, name)
    parameters = dict(inspect.signature(NAT).parameters)
    del parameters["options"]
    expected = {key: p.default for key, p in parameters.items()}
    expected["name"] = name.lower()
    own = inspect.signature(build).parameters
    assert {key: p.default for key, p in own.items()} == expected
    received = {}
    monkeypatch.setattr(
        "keras_sasa.applications.named_nat.NAT",
        lambda options, **arguments: received.update(
            arguments, options=options
        ),
    )
    arguments = {key: f"value of {key}" for key in own}
    build(**arguments)
    assert received == {**arguments, "options": VARIANTS[name]}
    assert VARIANTS[name].network == name


def test_levels_and_dilations():
    model = applications.DiNATMini(
        weights=None, include_top=False, input_shape=(96, 64, 3)
    )
    for level, name in enumerate(applications.GROUP_OUTPUTS):
        side = 4 * 2**level
        shape = model.get_layer(name).output.shape
        assert shape == (None, 96 // side, 64 // side, 64 * 2**level)
    assert model.output_shape == shape
    rates = [
        layer.dilation_rate[0]
        for layer in model.layers
        if isinstance(layer, NeighborhoodAttention2D)
    ]
    assert rates == [1, 8, 1, 1, 4, 1, 4, *[1, 2] * 3, *[1] * 5]


def test_backbone_of_a_detector():
    backbone = tiny(
        NATOptions("NATMini", (1, 1, 1, 1), 32, 2, 0.2),
        dilations=(1, 1, 1, 1),
        include_top=False,
        input_shape=(64, 64, 3),
    )
    detector = RetinaNet(backbone, num_classes=3, filters=16, head_depth=1)
    found = detector.predict_on_batch(np.zeros((1, 64, 64, 3), "float32"))
    assert found["boxes"].shape == (1, 100, 4)


def test_stochastic_depth_grows():
    model = tiny(drop_path_rate=0.2)
    rates = [
        layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert rates == [0.1, 0.1, 0.2, 0.2]
    images = np.random.default_rng(0).normal(size=(4, 20, 26, 3))
    assert np.std(model(images, training=True) - model(images)) > 1e-4


def test_pooling_and_any_size():
    options = {"include_top": False, "input_shape": (None, None, 3)}
    average, largest = (
        tiny(pooling=pooling, **options) for pooling in ("avg", "max")
    )
    largest.set_weights(average.get_weights())
    whole = tiny(input_shape=(9, 31, 3), include_top=False)
    whole.set_weights(average.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 9, 31, 3))
    maps = keras.ops.convert_to_numpy(whole(images))
    assert maps.shape == (2, 2, 4, 64)
    for model, expected in (
        (average, maps.mean((1, 2))),
        (largest, maps.max((1, 2))),
    ):
        assert model.output_shape == (None, 64)
        outputs = keras.ops.convert_to_numpy(model(images))
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
    # In a graph of unknown sizes.
    outputs = average.predict(images, verbose=0)
    np.testing.assert_allclose(outputs, maps.mean((1, 2)), atol=1e-5)


def test_preprocessing():
    scaled = nat.preprocess_input(np.full((1, 2, 2, 3), 255.0))
    np.testing.assert_allclose(scaled[0, 0, 0, 0], (1 - 0.485) / 0.229)


def reference(images, tensors, options=TINY, kernel_size=3):
    """Logits of the network, from the tensors of a checkpoint."""

    def norm(x, name):
        mean = x.mean(-1, keepdims=True)
        deviation = np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
        return (x - mean) / deviation * tensors[f"{name}.weight"] + tensors[
            f"{name}.bias"
        ]

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def halve(x, name):
        """A window of 3x3 around every second pixel, zeros outside."""
        kernel = tensors[f"{name}.weight"]
        batch, height, width, _ = x.shape
        sizes = math.ceil(height / 2), math.ceil(width / 2)
        output = np.zeros((batch, *sizes, len(kernel)))
        for row in range(sizes[0]):
            for column in range(sizes[1]):
                for a in range(3):
                    for b in range(3):
                        y, z = 2 * row + a - 1, 2 * column + b - 1
                        if 0 <= y < height and 0 <= z < width:
                            output[:, row, column] += (
                                x[:, y, z] @ kernel[:, :, a, b].T
                            )
        return output + tensors.get(f"{name}.bias", 0)

    def attend(x, name, heads, dilation):
        parts = np.split(tensors[f"{name}.qkv.weight"], 3)
        biases = np.split(tensors[f"{name}.qkv.bias"], 3)
        weights = {
            "position_bias": tensors[f"{name}.rpb"],
            "output_kernel": tensors[f"{name}.proj.weight"].T,
            "output_bias": tensors[f"{name}.proj.bias"],
        }
        for part, kernel, bias in zip(
            ("query", "key", "value"), parts, biases, strict=True
        ):
            weights[f"{part}_kernel"] = kernel.T
            weights[f"{part}_bias"] = bias
        return oracle.neighborhood_attention(
            x,
            weights,
            num_heads=heads,
            kernel_size=kernel_size,
            dilation_rate=dilation,
        )[0]

    erf = np.vectorize(math.erf)
    x = halve(halve(images, "patch_embed.proj.0"), "patch_embed.proj.1")
    x = norm(x, "patch_embed.norm")
    for level, blocks in enumerate(options.num_blocks):
        for number in range(blocks):
            name = f"levels.{level}.blocks.{number}"
            dilation = options.dilations[level] if number % 2 else 1
            heads = x.shape[-1] // 32
            branch = attend(
                norm(x, f"{name}.norm1"), f"{name}.attn", heads, dilation
            )
            x = x + branch * tensors.get(f"{name}.gamma1", 1)
            hidden = dense(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
            hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
            branch = dense(hidden, f"{name}.mlp.fc2")
            x = x + branch * tensors.get(f"{name}.gamma2", 1)
        if level + 1 < len(options.num_blocks):
            name = f"levels.{level}.downsample"
            x = norm(halve(x, f"{name}.reduction"), f"{name}.norm")
    return dense(norm(x, "norm").mean((1, 2)), "head")


@pytest.mark.parametrize("layer_scale", [0.5, None])
def test_files_of_authors_and_hub(layer_scale, tmp_path):
    """In every format; logits are those of the reference."""
    options = NATOptions("NATMini", (1, 2), 32, 2, 0.2, layer_scale, (1, 2))
    tensors = checkpoint(options)
    paths = [
        tmp_path / name
        for name in ("authors.pth", "hub.bin", "hub.safetensors")
    ]
    write_torch(paths[0], tensors)
    write_torch(paths[1], on_the_hub(tensors))
    write_safetensors(paths[2], on_the_hub(tensors, "dinat."))
    images = np.random.default_rng(1).normal(size=(2, 20, 26, 3))
    expected = reference(images, tensors, options)
    for path in paths:
        model = tiny(options, weights=path, classifier_activation=None)
        logits = keras.ops.convert_to_numpy(model(images))
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)
    model.save_weights(tmp_path / "ours.weights.h5")
    again = tiny(options, weights=tmp_path / "ours.weights.h5")
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(
            *map(keras.ops.convert_to_numpy, (one, other))
        )


def test_another_classifier_and_none(tmp_path):
    path = tmp_path / "hub.safetensors"
    write_safetensors(path, on_the_hub(checkpoint()))
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
    "change, message",
    [
        (lambda t: t.pop("norm.weight"), "must hold the tensor 'norm.weight'"),
        (
            lambda t: t.update(extra=np.ones(2, "float32")),
            r"1 more tensors, \['extra'\]",
        ),
        (
            lambda t: t.update({"norm.bias": np.ones(3, "float32")}),
            r"'norm.bias' of .* must have the shape \(64,\).*Received: \(3,\)",
        ),
        (
            lambda t: t.update(
                {"levels.0.blocks.0.attn.qkv.bias": np.ones(4, "float32")}
            ),
            "qkv.bias' must have 3 equal parts",
        ),
    ],
    ids=["missing", "unexpected", "misshapen", "indivisible"],
)
def test_wrong_tensors(change, message, tmp_path, monkeypatch):
    """Nothing is half loaded."""
    tensors = checkpoint()
    change(tensors)
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
    """The revision is fixed; the hash is checked where it is known."""
    calls = []
    path = tmp_path / "hub.bin"
    write_torch(path, on_the_hub(checkpoint(classes=5)))

    def get_file(name, origin, **options):
        calls.append((name, origin, options))
        return str(path)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    key = ("NATMini", 3, (1, 2))
    file = nat_weights.PUBLISHED["NATSmall", 7, (1, 1, 1, 1)]
    monkeypatch.setitem(nat_weights.PUBLISHED, key, file)
    model = tiny(weights="imagenet")
    assert model.count_params() > 0
    tiny(weights="imagenet", kernel_size=(3, 3))
    assert calls.pop() == calls[0]
    ((name, origin, options),) = calls
    revision = "665146828020e5ba40a7cbe1037a14968959e067"
    assert name == f"shi-labs_nat-small-in1k-224_{revision[:7]}_{file.name}"
    assert origin == (
        "https://huggingface.co/shi-labs/nat-small-in1k-224/resolve/"
        f"{revision}/pytorch_model.bin"
    )
    assert options["file_hash"].startswith("3535d487")

    def fail(*arguments, **options):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.utils, "get_file", fail)
    with pytest.raises(ConnectionError, match="URL fetch .*pass its path as"):
        tiny(weights="imagenet")
    with pytest.raises(ValueError, match="must be one of .*Received: 5 and"):
        tiny(weights="imagenet", kernel_size=5)
    with pytest.raises(ValueError, match=r"Received: \(3, 5\) and"):
        tiny(weights="imagenet", kernel_size=(3, 5))


def test_a_file_that_is_not_the_published_one(tmp_path, monkeypatch):
    """Keras compares the hash after a download, here from a file."""
    (tmp_path / "model.bin").write_bytes(b"other")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(
        published_file.PublishedFile,
        "url",
        property(lambda self: (tmp_path / "model.bin").as_uri()),
    )
    file = nat_weights.PUBLISHED["NATSmall", 7, (1, 1, 1, 1)]
    with pytest.raises(
        ConnectionError, match="cannot be downloaded: .*corrupt"
    ):
        file.download()


def test_every_variant_is_published():
    assert {key[0] for key in nat_weights.PUBLISHED} == set(VARIANTS)
    for name, options in VARIANTS.items():
        assert (name, 7, options.dilations) in nat_weights.PUBLISHED


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"dilations": (1,)}, "`dilations` must be 2 integers"),
        ({"dilations": (1, 0)}, "`dilation_rate` must be a positive integer"),
        ({"drop_path_rate": 1.0}, "`drop_path_rate` must be a number in"),
        ({"pooling": "sum"}, "`pooling` must be one of"),
        ({"weights": "nothing.pth"}, 'must be `None`, "imagenet" or the pat'),
        ({"weights": __file__}, "must end in one of .*`.safetensors`, `.bin`"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="channels last.*'channels_first'"):
        tiny()


@pytest.mark.network
@pytest.mark.parametrize(
    "name, expected",
    [
        ("NATMini", [0.3805, -0.8676, -0.3912]),
        ("DiNATMini", [-0.1545, -0.7667, 0.4642]),
    ],
)
def test_published_logits(name, expected):
    """First logits that the tests of transformers 4.53 have, of COCO's cats."""
    pillow = pytest.importorskip("PIL.Image")
    path = keras.utils.get_file(
        "000000039769.jpg",
        "http://images.cocodataset.org/val2017/000000039769.jpg",
    )
    image = pillow.open(path).convert("RGB")
    scale = 256 / min(image.size)
    size = tuple(int(scale * side) for side in image.size)
    image = np.array(image.resize(size, pillow.Resampling.BICUBIC))
    top, left = ((side - 224) // 2 for side in image.shape[:2])
    image = image[top : top + 224, left : left + 224].astype("float32")
    model = getattr(applications, name)(classifier_activation=None)
    logits = model(nat.preprocess_input(image[None]))
    actual = keras.ops.convert_to_numpy(logits)[0, :3]
    np.testing.assert_allclose(actual, expected, atol=1e-3)
