"""Trains a RetinaNet with self-attention to find objects.

    python examples/train_detector.py                  # scenes of digits
    python examples/train_detector.py --data DIR       # a folder like COCO's
    python examples/train_detector.py --data DIR --spatial conv --pyramid conv
    python examples/train_detector.py --data tfds:coco/2017 --recipe coco \\
        --network resnet50_attention --filters 256
    python examples/train_detector.py --resume         # after a stop

Needs `pip install "keras_sasa[examples,detection]"`; results are in
examples/README.md. The first command downloads nothing: it makes scenes of 1 to
8 of scikit-learn's digits on noise. A folder holds two files
`annotations/instances_SPLIT.json`, whose splits begin with `train` and `val`,
and their images in folders `SPLIT`. Written are the state after each epoch, the
model (`model.keras`; `best.keras` of the best epoch), a table (`history.csv`),
and pictures of the training, of detections, and of the attention for one.

THE FULL TRAINING ON COCO HAS NOT BEEN RUN with this script.
"""

import json
import math

from keras_sasa.detection.batches import letterboxed_batches
from keras_sasa.detection.data import load_data
from keras_sasa.detection.evaluation import detect, evaluate
from keras_sasa.detection.feature_pyramid import LEVELS, STRIDES
from keras_sasa.detection.fit import fit
from keras_sasa.detection.recipes import BLOOD_CELLS, COCO, DIGIT_SCENES
from keras_sasa.optional import needs
from keras_sasa.training import command
from keras_sasa.visualize import (
    attention_maps,
    plot_attention,
    plot_detections,
    plot_history,
)

RECIPES = {
    "coco": COCO,
    "blood_cells": BLOOD_CELLS,
    "digit_scenes": DIGIT_SCENES,
}
BACKBONE = {
    "num_blocks": (1, 1, 1, 1),
    "stem": "conv",
    "num_heads": 4,
    "width_multiplier": 0.25,
}
SHOWN = 8
SHOWN_SCORE = 0.4


def main(argv=None):
    parser = command.make_parser(
        __doc__,
        data="digits",
        network="a small one, all of attention but the stem",
        recipe="digit_scenes or blood_cells",
        recipes=RECIPES,
    )
    add = parser.add_argument_group("detector").add_argument
    add(
        "--pyramid",
        choices=("conv", "attention"),
        default="attention",
        help="what pyramid and heads are made of (default attention)",
    )
    add(
        "--filters",
        type=command.positive,
        default=64,
        help="width of pyramid and heads (default 64)",
    )
    options = parser.parse_args(argv)
    # Found missing now, not when there is something to draw or to measure.
    needs("matplotlib")
    needs("pycocotools", extra="detection")
    recipe = command.recipe_of(
        options,
        DIGIT_SCENES if options.data == "digits" else BLOOD_CELLS,
        RECIPES,
    )
    network = {
        "backbone": command.network_of(options, BACKBONE),
        "spatial": options.pyramid,
        "filters": options.filters,
    }
    model, history, data, folder = command.train(
        options,
        network,
        recipe,
        load=lambda options: load_data(options.data),
        fit=fit,
    )
    measured = evaluate(model, data, recipe)
    draw(model, history, data, recipe, folder)
    print(f"written to: {folder}")
    print(json.dumps({name: round(v, 4) for name, v in measured.items()}))


def draw(model, history, data, recipe, folder):
    """Writes the training, detections, and the attention for the best."""
    curves = {
        name: [row[name] for row in history]
        for name in ("loss", "val_loss", "val_AP", "val_AP50")
    }
    # Measured on images held out only, so that there is no pair of curves.
    curves["AP"] = curves.pop("val_AP")
    curves["AP50"] = curves.pop("val_AP50")
    plot_history(curves).savefig(folder / "training.png", dpi=150)
    images = first_images(data, recipe, SHOWN)
    found = [shown(each) for each in detect(model, images, recipe.image_size)]
    plot_detections(
        images,
        found,
        data.class_names,
        title=f"detections on images held out, scores from {SHOWN_SCORE}",
    ).savefig(folder / "detections.png", dpi=150)
    best = max(
        range(len(images)), key=lambda i: max(found[i]["scores"], default=0)
    )
    if model.spatial == "attention" and len(found[best]["scores"]):
        attention_of(
            model, images[best], found[best], data.class_names
        ).savefig(folder / "attention.png", dpi=150)


def first_images(data, recipe, number):
    """Returns images held out, letterboxed as the model takes them."""
    images = []
    for squares, _ in letterboxed_batches(data, recipe).as_numpy_iterator():
        images.extend(squares)
        if len(images) >= number:
            break
    return images[: min(number, data.num_validation)]


def shown(found):
    """Leaves out what has a low score."""
    kept = found["scores"] >= SHOWN_SCORE
    return {name: values[kept] for name, values in found.items()}


def attention_of(model, image, found, class_names):
    """Draws where the pyramid looks from the centre of the best box."""
    left, top, right, bottom = found["boxes"][0]
    # The level whose anchors, of four to six strides, are of that size.
    side = math.sqrt((right - left) * (bottom - top))
    level = max(
        (name for name in LEVELS if 4 * STRIDES[name] <= side),
        key=STRIDES.get,
        default=LEVELS[0],
    )
    stride = STRIDES[level]
    layer = f"pyramid_{level.lower()}_attention"
    maps = attention_maps(model, image[None], layer)[layer]
    row = min(int((top + bottom) / 2 / stride), maps.shape[1] - 1)
    column = min(int((left + right) / 2 / stride), maps.shape[2] - 1)
    name, score = class_names[found["labels"][0]], found["scores"][0]
    return plot_attention(
        image[None],
        maps[:, row, column],
        [(row, column)],
        input_size=maps.shape[1:3],
        title=f"attention of {layer} at the centre of {name} ({score:.2f})",
    )


if __name__ == "__main__":
    command.run(main)
