"""Finds objects in images with a detector of `train_detector.py`.

    python examples/detect.py runs/digit_scenes/model.keras IMAGE...
    python examples/detect.py runs/bccd/best.keras IMAGE... --score 0.3

The file of the model may be anywhere: it names its classes. Images may have any
size. The script writes to `--output` (default `detections`) a picture with
boxes for each image, `NAME.png`, and `detections.json`: for each image a list
of `class`, `score` and `box` (left, top, right, bottom, in pixels of the
image).
"""

import json

import numpy as np

from keras_sasa import command_line
from keras_sasa._optional_imports import optional_import
from keras_sasa.data import read_image
from keras_sasa.training import load_trained
from keras_sasa.training.detection import detect
from keras_sasa.visualize import plot_detections


def main(argv=None):
    parser = command_line.make_image_parser(__doc__, output="detections")
    parser.add_argument(
        "--score",
        type=command_line.fraction,
        default=0.4,
        help="lowest score to report (default 0.4)",
    )
    options = parser.parse_args(argv)
    optional_import("matplotlib")
    command_line.check_distinct_names(options.images)

    model, description = load_trained(options.model, "detector")
    class_names = description.class_names
    options.output.mkdir(parents=True, exist_ok=True)
    written = {}
    # One at a time, so that any number of photos fits into memory.
    for path in options.images:
        image = read_image(path, description.channels)
        (found,) = detect(model, [image], description.image_size, options.score)
        written[str(path)] = [
            {
                "class": class_names[label],
                "score": round(float(score), 4),
                "box": np.round(box, 1).tolist(),
            }
            for box, score, label in zip(
                found["boxes"], found["scores"], found["labels"], strict=True
            )
        ]
        picture = options.output / f"{path.stem}.png"
        plot_detections([image], [found], class_names).savefig(picture, dpi=200)
        print(f"{path}: {len(written[str(path)])} objects, {picture}")
    path = options.output / "detections.json"
    path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    command_line.run(main)
