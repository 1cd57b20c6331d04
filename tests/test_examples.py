"""The examples as their users run them, on data of a moment."""

import functools
import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "train_classifier.py"
WRITTEN = {
    "attention_first.png",
    "attention_last.png",
    "model.keras",
    "training.png",
}
TINY = ["--epochs", "1", "--width", "8", "--blocks", "1"]

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the examples are tried on TensorFlow",
)


@pytest.fixture
def example(monkeypatch):
    """The module of the example; new processes find the package, too."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    spec = importlib.util.spec_from_file_location("train_classifier", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_classifier", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def same_process(example, monkeypatch):
    """Reloads without a new process, which takes seconds."""

    def evaluate(model_path, options):
        options = example.parse(
            ["--evaluate", str(model_path), "--data", options.data]
        )
        return example.evaluate_file(options)

    monkeypatch.setattr(example, "evaluate_in_new_process", evaluate)


def image_folder(folder, classes=("cat", "dog"), images=5):
    """Images of one gray for each class, of different sizes."""
    for shade, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            pixels = np.full((9 + number, 10, 3), 200 * shade, "uint8")
            encoded = tf.io.encode_png(pixels).numpy()
            (folder / name / f"{number}.png").write_bytes(encoded)
    return folder


def accuracies(output):
    """Returns the accuracies in the last two lines, before and after."""
    lines = output.strip().splitlines()[-2:]
    assert lines[0].startswith("test accuracy: ")
    assert lines[1].startswith("test accuracy, reloaded in a new process: ")
    return [float(line.split()[-1]) for line in lines]


def test_digits(example, tmp_path, capfd):
    example.main([*TINY, "--output", str(tmp_path)])
    output = capfd.readouterr().out
    before, after = accuracies(output)
    assert before == after
    assert 0 <= before <= 1
    assert "1437 images to train, 360 to test, 10 classes" in output
    assert "45/45" in output  # Keras' progress bar.
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN
    for picture in tmp_path.glob("*.png"):
        pixels = tf.io.decode_png(picture.read_bytes()).numpy()
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 10

    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.input_shape == (None, 8, 8, 1)
    scaling = model.get_layer(index=1)
    assert isinstance(scaling, keras.layers.Rescaling)
    np.testing.assert_array_equal(scaling(np.array([0.0, 16.0])), [-1, 1])


def test_unlike_accuracies_are_an_error(example, tmp_path, monkeypatch):
    for name, value in {
        "train": None,
        "draw": None,
        "evaluate": 0.5,
        "evaluate_in_new_process": 0.25,
    }.items():
        monkeypatch.setattr(example, name, lambda *_, value=value: value)
    with pytest.raises(SystemExit, match="not as accurate"):
        example.main([*TINY, "--output", str(tmp_path)])


def test_failure_of_the_new_process_is_an_error(example, tmp_path):
    options = example.parse(["--data", "digits"])
    with pytest.raises(SystemExit, match="new process failed: .*no.keras"):
        example.evaluate_in_new_process(tmp_path / "no.keras", options)


def test_training_learns(example):
    """Two classes of four images that differ: loss and errors vanish."""
    options = example.parse(["--epochs", "30", "--width", "8", "--blocks", "1"])
    images = np.zeros((8, 8, 8, 1), "uint8")
    images[4:, :, :4] = 16
    dataset = tf.data.Dataset.from_tensor_slices((images, [0] * 4 + [1] * 4))
    data = example.Data(dataset, dataset, (8, 8, 1), classes=2, white=16.0)
    keras.utils.set_random_seed(0)
    model = example.build_model(data, options)
    history = example.train(model, data, options).history
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    assert history["accuracy"][-1] == 1


def test_image_folder(example, same_process, tmp_path, capfd):
    image_folder(tmp_path / "data" / "train", images=8)
    image_folder(tmp_path / "data" / "validation", images=2)
    folder = tmp_path / "runs"
    example.main(
        [*TINY, "--data", str(tmp_path / "data"), "--output", str(folder)]
        + ["--image-size", "12"]
    )
    output = capfd.readouterr().out
    before, after = accuracies(output)
    assert before == after
    assert "16 images to train, 4 to test, 2 classes" in output
    assert {path.name for path in folder.iterdir()} == WRITTEN
    model = keras.saving.load_model(folder / "model.keras")
    assert model.input_shape == (None, 12, 12, 3)


@pytest.mark.parametrize("held_out", ["validation", "val", "test", None])
def test_layouts_of_an_image_folder(example, tmp_path, held_out):
    if held_out:
        image_folder(tmp_path / "train", images=8)
        image_folder(tmp_path / held_out, images=2)
    else:
        image_folder(tmp_path, images=10)
    options = example.parse(["--data", str(tmp_path), "--image-size", "6"])
    data = example.load_data(options)
    assert (data.shape, data.classes, data.white) == ((6, 6, 3), 2, 255)
    for dataset, number in ((data.train, 16), (data.test, 4)):
        pairs = list(dataset.as_numpy_iterator())
        assert len(pairs) == number
        for image, label in pairs:
            np.testing.assert_array_equal(
                image, np.full((6, 6, 3), 200 * label, "uint8")
            )


def test_photos_are_mirrored_and_digits_are_not(example):
    """An image that is bright on the left, shifted by up to 2 pixels."""
    options = example.parse(["--image-size", "16", "--batch-size", "64"])
    for channels, mirrored in ((1, False), (3, True)):
        image = np.zeros((64, 16, 16, channels), "uint8")
        image[:, :, 3:5] = 255
        dataset = tf.data.Dataset.from_tensor_slices((image, np.zeros(64)))
        shape = image.shape[1:]
        data = example.Data(dataset, dataset, shape, classes=2)
        ((batch, _),) = example.training_batches(data, options)
        bright = batch.numpy().mean((1, 3)).argmax(-1)
        assert ((bright > 8).any()) == mirrored
        assert (bright < 8).any()
        assert len(set(bright)) > 2  # Shifted.
        ((untouched, _),) = example.batches(data.test, options)
        np.testing.assert_array_equal(untouched, image)


def test_large_images_get_the_stem_that_makes_them_small(example):
    options = example.parse([*TINY, "--image-size", "72"])
    data = example.Data(None, None, (72, 72, 3), classes=2)
    model = example.build_model(data, options)
    assert model.get_layer("group1_output").output.shape[1:3] == (18, 18)


def test_tfds(example, same_process, tmp_path, capfd):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=12):
        example.main(
            [*TINY, "--data", "tfds:mnist", "--output", str(tmp_path)]
            + ["--image-size", "8"]
        )
    before, after = accuracies(capfd.readouterr().out)
    assert before == after
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.input_shape == (None, 8, 8, 1)
    assert model.output_shape == (None, 10)


def test_tfds_with_a_test_split(example, tmp_path, monkeypatch):
    """Prepared on disk as after a download, without a mock."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyShapes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(num_classes=3),
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
    options = example.parse(["--data", "tfds:tiny_shapes"])
    data = example.load_data(options)
    assert (data.shape, data.classes) == ((32, 32, 3), 3)
    for dataset, number in ((data.train, 9), (data.test, 6)):
        pairs = list(dataset.as_numpy_iterator())
        assert len(pairs) == number
        for image, label in pairs:
            np.testing.assert_array_equal(
                image, np.full((32, 32, 3), 80 * label, "uint8")
            )


@pytest.mark.parametrize(
    "data, output",
    [
        ("digits", "digits"),
        ("some/where/photos", "photos"),
        ("some/where/photos/", "photos"),
        (".", "folder"),
        ("tfds:cifar10", "cifar10"),
    ],
)
def test_default_output(example, data, output):
    options = example.parse(["--data", data])
    assert options.output == pathlib.Path("runs", output)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--epochs", "0"], "--epochs: 0 is not above 0"),
        (["--epochs", "many"], "--epochs: invalid positive value: 'many'"),
        (["--width", "12"], "multiple of 8. Received: 12"),
        (["--blocks", *"11111"], "one to four numbers"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_wrong_arguments(example, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        example.main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_folder(example, tmp_path):
    with pytest.raises(SystemExit, match="no folder .*nowhere"):
        example.main(arguments(tmp_path, tmp_path / "nowhere"))


def test_empty_folder(example, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="not a folder of one folder .*empty"):
        example.main(arguments(tmp_path, tmp_path / "empty"))


def test_folder_without_images(example, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "notes.txt").write_text("no image")
    with pytest.raises(SystemExit, match="No training images found"):
        example.main(arguments(tmp_path, tmp_path / "data"))


def test_one_class(example, tmp_path):
    data = image_folder(tmp_path / "data", classes=["cat"])
    with pytest.raises(SystemExit, match=r"two classes or more.*\['cat'\]"):
        example.main(arguments(tmp_path, data))


def test_other_classes_to_test(example, tmp_path):
    image_folder(tmp_path / "data" / "train")
    image_folder(tmp_path / "data" / "test", classes=["cat", "horse"])
    with pytest.raises(SystemExit, match="class_names"):
        example.main(arguments(tmp_path, tmp_path / "data"))


def test_unknown_tfds_name(example, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(SystemExit, match="not_there cannot be loaded") as error:
        example.main(arguments(tmp_path, "tfds:not_there"))
    assert "\n" not in str(error.value)


def test_tfds_set_without_labels(example, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=4):
        with pytest.raises(SystemExit, match="one label each.*objects"):
            example.main(arguments(tmp_path, "tfds:coco/2017"))


@pytest.mark.parametrize(
    "module, distribution, data",
    [
        ("sklearn", "scikit-learn", "digits"),
        ("matplotlib", "matplotlib", "digits"),
        ("tensorflow_datasets", "tensorflow-datasets", "tfds:cifar10"),
    ],
)
def test_missing_package(
    example, tmp_path, monkeypatch, module, distribution, data
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        SystemExit, match=rf"^{distribution} .*keras_sasa\[examples\]"
    ):
        example.main(arguments(tmp_path, data))


def test_output_that_cannot_be_written(example, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SystemExit, match="--output cannot be .*file"):
        example.main(["--output", str(tmp_path / "file")])
    with pytest.raises(SystemExit, match="--output cannot be .*file"):
        example.main(["--output", str(tmp_path / "file" / "inside")])


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_evaluate_without_a_model(example, tmp_path, content):
    path = tmp_path / "some.keras"
    if content:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match="some.keras cannot be loaded"):
        example.main(["--evaluate", str(path)])


def arguments(tmp_path, data):
    return ["--data", str(data), "--output", str(tmp_path / "runs")]


@pytest.mark.large
def test_default_command(example, tmp_path):
    """No arguments: 97 % in three minutes on two cores."""
    begin = time.monotonic()
    result = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - begin
    assert result.returncode == 0, result.stderr
    before, after = accuracies(result.stdout)
    assert before == after
    assert before >= 0.97
    assert seconds < 180
    folder = tmp_path / "runs" / "digits"
    assert {path.name for path in folder.iterdir()} == WRITTEN
