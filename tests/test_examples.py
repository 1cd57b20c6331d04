"""The examples as users run them, on small made data."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sasa import applications, command_line
from keras_sasa.applications import ResNet
from keras_sasa.applications.nat import NAT, preprocess_input
from keras_sasa.data import evaluation_batches, load_data
from keras_sasa.detection import RetinaNet
from keras_sasa.layers import ImageRescaling
from keras_sasa.training import (
    CIFAR10,
    DIGITS,
    IMAGENET,
    SaveRun,
    build_model,
    fit,
    load_trained,
    prepare_images,
)
from tests.support.coco_folder import coco_folder
from tests.support.detectors import FEATURES, tiny_backbone
from tests.support.images import image_folder
from tests.support.nat_tensors import TINY as TINY_NAT
from tests.support.nat_tensors import checkpoint
from tests.support.networks import (
    compute_eagerly,
    linear_classifier,
    open_blocks,
)
from tests.support.parameters import large
from tests.support.tensor_files import write_safetensors

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
WRITTEN = {
    "arguments.json",
    "attention_first.png",
    "attention_last.png",
    "best.keras",
    "confusion.png",
    "history.csv",
    "logs",
    "model.keras",
    "state-0001.weights.h5",
    "state.json",
    "training.png",
}
TINY = ["--epochs", "1", "--width", "8", "--blocks", "1", "--heads", "2"]

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the examples are tried on TensorFlow",
)


@pytest.fixture
def load(monkeypatch):
    """Imports an example; its new processes find the package, too."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))

    # As with `python FILE`: examples import each other.
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name):
        path = EXAMPLES / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def classifier(load):
    return load("train_classifier")


@pytest.fixture
def same_process(classifier, load, monkeypatch, capsys):
    """Evaluates without a new process, which takes seconds."""

    def run(command, stdout, text):
        script = command.index(str(EXAMPLES / "evaluate.py"))
        assert command[:script] == [sys.executable, "-W", "ignore"]
        printed = capsys.readouterr().out
        with warnings.catch_warnings(action="ignore"):
            load("evaluate").main(command[script + 1 :])
        output = capsys.readouterr().out
        print(printed, end="")
        return subprocess.CompletedProcess(command, 0, output)

    monkeypatch.setattr(classifier.subprocess, "run", run)


@pytest.fixture
def linear_network(monkeypatch):
    """A linear model in the place of any network; it compiles faster."""
    monkeypatch.setitem(fit.__globals__, "ResNet", linear_classifier)


def accuracies(output):
    """Returns the accuracies in the last two lines, before and after."""
    lines = output.strip().splitlines()[-2:]
    assert lines[0].startswith("validation accuracy: ")
    assert lines[1].startswith("validation accuracy, reloaded in a new")
    return [float(line.split()[-1]) for line in lines]


def test_options_that_older_versions_wrote(tmp_path):
    options = {"data": "digits", "held_out": 0.3, "skip_corrupt": False}
    (tmp_path / "arguments.json").write_text(json.dumps(options))
    parser = command_line.make_parser("", "digits", "", "")
    command_line.add_selection(parser)
    resumed = command_line.parse_options(parser, ["--resume", str(tmp_path)])
    assert resumed.validation_split == 0.3


def test_digits(classifier, tmp_path, capfd):
    pytest.importorskip("tensorboard")
    classifier.main([*TINY, "--output", str(tmp_path)])
    output = capfd.readouterr().out
    before, after = accuracies(output)
    assert before == pytest.approx(after, abs=1e-6)
    assert 0 <= before <= 1
    for line in (
        "network              num_blocks=(1,), stem=small, kernel_size=5",
        "FLOPs                ",
        "data                 digits: 1,437 images to train, 360 to validate",
        "devices              none, 1 device",
        "learning_rate        0.006 = ",
    ):
        assert line in output
    assert "44/44" in output  # Keras' progress bar.
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN
    for picture in tmp_path.glob("*.png"):
        pixels = tf.io.decode_png(picture.read_bytes()).numpy()
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 10
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.input_shape == (None, 8, 8, 1)


def test_image_folder_and_resume(
    classifier, same_process, linear_network, tmp_path, monkeypatch, capsys
):
    image_folder(tmp_path / "data" / "train", images=8)
    image_folder(tmp_path / "data" / "validation", images=2)
    arguments = [*TINY, "--data", str(tmp_path / "data"), "--batch-size", "4"]
    arguments += ["--output", str(tmp_path / "run"), "--image-size", "12"]
    classifier.main(arguments)
    before, after = accuracies(capsys.readouterr().out)
    assert before == pytest.approx(after, abs=1e-6)
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.input_shape == (None, 12, 12, 3)
    with pytest.raises(FileExistsError, match="--resume"):
        classifier.main(arguments)
    classifier.main([*arguments, "--resume"])
    history = (tmp_path / "run" / "history.csv").read_bytes()
    capsys.readouterr()

    # The same arguments from another folder, with more epochs; Ctrl-C.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume = ["--resume", str(tmp_path / "run"), "--epochs", "3"]
    with monkeypatch.context() as patch:

        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

        patch.setattr(SaveRun, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(SystemExit) as end:
            command_line.run(lambda: classifier.main(resume))
    assert end.value.code == 130
    captured = capsys.readouterr()
    # The warm-up of the run with one epoch stays.
    assert "warmup_epochs        0.13\n" in captured.out
    first, second = captured.err.splitlines()[-2:]
    assert first.startswith("Interrupted: the state after epoch 1 is kept in")
    assert second.startswith(f"Resume with --resume {tmp_path / 'run'} (prog")
    classifier.main(resume[:2])
    table = (tmp_path / "run" / "history.csv").read_bytes()
    assert table.startswith(history) and len(table.splitlines()) == 4
    assert not list(pathlib.Path().iterdir())


@pytest.mark.filterwarnings("ignore:.* classes have no images")
@pytest.mark.large
def test_interrupt_from_the_keyboard(load, tmp_path):
    """A real signal to a separate program."""
    load("train_classifier")
    program = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "train_classifier.py")]
        + [*TINY[2:], "--epochs", "1000", "--output", str(tmp_path / "run")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run" / "state.json").exists():
        assert program.poll() is None
        time.sleep(0.1)
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate()
    assert program.returncode == 130
    assert "Traceback" not in errors
    first, second = errors.splitlines()[-2:]
    assert first.startswith("Interrupted: the state after epoch ")
    assert second.startswith(f"Resume with --resume {tmp_path / 'run'} (")


# The labels of so few made images are random.
@pytest.mark.filterwarnings("ignore:.* classes have no images")
def test_tfds(classifier, same_process, linear_network, tmp_path, capsys):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=12):
        classifier.main(
            [*TINY, "--data", "tfds:mnist", "--output", str(tmp_path)]
            + ["--image-size", "8", "--batch-size", "6"]
        )
    before, after = accuracies(capsys.readouterr().out)
    assert before == pytest.approx(after, abs=1e-6)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.output_shape == (None, 10)


@pytest.mark.filterwarnings("ignore:.* classes have no images")
def test_imagenet(load, linear_network, tmp_path, capsys):
    """The whole command on made images of ImageNet's format."""
    tfds = pytest.importorskip("tensorflow_datasets")
    arguments = [*TINY, "--batch-size", "4", "--image-size", "16"]
    with tfds.testing.mock_data(num_examples=8):
        load("train_imagenet").main([*arguments, "--output", str(tmp_path)])
    output = capsys.readouterr().out
    assert "1000 classes" in output and "optimizer            sgd" in output
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.output_shape == (None, 1000)


def test_evaluate(load, tmp_path, capsys):
    """A model that always predicts the first class."""
    image_folder(tmp_path / "data", classes="abcdef", images=10)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(6, "softmax", kernel_initializer="zeros"),
        ]
    )
    model.layers[-1].bias.assign(np.arange(6.0, 0, -1))
    configuration = {
        "recipe": {**vars(CIFAR10), "image_size": 8},
        "classes": list("abcdef"),
    }
    (tmp_path / "state.json").write_text(
        json.dumps({"configuration": configuration, "history": []})
    )
    model.save(tmp_path / "model.keras")
    evaluate = load("evaluate")
    # Like models of older versions, it does not describe its images.
    with pytest.warns(UserWarning, match="does not describe its images"):
        evaluate.main(
            [str(tmp_path / "model.keras"), "--data", str(tmp_path / "data")]
            + ["--batch-size", "5"]
        )
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    first = sum(
        p.parent.name == "a" for p in validation_files(tmp_path / "data")
    )
    last = sum(
        p.parent.name == "f" for p in validation_files(tmp_path / "data")
    )
    assert result["images"] == 12
    assert result["accuracy"] == pytest.approx(first / 12)
    assert result["top_5_accuracy"] == pytest.approx(1 - last / 12)
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_data_that_the_model_was_not_trained_for():
    data = load_data("digits")
    images = ImageRescaling(data.class_names, 8, 1, max_pixel_value=16.0)
    command_line.check_fits(data, images)
    for changed, message in (
        ({"class_names": ["a", "b"]}, "classes of the model's training, "),
        ({"channels": 3}, "number of channels .*, 1. Received: 3"),
        (
            {"max_pixel_value": 255.0},
            "brightest pixel value .*, 16.0. Received: 255.0",
        ),
    ):
        with pytest.raises(ValueError, match=f"--data must have the {message}"):
            command_line.check_fits(
                dataclasses.replace(data, **changed), images
            )


def test_corrupt_images_are_left_out_of_the_evaluation_too(
    classifier, same_process, linear_network, tmp_path, capsys
):
    for part in ("train", "val"):
        image_folder(tmp_path / "data" / part, images=6)
    (tmp_path / "data" / "val" / "dog" / "0.png").write_bytes(b"no image")
    classifier.main(
        [*TINY, "--data", str(tmp_path / "data"), "--batch-size", "4"]
        + ["--output", str(tmp_path / "run"), "--image-size", "12"]
        + ["--skip-corrupt"]
    )
    before, after = accuracies(capsys.readouterr().out)
    assert before == pytest.approx(after, abs=1e-6)


@pytest.mark.large
def test_network_without_attention(classifier, same_process, tmp_path):
    classifier.main([*TINY, "--spatial", "conv", "--output", str(tmp_path)])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == WRITTEN - {"attention_first.png", "attention_last.png"}


def test_missing_matplotlib(classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ImportError, match="^matplotlib .*: pip install matplotlib$"
    ):
        classifier.main(["--output", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def validation_files(folder):
    from keras_sasa.data import load_data

    return [
        pathlib.Path(path.decode())
        for path, _ in load_data(folder).validation.as_numpy_iterator()
    ]


def test_unlike_accuracies_are_an_error(
    classifier, linear_network, tmp_path, monkeypatch
):
    monkeypatch.setattr(classifier, "draw", lambda *_: None)
    monkeypatch.setattr(classifier, "evaluate_in_new_process", lambda *_: 2.0)
    with pytest.raises(SystemExit, match="not as accurate"):
        classifier.main([*TINY, "--output", str(tmp_path)])


def test_failure_of_the_new_process_is_an_error(
    classifier, tmp_path, monkeypatch
):
    monkeypatch.setattr(classifier, "EVALUATE", tmp_path / "no_program.py")
    parser = command_line.make_parser("", "digits", "", "")
    command_line.add_selection(parser)
    options = parser.parse_args([])
    with pytest.raises(SystemExit, match="new process failed: .*no.keras"):
        classifier.evaluate_in_new_process(tmp_path / "no.keras", options)


@pytest.mark.parametrize(
    "side, stem", [(8, "small"), (32, "small"), (64, "conv"), (128, "conv")]
)
def test_network_for_the_size_of_the_images(classifier, side, stem):
    assert classifier.network_for(side)["stem"] == stem


@pytest.mark.parametrize(
    "name",
    [
        "classify",
        "detect",
        "evaluate",
        "finetune",
        "look_inside",
        "train_classifier",
        "train_detector",
        "train_imagenet",
    ],
)
def test_help_shows_defaults(load, capsys, name):
    with pytest.raises(SystemExit, match="0"):
        load(name).main(["--help"])
    options = capsys.readouterr().out.partition("\noptions:")[2]
    parts = re.split(r"\n  (?=-)", options)
    without = [
        part.split()[0].rstrip(",")
        for part in parts[1:]
        if "default" not in part
    ]
    assert set(without) <= {"-h", "--resume", "--tpu"}
    if name == "train_classifier":
        assert "60 by default for 100 photos of 640x480\n" in options


def parse(*arguments):
    return command_line.make_parser("", "digits", "", "").parse_args(arguments)


def test_network_by_name_and_overrides():
    network = command_line.resolve_network(
        parse("--network", "resnet26_conv", "--spatial", "attention"), {}
    )
    assert network == {"num_blocks": (1, 2, 4, 1), "spatial": "attention"}
    network = command_line.resolve_network(
        parse("--blocks", "1", "2", "--spatial", "conv", "attention"),
        {"stem": "small"},
    )
    assert network == {
        "num_blocks": (1, 2),
        "spatial": ("conv", "attention"),
        "stem": "small",
    }
    network = command_line.resolve_network(
        parse("--network", "cifar10_hybrid", "--blocks", "1", "2", "1"), {}
    )
    assert network["spatial"] == ("conv", "attention", "attention")
    network = command_line.resolve_network(
        parse("--width", "32", "--heads", "4"), {}
    )
    assert network == {"width_multiplier": 0.5, "num_heads": 4}


def test_recipe_by_name_and_overrides():
    assert command_line.resolve_recipe(parse(), DIGITS) == DIGITS
    assert (
        command_line.resolve_recipe(parse("--recipe", "imagenet"), DIGITS)
        == IMAGENET
    )
    recipe = command_line.resolve_recipe(
        parse("--epochs", "13", "--batch-size", "256"), IMAGENET
    )
    assert (recipe.epochs, recipe.warmup_epochs) == (13, 1)
    assert recipe.learning_rate == pytest.approx(0.1)
    recipe = command_line.resolve_recipe(
        parse("--learning-rate", "0.3", "--batch-size", "64"), IMAGENET
    )
    assert recipe.learning_rate == pytest.approx(0.3)


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
def test_default_output(data, output):
    assert command_line.resolve_output(parse("--data", data)) == pathlib.Path(
        "runs", output
    )


PICTURES = {"evidence", "attention_first", "attention_last", "heads"}
PICTURES |= {"positions"}
SMALL = {
    "num_blocks": (1, 1),
    "stem": "small",
    "kernel_size": 3,
    "num_heads": 2,
    "width_multiplier": 1 / 16,
}


def save_untrained(network, folder):
    """Saves a model for digits like a run; returns the digits."""
    data = load_data("digits")
    build_model(network, data, DIGITS).save(folder / "model.keras")
    configuration = {"recipe": vars(DIGITS), "classes": data.class_names}
    (folder / "state.json").write_text(
        json.dumps({"configuration": configuration, "history": []})
    )
    return data


def test_look_inside(load, tmp_path, monkeypatch):
    """An untrained model, on validation digits and on files."""
    data = save_untrained(SMALL, tmp_path)
    look_inside = load("look_inside")
    look_inside.main([str(tmp_path / "model.keras")])
    folder = tmp_path / "look_inside"
    assert {path.stem for path in folder.iterdir()} == PICTURES
    for picture in folder.iterdir():
        pixels = tf.io.decode_png(picture.read_bytes()).numpy()
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 10

    image_folder(tmp_path / "images", classes="abcdef", images=2)
    files = sorted(map(str, (tmp_path / "images" / "f").iterdir()))
    drawn = []
    monkeypatch.setattr(
        look_inside, "pictures", lambda *inputs: drawn.append(inputs) or ()
    )
    look_inside.main(
        [str(tmp_path / "model.keras"), *files, "--pixel", "7", "0"]
    )
    ((_, images, shown, classes, pixel),) = drawn
    assert images.shape == (2, 8, 8, 1)
    np.testing.assert_array_equal(images, np.float32(200 * 16 / 255))
    assert list(shown) == [0, 1] and pixel == [7, 0]
    assert classes == data.class_names
    with pytest.raises(ValueError, match="the classes of the model"):
        look_inside.main(
            [str(tmp_path / "model.keras"), "--data", str(tmp_path / "images")]
        )
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ValueError, match="bad.png' is not a readable image"):
        look_inside.main([str(tmp_path / "model.keras"), str(bad)])


def test_classify(load, tmp_path, capsys):
    """From a file without its run: the probabilities of `predict`."""
    image_folder(tmp_path / "data", classes=["cat", "dog", "fox"], images=10)
    data = load_data(tmp_path / "data")
    recipe = dataclasses.replace(CIFAR10, image_size=12, batch_size=6)
    model = open_blocks(build_model(SMALL, data, recipe))
    model.save(tmp_path / "model.keras")
    batches = evaluation_batches(data, recipe, 6)
    expected = model.predict(batches.map(lambda images, *_: images))
    files = [str(path) for path in validation_files(tmp_path / "data")]
    classify = load("classify")
    drawn = []
    real = classify.draw

    def draw(model, image, classes, name, folder):
        if not drawn:
            real(model, image, classes, name, folder)
        drawn.append(name)

    classify.draw = draw
    links = [tmp_path / f"{number}.png" for number in range(len(files))]
    for link, path in zip(links, files, strict=True):
        link.symlink_to(path)
    arguments = [str(tmp_path / "model.keras"), *map(str, links)]
    capsys.readouterr()
    classify.main([*arguments, "--output", str(tmp_path / "out")])
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"written to: {tmp_path / 'out'}"
    assert drawn == [link.stem for link in links]
    for link, scores in zip(links, expected, strict=True):
        assert lines[0] == str(link)
        order = np.argsort(-scores)
        assert lines[1:4] == [
            f"  {scores[label]:6.1%}  {data.class_names[label]}"
            for label in order
        ]
        del lines[:4]
    assert not lines
    _, description = load_trained(tmp_path / "model.keras", "classifier")
    np.testing.assert_array_equal(
        classify.probabilities(model, prepare_images(links, description)),
        expected,
    )
    for kind in ("evidence", "attention"):
        picture = tmp_path / "out" / kind / "0.png"
        pixels = tf.io.decode_png(picture.read_bytes()).numpy()
        assert min(pixels.shape[:2]) > 200 and pixels.std() > 10
    with pytest.raises(ValueError, match=r"more than once: \['0'\]"):
        classify.main([*arguments, arguments[1]])


def small_nat(monkeypatch):
    monkeypatch.setattr(
        applications,
        "NATMini",
        lambda **arguments: NAT(
            TINY_NAT, kernel_size=3, implementation="patches", **arguments
        ),
    )


def test_classify_by_the_name_of_a_network(load, tmp_path, capsys, monkeypatch):
    """All but the names of the classes is there without a network."""
    small_nat(monkeypatch)
    write_safetensors(tmp_path / "hub.safetensors", checkpoint(classes=1000))
    image_folder(tmp_path / "data", classes=["cat"], images=2)
    classify = load("classify")
    path = str(next((tmp_path / "data").rglob("*.png")))

    def fail(predictions, top):
        raise Exception("no network")

    monkeypatch.setattr(classify, "decode_predictions", fail)
    monkeypatch.setattr(
        classify, "pretrained_image_sizes", {"NATMini": 32}.copy
    )
    arguments = [
        *("--network", "NATMini", "--output", str(tmp_path / "out")),
        *("--weights", str(tmp_path / "hub.safetensors")),
    ]
    with pytest.warns(UserWarning, match="their numbers are shown: no network"):
        classify.main([*arguments, path])
    name, *lines, _ = capsys.readouterr().out.splitlines()
    assert name == path
    assert all(re.fullmatch(r" +\d\.\d%  class \d+", line) for line in lines)
    assert len(lines) == classify.SHOWN
    assert len(list((tmp_path / "out" / "evidence").iterdir())) == 1
    with pytest.raises(SystemExit):
        classify.main([path])
    assert "are required: IMAGE" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:The classifier of .* keeps its random")
def test_finetune(load, tmp_path, capsys, monkeypatch):
    """From a file of random weights; the result is classified."""
    compute_eagerly(monkeypatch)
    image_folder(tmp_path / "data", classes=["cat", "dog", "fox"], images=10)
    write_safetensors(tmp_path / "hub.safetensors", checkpoint())
    small_nat(monkeypatch)
    load("finetune").main(
        [
            *("--data", str(tmp_path / "data"), "--image-size", "24"),
            *("--weights", str(tmp_path / "hub.safetensors")),
            *("--batch-size", "6", "--head-epochs", "1", "--epochs", "1"),
            *("--output", str(tmp_path / "run")),
        ]
    )
    output = capsys.readouterr().out
    assert "best validation accuracy: " in output
    best, last = (
        load_trained(tmp_path / "run" / f"{name}.keras", "classifier")
        for name in ("best", "model")
    )
    assert best[1].class_names == last[1].class_names
    model, description = last
    assert description.class_names == ["cat", "dog", "fox"]
    assert model.input_shape == (None, 24, 24, 3)
    image = np.random.default_rng(0).uniform(0, 255, (1, 24, 24, 3))
    normalized = model.get_layer("imagenet")(model.get_layer("scale")(image))
    np.testing.assert_allclose(
        normalized, preprocess_input(image.copy()), atol=1e-4
    )
    # The first weights changed, after the classifier alone had been trained.
    kernel = model.get_layer("stem_conv1").kernel
    before = checkpoint()["patch_embed.proj.0.weight"].transpose(2, 3, 1, 0)
    assert 0 < np.abs(kernel - before).max() < 0.01


def test_classify_wants_probabilities(load):
    classify = load("classify")
    model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    right = np.array([[0.25, 0.75]], "float32")
    np.testing.assert_array_equal(classify.probabilities(model, right), right)
    for wrong in (2 * right, right * np.nan):
        with pytest.raises(ValueError, match="must be probabilities"):
            classify.probabilities(model, wrong)


@pytest.mark.parametrize(
    "changes, missing",
    [
        pytest.param(
            {"spatial": "conv"},
            {"attention_first", "attention_last", "heads", "positions"},
            id="conv",
        ),
        large({"position_encoding": "absolute"}, {"positions"}, id="absolute"),
    ],
)
def test_look_inside_draws_what_there_is(load, tmp_path, changes, missing):
    save_untrained({**SMALL, **changes}, tmp_path)
    load("look_inside").main([str(tmp_path / "model.keras")])
    names = {path.stem for path in (tmp_path / "look_inside").iterdir()}
    assert names == PICTURES - missing


def test_look_inside_at_a_pixel_outside(load, tmp_path):
    save_untrained(SMALL, tmp_path)
    model = str(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="`pixels` must be"):
        load("look_inside").main([model, "--pixel", "9", "9"])
    assert not (tmp_path / "look_inside").exists()


def test_place_of_the_highest_evidence(load):
    evidence = np.zeros((2, 4, 4))
    evidence[0, 3, 0] = evidence[1, 1, 2] = 1
    np.testing.assert_array_equal(
        load("look_inside").most_evident(evidence, (8, 8)), [[7, 1], [3, 5]]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--epochs", "0"], "--epochs: 0 is not above 0"),
        (["--epochs", "many"], "--epochs: invalid positive value: 'many'"),
        (["--network", "vgg"], "--network: invalid choice: 'vgg'"),
        (["--strategy", "all"], "--strategy: invalid choice: 'all'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        parse(*arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "nowhere"], "ValueError: .*There is no folder 'nowhere'"),
        (["--blocks", *"11111"], "ValueError: `num_blocks` must be"),
        (["--strategy", "tpu"], "ConnectionError: The TPU 'of this machine'"),
        (["--strategy", "data_parallel"], "ValueError: .*KERAS_BACKEND=jax"),
    ],
)
def test_errors_are_one_line(classifier, tmp_path, arguments, message):
    arguments += ["--output", str(tmp_path)]
    with pytest.raises(SystemExit, match=message) as error:
        command_line.run(lambda: classifier.main(arguments))
    assert "\n" not in str(error.value)


@pytest.mark.large
def test_default_command(tmp_path):
    """No arguments: 97 % in three minutes on two cores."""
    begin = time.monotonic()
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "train_classifier.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - begin
    assert result.returncode == 0, result.stderr
    before, after = accuracies(result.stdout)
    assert before == pytest.approx(after, abs=1e-6)
    assert before >= 0.97
    assert seconds < 180
    names = {path.name for path in (tmp_path / "runs" / "digits").iterdir()}
    assert names == WRITTEN - {"state-0001.weights.h5"} | {
        name for name in names if name.startswith("state-")
    }


TINY_DETECTOR = [
    *("--spatial", "conv", "conv", "conv", "attention"),
    *("--epochs", "1", "--width", "8", "--heads", "2", "--filters", "32"),
    *("--image-size", "64", "--batch-size", "2"),
]


@pytest.mark.parametrize("backbone", ["tiny", large("resnet")])
def test_detector(load, tmp_path, capsys, monkeypatch, backbone):
    """Trains on a folder, then finds objects in images of it."""
    pytest.importorskip("pycocotools")
    folder = coco_folder(tmp_path / "set", (4, 3))
    run = tmp_path / "run"
    program = load("train_detector")
    fit = program.fit
    changes = {"head_depth": 1}
    if backbone == "tiny":
        compute_eagerly(monkeypatch)
        changes["features"] = FEATURES
        monkeypatch.setitem(
            fit.__globals__,
            "ResNet",
            lambda input_tensor, **_: tiny_backbone(input_tensor=input_tensor),
        )
    networks = []

    def fit_smaller(network, *args, **options):
        networks.append(network)
        return fit({**network, **changes}, *args, **options)

    monkeypatch.setattr(program, "fit", fit_smaller)
    program.main(["--data", str(folder), "--output", str(run), *TINY_DETECTOR])
    assert networks == [
        {
            "backbone": {
                **program.BACKBONE,
                "spatial": ("conv", "conv", "conv", "attention"),
                "width_multiplier": 0.125,
                "num_heads": 2,
            },
            "spatial": "conv",
            "filters": 32,
        }
    ]
    output = capsys.readouterr().out
    measured = json.loads(output.splitlines()[-1])
    assert {"AP", "AP50", "AP75", "AP_small"} <= measured.keys()
    assert "scale_jitter" in output and "FLOPs" in output
    written = {path.name for path in run.iterdir()}
    assert {"model.keras", "best.keras", "detections.png"} <= written
    assert {"history.csv", "training.png"} <= written

    # The file is enough.
    (run / "state.json").unlink()
    images = [str(folder / "val" / f"{number}.png") for number in range(2)]
    detect = load("detect")
    detect.main(
        [
            str(run / "model.keras"),
            *images,
            *("--output", str(tmp_path / "found"), "--score", "0.0"),
        ]
    )
    found = json.loads((tmp_path / "found/detections.json").read_text())
    assert list(found) == images
    for objects, size in zip(found.values(), ((48, 80), (56, 72)), strict=True):
        for each in objects:
            assert each["class"] in ("red", "green", "blue")
            left, top, right, bottom = each["box"]
            assert 0 <= left <= right <= size[1]
            assert 0 <= top <= bottom <= size[0]
    assert (tmp_path / "found/1.png").exists()
    capsys.readouterr()

    with pytest.raises(ValueError, match="distinct names.*'0'"):
        detect.main([str(run / "model.keras"), images[0], images[0]])
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ValueError, match="bad.png' is not a readable image"):
        detect.main(
            [str(run / "model.keras"), str(bad), "--output", str(tmp_path)]
        )


@pytest.mark.parametrize("score", ["40", "nan"])
def test_scores_that_no_box_can_have(load, capsys, score):
    with pytest.raises(SystemExit):
        load("detect").main(["model.keras", "0.png", "--score", score])
    assert "is not from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "backbone, pyramid, layer",
    [
        ("attention", "attention", "pyramid_p3_attention"),
        ("attention", "conv", "group3_block1_attention"),
        ("conv", "conv", None),
    ],
)
def test_attention_of_a_detection(load, backbone, pyramid, layer):
    detector = load("train_detector")
    backbone = ResNet(
        (1, 1, 1, 1),
        width_multiplier=0.125,
        spatial=backbone,
        include_top=False,
        input_shape=(64, 64, 1),
    )
    model = RetinaNet(backbone, 3, spatial=pyramid, filters=32)
    assert detector.shown_layer(model) == layer
    if layer is None:
        return
    found = {
        "boxes": np.array([[4, 30, 20, 62]]),
        "scores": np.array([0.7]),
        "labels": np.array([1]),
    }
    image = np.zeros((64, 64, 1), "uint8")
    figure = detector.attention_of(model, layer, image, found, ["a", "b"])
    assert f"{layer} at the centre of b (0.70)" in figure.get_suptitle()
    # 12 of 64 pixels to the right and 46 down, on a map of 8 x 8.
    (query,) = figure.axes[0].patches
    assert query.get_xy() == (0.5, 4.5)
