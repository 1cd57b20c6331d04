"""A folder in COCO's format, of rectangles on gray."""

import json

import numpy as np
import tensorflow as tf

NAMES = ("red", "green", "blue")


def coco_folder(folder, images=(4, 3), change=lambda content: None):
    """Writes two splits of images of different sizes, with a box or two each.

    The first image of each split has no box. A rectangle has full brightness
    in the channel of its category, whose numbers are 10, 20 and 30.

    Args:
        folder: Path, made here.
        images: Numbers of images to train and to validate.
        change: Called with the content of each JSON file before it is written.

    Returns:
        `folder`.
    """
    random = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    for split, number in zip(("train", "val"), images, strict=True):
        (folder / split).mkdir()
        content = {
            "images": [],
            "annotations": [],
            "categories": [
                {"id": 10 * label, "name": name}
                for label, name in enumerate(NAMES, start=1)
            ],
        }
        for index in range(number):
            height, width = 48 + 8 * index, 80 - 8 * index
            pixels = np.full((height, width, 3), 40, "uint8")
            for box in range(min(index, 2)):
                x, y = (int(n) for n in random.integers(0, 16, 2) + 20 * box)
                sides = [int(n) for n in random.integers(12, 18, 2)]
                label = (index + box) % 3
                part = pixels[y : y + sides[1], x : x + sides[0]]
                part[..., label] = 255
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": 100 + index,
                        "category_id": 10 * (label + 1),
                        "bbox": [x, y, *sides],
                        "area": sides[0] * sides[1],
                        "iscrowd": 0,
                    }
                )
            name = f"{index}.png"
            content["images"].append(
                {
                    "id": 100 + index,
                    "file_name": name,
                    "height": height,
                    "width": width,
                }
            )
            path = folder / split / name
            path.write_bytes(tf.io.encode_png(pixels).numpy())
        change(content)
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content))
    return folder
