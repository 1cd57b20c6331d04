"""Trains a small ResNet with self-attention to classify images.

    python examples/train_classifier.py                     # digits, 1 minute
    python examples/train_classifier.py --data DIR          # a folder of images
    python examples/train_classifier.py --data tfds:cifar10
    python examples/train_classifier.py --resume runs/digits  # after a stop

Run `pip install --editable ".[examples]"` first; results are in
examples/README.md. The first command downloads nothing: scikit-learn contains
the 1,797 digits. A folder has a folder of images for each class, either
directly (a fifth of each class is then used for validation) or in `train` and
`validation` (or `val`, or `test`). Image size, batch size and epochs follow
from the size and the number of the images. The script writes the state after
each epoch, the model (`model.keras`; `best.keras` of the best epoch), logs for
TensorBoard, a table (`history.csv`), and pictures of the training curves and of
the attention. Then a new process evaluates the model and must find the same
accuracy.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np

from keras_sasa import SelfAttention2D, command_line
from keras_sasa._optional_imports import optional_import
from keras_sasa.applications import CONFIGURATIONS
from keras_sasa.data import evaluation_batches, typical_side
from keras_sasa.training import DIGITS, recipe_for
from keras_sasa.visualize import attention_maps, plot_attention, plot_history

EVALUATE = pathlib.Path(__file__).parent / "evaluate.py"


def main(argv=None):
    parser = command_line.make_parser(
        __doc__,
        data="digits",
        network="depends on the size of the images",
        recipe="depends on the number and the size of the images",
        cases={
            "digits": preset_of(DIGITS),
            "100 photos of 640x480": preset_of(recipe_for(100, 480)),
            "45,000 images of 32x32": preset_of(recipe_for(45_000, 32)),
        },
    )
    command_line.add_selection(parser)
    options = command_line.parse_options(parser, argv)
    # Fail now if it is missing, not after training.
    optional_import("matplotlib")
    data = command_line.load_selected(options)
    if options.data == "digits":
        recipe = DIGITS
    else:
        recipe = recipe_for(data.num_train, typical_side(data))
    recipe = command_line.resolve_recipe(options, recipe)
    network = command_line.resolve_network(
        options, network_for(recipe.image_size)
    )
    model, history, data, folder = command_line.train(
        options, network, recipe, load=lambda _: data
    )
    if model is None:
        return

    batches = evaluation_batches(data, recipe, recipe.batch_size)
    accuracy = model.evaluate(batches, verbose=0, return_dict=True)["accuracy"]
    draw(model, history, batches, folder)
    reloaded = evaluate_in_new_process(folder / "model.keras", options)
    print(f"written to: {folder}")
    print(f"validation accuracy: {accuracy:.6f}")
    print(f"validation accuracy, reloaded in a new process: {reloaded:.6f}")
    # Both are float32 sums, so only differences of whole images count.
    if abs(accuracy - reloaded) * data.num_validation > 0.5:
        raise SystemExit("The reloaded model is not as accurate.")


def preset_of(recipe):
    """Returns the network and the recipe, for the help."""
    return network_for(recipe.image_size), recipe


def network_for(image_size):
    """Returns arguments of `ResNet` that suit the size of the images."""
    if image_size < 16:
        # A window of 7 would cover most of an 8x8 digit.
        return CONFIGURATIONS["digits_attention"]
    # The other stems take too long for photos on a CPU.
    stem = "small" if image_size < 64 else "conv"
    return {**CONFIGURATIONS["cifar10_hybrid"], "stem": stem}


def draw(model, history, batches, folder):
    """Draws the training curves, and the attention of the outer layers."""
    curves = {
        name: [row[name] for row in history]
        for name in history[0]
        if name != "epoch"
    }
    plot_history(curves, "validation with averaged weights").savefig(
        folder / "training.png", dpi=150
    )
    images = one_of_each_class(batches, number=4)
    names = [
        layer.name
        for layer in model.layers
        if isinstance(layer, SelfAttention2D)
    ]
    if not names:
        return
    for place, name in (("first", names[:1]), ("last", names[-1:])):
        for layer, maps in attention_maps(model, images, name).items():
            row, column = maps.shape[1] // 2, maps.shape[2] // 2
            plot_attention(
                images,
                maps[:, row, column],
                [(row, column)] * len(images),
                input_size=maps.shape[1:3],
                title=f"attention of the {place} layer, {layer}",
            ).savefig(folder / f"attention_{place}.png", dpi=150)


def one_of_each_class(batches, number):
    found = {}
    for images, labels, _ in batches.as_numpy_iterator():
        for image, label in zip(images, labels.argmax(-1), strict=True):
            found.setdefault(int(label), image)
        if len(found) >= number:
            break
    return np.stack(list(found.values())[:number])


def evaluate_in_new_process(model_path, options):
    # It would repeat the warnings of this process about the data.
    command_line = [sys.executable, "-W", "ignore"]
    command_line += [str(EVALUATE), str(model_path)]
    command_line += ["--data", options.data]
    if options.validation_split:
        command_line += ["--validation-split", str(options.validation_split)]
    if options.skip_corrupt:
        command_line += ["--skip-corrupt"]
    result = subprocess.run(command_line, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(f"The new process failed: {' '.join(command_line)}")
    return json.loads(result.stdout.splitlines()[-1])["accuracy"]


if __name__ == "__main__":
    command_line.run(main)
