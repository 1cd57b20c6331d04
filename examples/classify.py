"""Classifies photos, and draws where the network looks.

    python examples/classify.py runs/photos/best.keras IMAGE...
    python examples/classify.py --network NATMini IMAGE...

`train_classifier.py` trains the model. Its file may be anywhere: it describes
how to prepare photos and names its classes. A published network knows the
classes of ImageNet. The script prints the likeliest classes of each photo with
their probabilities, and writes to `--output` (default `classified`):

- `evidence/NAME.png`: the places for (red) and against (blue) the two likeliest
  classes,
- `attention/NAME.png`: where the last attention layer looks from the place with
  the most evidence for the likeliest class; not for purely convolutional
  networks.
"""

import warnings

import keras
import numpy as np
from finetune import pretrained_network
from look_inside import draw_attention, draw_evidence

from keras_sasa import command_line
from keras_sasa._optional_imports import optional_import
from keras_sasa.applications import decode_predictions
from keras_sasa.applications.model_table import pretrained_image_sizes
from keras_sasa.layers import ImageRescaling
from keras_sasa.training import IMAGENET, load_trained, prepare_images

# Number of classes to print, and of photos in memory at a time.
SHOWN = 5
BATCH = 32


def main(argv=None):
    sizes = pretrained_image_sizes()
    parser = command_line.make_image_parser(
        __doc__, output="classified", networks=sorted(sizes)
    )
    options = parser.parse_args(argv)
    if options.network:
        options.images.insert(0, options.model)
    elif not options.images:
        parser.error("the following arguments are required: IMAGE")
    optional_import("matplotlib")
    command_line.check_distinct_names(options.images)

    if options.network:
        model, description = load_published(
            options.network, options.weights, sizes[options.network]
        )
    else:
        model, description = load_trained(options.model, "classifier")
    classes = description.class_names
    for start in range(0, len(options.images), BATCH):
        paths = options.images[start : start + BATCH]
        images = prepare_images(paths, description)
        for path, image, scores in zip(
            paths, images, probabilities(model, images), strict=True
        ):
            print(path)
            for label in np.argsort(-scores)[:SHOWN]:
                print(f"  {scores[label]:6.1%}  {classes[label]}")
            draw(model, image[None], classes, path.stem, options.output)
    print(f"written to: {options.output}")


def load_published(network, weights, image_size):
    """Returns what `load_trained` returns, for a network by its name."""
    inputs = keras.Input((image_size, image_size, 3), name="images")
    description = ImageRescaling(
        imagenet_classes(), image_size, resizing=IMAGENET.resizing, name="scale"
    )
    model = pretrained_network(
        network,
        weights,
        description(inputs),
        classes=len(description.class_names),
    )
    return model, description


def imagenet_classes():
    """Returns the names of the classes, or numbers if they are missing."""
    number = 1000
    try:
        best = decode_predictions(np.eye(number), top=1)
    except Exception as error:
        # Keras raises a plain `Exception` without a network.
        warnings.warn(
            "The names of ImageNet's classes cannot be downloaded, so that "
            f"their numbers are shown: {error}",
            stacklevel=2,
        )
        return [f"class {label}" for label in range(number)]
    return [name for ((_, name, _),) in best]


def probabilities(model, images):
    """Returns the probability of each class for each image."""
    scores = np.asarray(model.predict_on_batch(images), "float32")
    # Half precision rounds them.
    sums = scores.sum(axis=-1)
    # NaN fails every comparison, so this checks for valid values.
    if not (scores.min() >= 0 and np.abs(sums - 1).max() <= 0.01):
        raise ValueError(
            "The outputs of the model must be probabilities. Received, for the "
            f"first image: {scores[0].tolist()}."
        )
    return scores


def draw(model, image, classes, name, folder):
    """Writes the pictures of a batch of one image."""
    evidence, figure = draw_evidence(model, image, classes)
    figures = {"evidence": figure}
    for place, figure in draw_attention(model, image, evidence):
        if place == "last":
            figures["attention"] = figure
    for kind, figure in figures.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / kind / f"{name}.png", dpi=150)


if __name__ == "__main__":
    command_line.run(main)
