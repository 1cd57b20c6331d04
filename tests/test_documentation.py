"""What README and guides tell a reader to type, and where they point."""

import argparse
import functools
import pathlib
import re
import runpy
import shlex
import sys

import keras
import numpy as np
import pytest

from keras_sasa import applications, detection
from keras_sasa.applications import named_nat, published_file
from keras_sasa.applications.nat import NAT, NATOptions
from keras_sasa.command_line import resolve_output
from keras_sasa.layers import ImageRescaling
from keras_sasa.training import fit
from tests.support.detectors import tiny_detector
from tests.support.nat_tensors import checkpoint
from tests.support.networks import compute_eagerly, linear_classifier
from tests.support.tensor_files import write_safetensors

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("benchmarks/*.md"),
    )
)


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, text_of(page), re.MULTILINE | re.DOTALL)


# Keras 3.15.1 looks for an attribute of NumPy before it runs tf2onnx.
@pytest.mark.filterwarnings("ignore:.*`np.object`:FutureWarning")
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the guides are for TensorFlow",
)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")]
)
def test_python_blocks_run(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if not request.config.getoption("--run-large"):
        # The networks of these pages take half a minute each.
        compute_eagerly(monkeypatch)
        if page == "docs/export.md":
            # tests/ops/test_export.py exports attention.
            monkeypatch.setattr(applications, "ResNet", small_network)
        if page == "README.md":
            # docs/conversion.md has it, too.
            monkeypatch.setattr(keras.applications, "ResNet50", small_resnet)
        monkeypatch.setattr(detection, "RetinaNet", small_retinanet)
        monkeypatch.setitem(fit.__globals__, "ResNet", linear_classifier)
    if page == "docs/own_images.md":
        train_on_photos(tmp_path)
    if page == "docs/pretrained.md":
        if request.config.getoption("--run-large"):
            download_random_weights(tmp_path, monkeypatch)
        else:
            monkeypatch.setattr(applications, "NATMini", small_nat)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", few_images)
    # One namespace: a reader types the blocks one after the other.
    namespace = {}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page}[{number}]", "exec"), namespace)


def download_random_weights(folder, monkeypatch):
    """Puts random weights in the place of the published ones of NATMini."""
    path = folder / "hub.safetensors"
    options = named_nat.VARIANTS["NATMini"]
    tensors = checkpoint(options, classes=1000, kernel_size=7)
    write_safetensors(path, tensors)
    monkeypatch.setattr(
        published_file.PublishedFile, "download", lambda self: str(path)
    )


def small_nat(**options):
    """Returns a network of one block, which compiles faster."""
    options |= {"weights": None, "kernel_size": 3, "dilations": (1,)}
    return NAT(NATOptions("NATMini", (1,), 32, 2, 0.2), **options)


def small_network(*_, input_shape, classes=2, **__):
    """Returns a linear model."""
    inputs = keras.Input(input_shape, name="images")
    outputs = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, keras.layers.Dense(classes)(outputs))


def few_images():
    """Returns what loads CIFAR-10, without a download."""
    images = np.zeros((2, 32, 32, 3), "uint8")
    labels = np.array([[3], [7]], "uint8")
    return (images, labels), (images, labels)


def small_resnet(weights, input_shape, classes):
    """Returns a network with the names of two layers of `ResNet50`."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(8, 3, strides=4, name="conv3_block1_2_conv"),
            keras.layers.Conv2D(
                16, 3, padding="same", name="conv4_block1_2_conv"
            ),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, "softmax"),
        ]
    )


def small_retinanet(backbone, **_):
    """Returns a detector of few layers, which compile faster."""
    return tiny_detector(backbone.input_shape[1])


def train_on_photos(folder):
    """Leaves what the commands of the guide to own images would."""
    keras.utils.save_img(folder / "new.jpg", np.zeros((60, 90, 3)))
    inputs = keras.Input((32, 32, 3))
    outputs = ImageRescaling(["cat", "dog"], image_size=32)(inputs)
    outputs = keras.layers.Flatten()(outputs)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(outputs))
    (folder / "runs/photos").mkdir(parents=True)
    model.save(folder / "runs/photos/best.keras")


def commands(page):
    """Returns the programs of this repository that a page calls."""
    text = "".join(blocks(page, "bash"))
    # Whatever a benchmark is said to have been run with stands in the text.
    text += "\n" + "\n".join(
        " ".join(code.split())
        for code in re.findall(r"`(python [^`]*)`", text_of(page))
    )
    text = text.replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word == "python" and not {"pytest"} & set(words[start:]):
                end = start + 1
                while end < len(words) and words[end] != "&&":
                    end += 1
                found.append(tuple(words[start + 1 : end]))
    return found


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


class Parsed(BaseException):
    """Raised where a program would begin its work, with its options."""


def parse(command, monkeypatch):
    """Runs a program up to its arguments and returns what they are.

    `None` if it has done all its work, as one for `--help`.
    """
    parse_args = argparse.ArgumentParser.parse_args

    def parse_only(parser, *args, **kwargs):
        raise Parsed(parse_args(parser, *args, **kwargs))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    # As `python FILE` does, for modules beside.
    monkeypatch.syspath_prepend(str((ROOT / command[0]).parent))
    if command[0] == "-m":
        name, *arguments = command[1:]
        run = functools.partial(runpy.run_module, name)
    else:
        name, *arguments = command
        run = functools.partial(runpy.run_path, str(ROOT / name))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        run(run_name="__main__")
    except Parsed as parsed:
        (options,) = parsed.args
        return options
    except SystemExit as end:
        assert "--help" in arguments and end.code == 0
    return None


# A module that was imported before is run once more.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_understood(command, monkeypatch):
    """Up to their arguments; test_examples.py runs the examples as a whole."""
    if parse(command, monkeypatch) is None and "--help" not in command:
        # The one that takes no arguments has done its work.
        assert command == ("-m", "keras_sasa.doctor")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("page", PAGES)
def test_trainings_of_a_page_do_not_collide(page, monkeypatch):
    """A reader types them in one folder, after those of the README."""
    trainings = {}
    for command in dict.fromkeys((*commands("README.md"), *commands(page))):
        if not command[0].startswith("examples/train_") or "--help" in command:
            continue
        options = parse(command, monkeypatch)
        # One machine has one of these.
        place = resolve_output(options), options.strategy
        resume, options.resume = options.resume, False
        if isinstance(resume, pathlib.Path):
            # The arguments are those of before.
            assert place in trainings, command
            continue
        if resume:
            # Another configuration would be refused.
            assert trainings.get(place, options) == options
        else:
            assert place not in trainings, command
        trainings[place] = options


PYTEST = sorted(
    {
        tuple(shlex.split(command))
        for page in PAGES
        for command in re.findall(
            r"`pytest ([^`]*)`", " ".join(text_of(page).split())
        )
    }
)


@pytest.mark.parametrize("arguments", PYTEST, ids=" ".join)
def test_tests_that_pages_name_exist(arguments):
    path, *options = arguments
    tests = re.findall(r"^def (test_\w+)", (ROOT / path).read_text(), re.M)
    if "-k" in options:
        selected = options[options.index("-k") + 1]
        assert any(selected in name for name in tests)
    assert tests


def test_commands_are_found():
    assert ("examples/train_classifier.py",) in COMMANDS
    assert any("benchmarks/three_claims.py" in words for words in COMMANDS)
    assert any("keras_sasa.profile" in words for words in COMMANDS)
    assert any("tests/kernels/test_kernel.py" in words for words in PYTEST)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not target.startswith(("http://", "https://", "#")):
            assert (folder / target.split("#")[0]).exists(), target
