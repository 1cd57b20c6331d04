"""Trains a RetinaNet with self-attention to find objects.

    python examples/train_detector.py                  # scenes of digits
    python examples/train_detector.py --data DIR       # a folder like COCO's
    python examples/train_detector.py --data DIR --pyramid attention
    python examples/train_detector.py --data DIR --spatial conv
    python examples/train_detector.py --data tfds:coco/2017 --recipe coco \\
        --network resnet50_attention --pyramid attention --filters 256
    python examples/train_detector.py --resume         # after a stop

Run `pip install --editable ".[examples,detection]"` first; results are in
examples/README.md. The first command downloads nothing: it makes scenes of 1 to
8 of scikit-learn's digits on noise. A folder contains two files
`annotations/instances_SPLIT.json`, whose splits begin with `train` and `val`,
and their images in folders `SPLIT`. The script writes the state after each
epoch, the model (`model.keras`; `best.keras` of the best epoch), a table
(`history.csv`), and pictures of the training curves, of detections, and of the
attention from one detection.

THE FULL TRAINING ON COCO HAS NOT BEEN RUN with this script.
"""

import json
import math

from keras_sasa import SelfAttention2D, command_line
from keras_sasa._optional_imports import optional_import
from keras_sasa.data import load_detection_data
from keras_sasa.data.detection.batches import letterboxed_batches
from keras_sasa.detection.feature_pyramid import LEVELS
from keras_sasa.training.detection import (
    BLOOD_CELLS,
    DIGIT_SCENES,
    RECIPES,
    detect,
    evaluate,
    fit,
)
from keras_sasa.visualize import (
    attention_maps,
    plot_attention,
    plot_detections,
    plot_history,
)

BACKBONE = {
    "num_blocks": (1, 1, 1, 1),
    "stem": "conv",
    "num_heads": 4,
    "width_multiplier": 0.25,
}
SHOWN = 8
SHOWN_SCORE = 0.4


def main(argv=None):
    parser = command_line.make_parser(
        __doc__,
        data="digit_scenes",
        network="a small one, with attention in all groups",
        recipe="digit_scenes or blood_cells",
        recipes=RECIPES,
        cases={
            "digit_scenes": (BACKBONE, DIGIT_SCENES),
            "folders and tfds:NAME": (BACKBONE, BLOOD_CELLS),
        },
    )
    add = parser.add_argument_group("detector").add_argument
    add(
        "--pyramid",
        choices=("conv", "attention"),
        default="conv",
        help="layers of pyramid and heads (default conv)",
    )
    add(
        "--filters",
        type=command_line.positive,
        default=64,
        help="width of pyramid and heads (default 64)",
    )
    options = command_line.parse_options(parser, argv)
    # Fail now if they are missing, not after training.
    optional_import("matplotlib")
    optional_import("pycocotools")
    recipe = command_line.resolve_recipe(
        options,
        DIGIT_SCENES if options.data == "digit_scenes" else BLOOD_CELLS,
        RECIPES,
    )
    network = {
        "backbone": command_line.resolve_network(options, BACKBONE),
        "spatial": options.pyramid,
        "filters": options.filters,
    }
    model, history, data, folder = command_line.train(
        options,
        network,
        recipe,
        load=lambda options: load_detection_data(options.data),
        fit=fit,
    )
    measured = evaluate(model, data, recipe)
    draw(model, history, data, recipe, folder)
    print(f"written to: {folder}")
    # The precision of sizes that do not occur is NaN, which JSON lacks.
    rounded = {
        name: None if math.isnan(value) else round(value, 4)
        for name, value in measured.items()
    }
    print(json.dumps(rounded))


def draw(model, history, data, recipe, folder):
    """Draws training curves, detections, and the attention from the best."""
    curves = {
        name: [row[name] for row in history]
        for name in ("loss", "val_loss", "val_AP", "val_AP50")
    }
    plot_history(curves, "validation with averaged weights").savefig(
        folder / "training.png", dpi=150
    )
    images = first_images(data, recipe, SHOWN)
    found = detect(model, images, recipe.image_size, SHOWN_SCORE)
    plot_detections(
        images,
        found,
        data.class_names,
        title=f"detections on validation images, scores from {SHOWN_SCORE}",
    ).savefig(folder / "detections.png", dpi=150)
    best = max(
        range(len(images)), key=lambda i: max(found[i]["scores"], default=0)
    )
    layer = shown_layer(model)
    if layer and len(found[best]["scores"]):
        attention_of(
            model, layer, images[best], found[best], data.class_names
        ).savefig(folder / "attention.png", dpi=150)


def first_images(data, recipe, number):
    """Returns validation images, letterboxed for the model."""
    images = []
    batches = letterboxed_batches(data, recipe.image_size, recipe.batch_size)
    for squares, _ in batches.as_numpy_iterator():
        images.extend(squares)
        if len(images) >= number:
            break
    return images[: min(number, data.num_validation)]


def shown_layer(model):
    """Returns the name of an attention layer with a fine enough map.

    It is the layer of the finest level of the pyramid, or else the last layer
    of the backbone before its last group; `None` if both are convolutions.
    """
    names = [
        layer.name
        for layer in model.layers
        if isinstance(layer, SelfAttention2D)
        and not layer.name.startswith("group4")
    ]
    if f"pyramid_{LEVELS[0].lower()}_attention" in names:
        return f"pyramid_{LEVELS[0].lower()}_attention"
    return names[-1] if names else None


def attention_of(model, layer, image, found, class_names):
    """Draws where a layer looks from the centre of the best box."""
    maps = attention_maps(model, image[None], layer)[layer]
    left, top, right, bottom = found["boxes"][0]
    centre = (top + bottom) / 2, (left + right) / 2
    # The centre of a box is never on the border of the image.
    row, column = (
        int(place * number / side)
        for place, number, side in zip(
            centre, maps.shape[1:3], image.shape, strict=False
        )
    )
    name, score = class_names[found["labels"][0]], found["scores"][0]
    return plot_attention(
        image[None],
        maps[:, row, column],
        [(row, column)],
        input_size=maps.shape[1:3],
        title=f"attention of {layer} at the centre of {name} ({score:.2f})",
    )


if __name__ == "__main__":
    command_line.run(main)
