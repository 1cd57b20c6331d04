"""Draws where a trained classifier looks, and what supports its predictions.

    python examples/look_inside.py runs/digits/model.keras
    python examples/look_inside.py runs/photos/best.keras IMAGE...
    python examples/look_inside.py runs/photos/best.keras --data DIR

Without images, the script uses some of the validation images. The file of the
model describes how to prepare them. Written to `--output` (default:
`look_inside` beside the model) are

- `evidence.png`: the places for and against the two likeliest classes,
- `attention_first.png` and `attention_last.png`: where the first and the last
  attention layer look from the place with the most evidence for the likeliest
  class (or from `--pixel`),
- `heads.png`: how far and how widely every head looks,
- `positions.png`: the places that every head prefers by its learned embeddings.
"""

import argparse
import pathlib

import numpy as np

from keras_sasa import (
    NeighborhoodAttention2D,
    SelfAttention2D,
    command_line,
)
from keras_sasa._optional_imports import optional_import
from keras_sasa._paths import local_path_option
from keras_sasa.data import evaluation_batches
from keras_sasa.training import load_trained, prepare_images
from keras_sasa.visualize import (
    attention_statistics,
    class_evidence,
    pixel_attention,
    plot_attention,
    plot_attention_statistics,
    plot_class_evidence,
    plot_position_logits,
    position_logits,
)

# Number of validation images for the statistics of heads, and in pictures.
SAMPLE = 32
SHOWN = 4
# The layers whose attention is drawn.
DRAWN = (SelfAttention2D, NeighborhoodAttention2D)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("model", type=pathlib.Path, help="a .keras file of a training run")
    add("images", type=pathlib.Path, nargs="*", metavar="IMAGE")
    add(
        "--data",
        default="digits",
        help="digits, a folder, or tfds:NAME (default digits)",
    )
    command_line.add_selection(parser)
    add(
        "--pixel",
        type=int,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="where the attention is drawn from (default: the strongest\n"
        "evidence for the likeliest class)",
    )
    add(
        "--output",
        type=local_path_option,
        help="folder (default: look_inside, beside the model)",
    )
    options = parser.parse_args(argv)
    optional_import("matplotlib")

    model, description = load_trained(options.model, "classifier")
    if options.images:
        images = prepare_images(options.images, description)
        shown = range(len(images))
    else:
        data = command_line.load_selected(options)
        command_line.check_fits(data, description)
        images, labels = validation_sample(data, description)
        shown = np.unique(labels, return_index=True)[1][:SHOWN]
    classes = description.class_names
    # Draw all pictures before the first is written.
    figures = dict(pictures(model, images, shown, classes, options.pixel))
    folder = options.output or options.model.with_name("look_inside")
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    if "attention_last" not in figures:
        print(
            f"{options.model} has no SelfAttention2D layer: "
            "no attention is drawn"
        )
    print(f"written to: {folder}")


def validation_sample(data, description):
    """Returns some validation images and their labels as arrays."""
    sample = data.validation.take(SAMPLE)
    number = int(sample.cardinality())
    ((images, labels, _),) = evaluation_batches(
        data, description, number, sample
    )
    return images.numpy(), labels.numpy().argmax(-1)


def pictures(model, images, shown, classes, pixel):
    """Yields names of pictures with their figures.

    There are fewer without attention or without relative positions.
    """
    evidence, figure = draw_evidence(model, images[shown], classes)
    yield "evidence", figure
    encodings = {
        layer.position_encoding
        for layer in model.layers
        if isinstance(layer, SelfAttention2D)
    }
    if not any(isinstance(layer, DRAWN) for layer in model.layers):
        return
    for place, figure in draw_attention(model, images[shown], evidence, pixel):
        yield f"attention_{place}", figure
    yield (
        "heads",
        plot_attention_statistics(
            attention_statistics(model, images),
            title=f"attention heads, mean over {len(images)} images",
        ),
    )
    if encodings != {"relative"}:
        return
    yield (
        "positions",
        plot_position_logits(
            position_logits(model, images),
            title="contribution of the relative positions to the logits",
        ),
    )


def draw_evidence(model, images, classes):
    """Returns the evidence for the two likeliest classes, and its figure."""
    scores = model.predict_on_batch(images)
    likeliest = np.argsort(-scores)[:, :2]
    evidence = class_evidence(model, images)
    evidence = np.take_along_axis(evidence, likeliest[:, None, None], axis=-1)
    captions = [
        [f"{classes[label]}: {score[label]:.1%}" for label in best]
        for best, score in zip(likeliest, scores, strict=True)
    ]
    return evidence, plot_class_evidence(
        images,
        evidence,
        captions,
        title="evidence for (red) and against (blue) the likeliest classes",
    )


def draw_attention(model, images, evidence, pixel=None):
    """Yields "first" and "last" with a figure of that layer's attention.

    It starts from `pixel`, or else from the place with the most evidence for
    the likeliest class. Networks without attention yield nothing.
    """
    if not any(isinstance(layer, DRAWN) for layer in model.layers):
        return
    pixels = pixel or most_evident(evidence[..., 0], images.shape[1:3])
    looks = list(pixel_attention(model, images, pixels).items())
    for place, (name, look) in (("first", looks[0]), ("last", looks[-1])):
        yield (
            place,
            plot_attention(
                images,
                look.weights,
                look.positions,
                look.input_size,
                look.dilation_rate,
                title=f"attention of the {place} layer, {name}",
                centers=look.centers,
            ),
        )


def most_evident(evidence, image_size):
    """Returns the pixel in the middle of each image's highest evidence."""
    batch, *size = evidence.shape
    best = evidence.reshape(batch, -1).argmax(axis=-1)
    places = np.stack(np.unravel_index(best, size), axis=-1)
    return ((places + 0.5) * image_size / size).astype(int)


if __name__ == "__main__":
    command_line.run(main)
