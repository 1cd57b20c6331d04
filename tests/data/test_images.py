"""Images with classes: sources, splits, reproducible batches, exact passes."""

import dataclasses
import functools
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sasa.data import (
    ImageData,
    evaluation_batches,
    load_data,
    load_detection_data,
    training_batches,
    typical_side,
)
from keras_sasa.data.augmentation import AUGMENTATIONS, Augmentation
from keras_sasa.data.augmentation.rand_augment import rand_augment
from keras_sasa.data.classification.sources import SOURCES
from keras_sasa.training import CIFAR10, DIGITS, IMAGENET
from tests.support.images import image_folder

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the pipeline is the same on every backend",
)

SMALL = dataclasses.replace(
    CIFAR10, epochs=3, warmup_epochs=0.3, batch_size=4, image_size=8
)
CROPPED = dataclasses.replace(
    SMALL, augmentation="resized_crop", rand_augment_factor=0.5
)


def numbered(number, side=8, channels=3):
    """Images of random pixels, each labelled with its own class."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (number, side, side, channels), "uint8"
    )
    dataset = tf.data.Dataset.from_tensor_slices(
        (pixels, np.arange(number, dtype="int64"))
    )
    names = [str(label) for label in range(number)]
    return ImageData(dataset, dataset, names, channels), pixels


def arrays(dataset):
    return list(dataset.as_numpy_iterator())


def assert_equal(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("recipe", [SMALL, CROPPED], ids=["shift", "crop"])
def test_batches_depend_on_seed_and_epoch_alone(recipe):
    data, _ = numbered(11)
    tf.random.set_seed(1)
    batches = arrays(training_batches(data, recipe, seed=5))
    assert len(batches) == 3 * (11 // 4)
    for images, labels in batches:
        assert images.shape == (4, 8, 8, 3) and images.dtype == "uint8"
        assert labels.shape == (4, 11) and (labels.sum(1) == 1).all()
    tf.random.set_seed(0)
    again = arrays(training_batches(data, recipe, seed=5, initial_epoch=1))
    assert_equal(again, batches[2:])
    other = arrays(training_batches(data, recipe, seed=6))
    assert any(
        (a[1] != b[1]).any() for a, b in zip(other, batches, strict=True)
    )


def test_batches_of_a_set_that_does_not_fit_in_memory(tmp_path, monkeypatch):
    """They are the same; paths are shuffled, not images."""
    image_folder(tmp_path, images=10)
    data = load_data(tmp_path)
    expected = arrays(training_batches(data, SMALL, seed=2))
    validation = arrays(evaluation_batches(data, SMALL, 4))
    monkeypatch.setattr(
        "keras_sasa.data.classification.batches._CACHE_BYTES", 0
    )
    monkeypatch.setattr(
        "keras_sasa.data.classification.batches._prepared", None
    )  # Of the whole set: not to be called.
    assert_equal(arrays(training_batches(data, SMALL, seed=2)), expected)
    monkeypatch.undo()
    monkeypatch.setattr(
        "keras_sasa.data.classification.batches._CACHE_BYTES", 0
    )
    assert_equal(arrays(evaluation_batches(data, SMALL, 4)), validation)


def test_each_epoch_has_every_image_once_in_another_order():
    data, _ = numbered(12)
    batches = arrays(training_batches(data, SMALL))
    orders = np.concatenate([labels for _, labels in batches]).argmax(1)
    orders = orders.reshape(3, 12)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(12))
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("recipe", [SMALL, CROPPED], ids=["shift", "crop"])
def test_shards_are_the_parts_of_the_same_batches(recipe):
    # RandAugment uses the same seeds, and takes long to trace.
    recipe = dataclasses.replace(recipe, rand_augment_factor=0.0)
    data, _ = numbered(9)
    whole = arrays(training_batches(data, recipe))
    parts = [
        arrays(training_batches(data, recipe, shard=(index, 2)))
        for index in range(2)
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        for k in range(2):
            np.testing.assert_array_equal(batch[k][0::2], first[k])
            np.testing.assert_array_equal(batch[k][1::2], second[k])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("number", [4, 5, 11])
def test_evaluation_is_exact(number, count):
    """Every image occurs once, and means ignore the padding."""
    data, pixels = numbered(number)
    shards = [
        arrays(evaluation_batches(data, SMALL, 4, shard=(index, count)))
        for index in range(count)
    ]
    assert len({len(shard) for shard in shards}) == 1
    batches = [batch for shard in shards for batch in shard]
    images, labels, weights = (
        np.concatenate(parts) for parts in zip(*batches, strict=True)
    )
    assert {batch[0].shape for batch in batches} == {(4 // count, 8, 8, 3)}
    assert np.mean(weights) == pytest.approx(1)
    real = weights > 0
    assert real.sum() == number and len(set(weights[real])) == 1
    order = labels[real].argmax(1)
    np.testing.assert_array_equal(np.sort(order), np.arange(number))
    np.testing.assert_array_equal(images[real], pixels[order])


def test_keras_reports_exact_means_for_a_padded_last_batch():
    data, _ = numbered(11)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(11, "softmax"),
        ]
    )
    model.compile(
        loss="categorical_crossentropy",
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    padded = model.evaluate(
        evaluation_batches(data, SMALL, 4), verbose=0, return_dict=True
    )
    ((images, labels, _),) = arrays(evaluation_batches(data, SMALL, 11))
    whole = model.evaluate(images, labels, 11, verbose=0, return_dict=True)
    assert padded["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert padded["accuracy"] == pytest.approx(whole["accuracy"])


def test_shift_and_flip():
    """An image that is bright on the left moves by up to two pixels."""
    image = np.zeros((64, 16, 16, 3), "uint8")
    image[:, :, 3:5] = 255
    dataset = tf.data.Dataset.from_tensor_slices((image, np.zeros(64, int)))
    data = ImageData(dataset, dataset, ["a", "b"])
    for flip in (False, True):
        recipe = dataclasses.replace(
            SMALL, batch_size=64, image_size=16, flip=flip, epochs=1
        )
        ((images, _),) = arrays(training_batches(data, recipe))
        bright = images.mean((1, 3)).argmax(-1)
        assert (bright > 8).any() == flip
        assert (bright < 8).any() and len(set(bright)) > 2
        assert bright[bright < 8].min() >= 1 and bright[bright < 8].max() <= 5


def test_resized_crop_of_a_gradient():
    """Parts of a ramp are ramps; JPEG, PNG and pixels are cut alike."""
    ramp = np.linspace(0, 255, 64).astype("uint8")
    pixels = np.broadcast_to(ramp[None, :, None], (48, 64, 3))
    recipe = dataclasses.replace(
        CROPPED, rand_augment_factor=0.0, flip=False, epochs=1, batch_size=16
    )

    def batch(images):
        images = [images] * 16
        dataset = tf.data.Dataset.from_tensor_slices((images, [0] * 16))
        data = ImageData(dataset, dataset, ["a", "b"])
        ((images, _),) = arrays(training_batches(data, recipe))
        return images.astype(int)

    raw = batch(pixels)
    assert (np.diff(raw, axis=2) >= -1).all()
    assert len({tuple(image[0, :, 0]) for image in raw}) > 10
    png = batch(tf.io.encode_png(pixels).numpy())
    np.testing.assert_array_equal(png, raw)
    jpeg = batch(tf.io.encode_jpeg(pixels, quality=100).numpy())
    assert abs(jpeg - raw).max() <= 6


@pytest.mark.parametrize("recipe, side", [(SMALL, 16), (CROPPED, 14)])
@pytest.mark.parametrize("height, width", [(16, 16), (16, 48), (37, 16)])
def test_middle_square_is_evaluated(recipe, side, height, width):
    """All of it and nothing else, so that proportions stay."""
    top, left = (height - side) // 2, (width - side) // 2
    pixels = np.zeros((height, width, 3), "uint8")
    pixels[top : top + side, left : left + side] = 200
    dataset = tf.data.Dataset.from_tensors((pixels, 0))
    data = ImageData(dataset, dataset, ["a", "b"])
    images, _, weights = arrays(evaluation_batches(data, recipe))[0]
    assert (images[weights > 0] == 200).all()


def test_photos_keep_their_proportions():
    """A square in a wide image stays one, also after random shifts."""
    pixels = np.zeros((32, 64, 3), "uint8")
    pixels[12:20, 28:36] = 255
    dataset = tf.data.Dataset.from_tensors((pixels, 0)).repeat(4)
    data = ImageData(dataset, dataset, ["a", "b"])
    recipe = dataclasses.replace(SMALL, image_size=16)
    trained = arrays(training_batches(data, recipe))[0][0]
    evaluated = arrays(evaluation_batches(data, recipe, 4))[0][0]
    for image in (*trained, *evaluated):
        bright = image[..., 0] > 127
        assert bright.any(0).sum() == bright.any(1).sum() == 4


def test_rand_augment():
    image = tf.constant(
        np.random.default_rng(0).integers(0, 256, (8, 8, 3), "uint8")
    )
    function = tf.function(lambda seed: rand_augment(image, seed, 0.5))
    results = [
        function(tf.constant([1, number], "int64")).numpy()
        for number in range(20)
    ]
    for result in results:
        assert result.shape == (8, 8, 3) and result.dtype == "uint8"
    assert len({result.tobytes() for result in results}) > 10
    again = function(tf.constant([1, 3], "int64")).numpy()
    np.testing.assert_array_equal(again, results[3])


def test_digits():
    data = load_data("digits")
    assert (data.num_train, data.num_validation) == (1437, 360)
    assert (data.num_classes, data.channels, data.max_pixel_value) == (
        10,
        1,
        16,
    )
    assert load_data("digits", validation_split=0.5).num_validation == 899


@pytest.mark.parametrize("split", ["validation", "val", "test", None])
def test_layouts_of_an_image_folder(tmp_path, split):
    if split:
        image_folder(tmp_path / "train", images=8)
        image_folder(tmp_path / split, images=2)
    else:
        image_folder(tmp_path, images=10)
    data = load_data(str(tmp_path))
    assert data.class_names == ["cat", "dog"]
    assert (data.num_train, data.num_validation) == (16, 4)
    for dataset in (data.train, data.validation):
        for images, labels, weights in arrays(
            evaluation_batches(data, SMALL, 4, dataset)
        ):
            grays = 40 * labels.argmax(1)[:, None, None, None]
            assert (images == np.where(weights > 0, grays.T, 0).T).all()


def test_validation_split_replaces_a_validation_set(tmp_path):
    image_folder(tmp_path / "train", images=10)
    image_folder(tmp_path / "validation", images=1)
    data = load_data(tmp_path, validation_split=0.25)
    assert (data.num_train, data.num_validation) == (14, 6)


def test_tfds_prepared_on_disk(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyShapes(tfds.core.GeneratorBasedBuilder):
        # Reading the files beside a package needs importlib_resources, which
        # TensorFlow Datasets does not require.
        __module__ = "builders"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, _):
            return {
                "train": self._generate_examples(9),
                "test": self._generate_examples(6),
            }

        def _generate_examples(self, images):
            for number in range(images):
                label = number % 3
                pixels = np.full((8 + number, 9, 3), 80 * label, "uint8")
                yield number, {"image": pixels, "label": label}

    builder = functools.partial(tfds.builder, data_dir=tmp_path)
    monkeypatch.setattr(tfds, "builder", builder)
    data = load_data("tfds:tiny_shapes")
    assert data.class_names == ["a", "b", "c"]
    assert (data.num_train, data.num_validation) == (9, 6)
    for images, labels, weights in arrays(evaluation_batches(data, SMALL, 4)):
        grays = 80 * labels.argmax(1)[:, None, None, None]
        assert (images[weights > 0] == grays[weights > 0]).all()
    with pytest.warns(UserWarning, match=r"of 3 classes .*train\[67%:\].*: \["):
        split = load_data("tfds:tiny_shapes", validation_split=0.33)
    assert (split.num_train, split.num_validation) == (6, 3)
    as_dataset = tfds.core.DatasetBuilder.as_dataset
    monkeypatch.setattr(
        tfds.core.DatasetBuilder,
        "as_dataset",
        lambda *args, **kwargs: [
            dataset.map(lambda image, label: (image, label - 1))
            for dataset in as_dataset(*args, **kwargs)
        ],
    )
    with pytest.raises(ValueError, match="'test' of tfds:tiny_.* 2 of 6"):
        load_data("tfds:tiny_shapes")


@pytest.mark.filterwarnings("ignore:.* classes have no images")
def test_mocked_imagenet():
    """The real reader of ImageNet on made images of its format."""
    tfds = pytest.importorskip("tensorflow_datasets")
    recipe = dataclasses.replace(
        IMAGENET, epochs=1, warmup_epochs=0, batch_size=4, image_size=32
    )
    with tfds.testing.mock_data(num_examples=8):
        data = load_data("tfds:imagenet2012")
        assert data.num_classes == 1000
        # The mock yields images; what says how many there are is the real
        # description.
        images, labels = next(
            training_batches(data, recipe).take(1).as_numpy_iterator()
        )
    assert images.shape == (4, 32, 32, 3) and labels.shape == (4, 1000)


def test_unknown_tfds_name():
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="not_there cannot be") as error:
        load_data("tfds:not_there")
    assert "\n" not in str(error.value)


def test_tfds_set_without_labels():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=4):
        with pytest.raises(ValueError, match="one label each.*objects"):
            load_data("tfds:coco/2017")


@pytest.mark.parametrize(
    "module, distribution, name",
    [
        ("sklearn", "scikit-learn", "digits"),
        ("tensorflow_datasets", "tensorflow-datasets", "tfds:cifar10"),
    ],
)
def test_missing_package(monkeypatch, module, distribution, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf"^{distribution} .*: pip install {distribution}$"
    ):
        load_data(name)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2])
def test_wrong_validation_split(fraction):
    with pytest.raises(ValueError, match="`validation_split` must be a frac"):
        load_data("digits", validation_split=fraction)


def test_source_that_joins(monkeypatch):
    """A function and a row make a new source."""

    def load(name, validation_split, skip_corrupt):
        return name, validation_split, skip_corrupt

    monkeypatch.setitem(SOURCES, "shapes:", load)
    assert load_data("shapes:round", 0.5) == ("round", 0.5, False)
    with pytest.raises(
        ValueError,
        match="'digits', 'tfds:NAME', 'shapes:NAME' or the path of a folder of "
        "images. There is no folder 'shape'",
    ):
        load_data("shape")


@pytest.mark.parametrize("name", [None, 3, ["digits"]])
@pytest.mark.parametrize("load", [load_data, load_detection_data])
def test_wrong_kind_of_name(load, name):
    with pytest.raises(ValueError, match="`name` must be '.*Received: name="):
        load(name)


def test_augmentation_that_joins(monkeypatch):
    """A function and a row make a new augmentation."""

    def black(image, data, side, seed):
        return tf.zeros((side, side, data.channels), "uint8")

    monkeypatch.setitem(
        AUGMENTATIONS, "black", Augmentation(black, "class", "central_crop")
    )
    data, pixels = numbered(4)
    recipe = dataclasses.replace(SMALL, augmentation="black", epochs=1)
    ((images, labels),) = arrays(training_batches(data, recipe))
    assert not images.any() and labels.sum() == 4
    assert recipe.resizing == "central_crop"
    ((images, *_),) = arrays(evaluation_batches(data, recipe, 4))
    assert images.any()


def test_batch_larger_than_the_data():
    data, _ = numbered(3)
    with pytest.raises(ValueError, match="`batch_size` must be at most the 3"):
        training_batches(data, SMALL)


def test_typical_side(tmp_path, monkeypatch):
    """Of pixels, encoded images and files; one in a folder has another size."""
    assert typical_side(numbered(3, side=12)[0]) == 12
    encoded = [tf.io.encode_jpeg(tf.zeros((20, 40, 3), "uint8")).numpy()] * 3
    dataset = tf.data.Dataset.from_tensor_slices((encoded, [0, 0, 1]))
    assert typical_side(ImageData(dataset, dataset, ["a", "b"])) == 20
    # Their sides are 9 to 10, so that classes look alike.
    data = load_data(image_folder(tmp_path, images=10))
    assert typical_side(data) == 10
    monkeypatch.setattr("keras_sasa.data.image_data._SAMPLE", 2)
    assert typical_side(data) in (9, 10)
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="png' is not a readable image"):
        typical_side(data)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 3)])
def test_wrong_shard(shard):
    data, _ = numbered(8)
    for function in (training_batches, evaluation_batches):
        with pytest.raises(ValueError, match="`shard` must be"):
            function(data, SMALL, shard=shard)


def test_augmentation_of_detectors():
    data, _ = numbered(8)
    recipe = dataclasses.replace(SMALL, augmentation="scale_jitter")
    with pytest.raises(ValueError, match="`augmentation` must be 'shift' or"):
        training_batches(data, recipe)
    with pytest.raises(ValueError, match="`resizing` must be .*'letterbox'"):
        evaluation_batches(data, recipe)


def test_digits_are_not_mirrored():
    assert not DIGITS.flip
