"""Adapts a pretrained network to the classes of a folder of images.

    python examples/finetune.py --data photos --network NATMini

First the classifier alone is trained, then all weights, with a small learning
rate, as in the guides of Keras. The network that was best on the validation
images is saved as `best.keras` in `--output` (default
`runs/DATA_finetune_NETWORK`), the last one as `model.keras`. Both files
describe their images, so `classify.py` and `evaluate.py` take them.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np

from keras_sasa import applications, command_line
from keras_sasa.applications.model_table import pretrained_image_sizes
from keras_sasa.data import (
    evaluation_batches,
    load_data,
    steps_per_epoch,
    training_batches,
)
from keras_sasa.data.model_inputs import rescaled_inputs
from keras_sasa.training import IMAGENET

MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])


def main(argv=None):
    sizes = pretrained_image_sizes()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, help="a folder, or tfds:NAME (no default)")
    add(
        "--network",
        choices=sorted(sizes),
        default="NATMini",
        metavar="NAME",
        help=f"one of {', '.join(sorted(sizes))}\n(default NATMini)",
    )
    add(
        "--weights",
        default="imagenet",
        help="imagenet, or the path of a file of weights (default imagenet)",
    )
    for name, default, text in (
        ("batch-size", 32, "images of a step"),
        ("head-epochs", 3, "epochs of the classifier alone"),
        ("epochs", 5, "epochs of all weights"),
    ):
        add(
            f"--{name}",
            type=command_line.positive,
            default=default,
            help=f"{text} (default {default})",
        )
    add(
        "--image-size",
        type=command_line.positive,
        help="side of the images in pixels (default: that of the network)",
    )
    add(
        "--learning-rate",
        type=float,
        default=3e-5,
        help="of all weights; the classifier alone has 30 times as much\n"
        "(default 3e-5)",
    )
    add("--output", type=pathlib.Path, help="default as above")
    options = parser.parse_args(argv)

    data = load_data(options.data)
    output = options.output or pathlib.Path(
        "runs",
        f"{pathlib.Path(options.data).resolve().name}_finetune_"
        f"{options.network}",
    )
    recipe = dataclasses.replace(
        IMAGENET,
        epochs=options.head_epochs + options.epochs,
        warmup_epochs=0,
        rand_augment_factor=0,
        batch_size=min(options.batch_size, data.num_train),
        image_size=options.image_size or sizes[options.network],
    )
    model = pretrained_network(
        options.network,
        options.weights,
        rescaled_inputs(data, recipe.image_size, recipe.resizing),
        data.num_classes,
    )
    steps = steps_per_epoch(data, recipe.batch_size)
    validation = evaluation_batches(data, recipe, recipe.batch_size)
    output.mkdir(parents=True, exist_ok=True)
    best = keras.callbacks.ModelCheckpoint(
        output / "best.keras", monitor="val_accuracy", save_best_only=True
    )
    done = 0
    for trainable, epochs, rate in (
        (False, options.head_epochs, 30 * options.learning_rate),
        (True, options.epochs, options.learning_rate),
    ):
        for layer in model.layers[:-1]:
            layer.trainable = trainable
        model.compile(
            keras.optimizers.AdamW(rate),
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
            weighted_metrics=["accuracy"],
        )
        model.fit(
            training_batches(data, recipe, initial_epoch=done),
            steps_per_epoch=steps,
            initial_epoch=done,
            epochs=done + epochs,
            validation_data=validation,
            shuffle=False,  # The batches are shuffled.
            callbacks=[best],
        )
        done += epochs
    model.save(output / "model.keras")
    print(f"written: {output / 'best.keras'} and the last, model.keras")
    print(f"best validation accuracy: {best.best:.4f}")


def pretrained_network(network, weights, images, classes):
    """Returns a network behind a Keras tensor of images from -1 to 1."""
    # To the mean and the deviation of ImageNet.
    x = keras.layers.Normalization(
        mean=2 * MEAN - 1, variance=(2 * DEVIATION) ** 2, name="imagenet"
    )(images)
    return getattr(applications, network)(
        weights=weights, input_tensor=x, classes=classes
    )


if __name__ == "__main__":
    command_line.run(main)
