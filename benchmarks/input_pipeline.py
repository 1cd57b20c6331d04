"""Images per second of the input pipeline alone, and beside a training.

    python benchmarks/input_pipeline.py --data DIR

For a folder of images. The first rows are the pipeline alone: `shift` (images
stay decoded in memory) and `resized_crop` with and without RandAugment (JPEG
files are read and cut in every epoch) at the size of the recipe. The last are
training steps of one network with one batch again and again, fed by the
pipeline, and with one batch once more: if all take the same time, training does
not wait. Rows go to `benchmarks/results/input_pipeline.csv`.
"""

import dataclasses
import statistics
import time

import common

from keras_sasa.applications import CONFIGURATIONS
from keras_sasa.data import load_data, training_batches
from keras_sasa.training import CIFAR10, build_model

# More than are measured.
EPOCHS = 1_000_000
PIPELINES = {
    "shift": {},
    "resized_crop": {"augmentation": "resized_crop"},
    "resized_crop, RandAugment": {
        "augmentation": "resized_crop",
        "rand_augment_factor": 0.5,
    },
}


def images_per_second(data, recipe, seconds):
    """Rate of the pipeline alone.

    The first epoch, which fills the memory, is not measured; nor are a few
    batches where nothing is kept.
    """
    batches = iter(training_batches(data, recipe))
    warm = 8
    if recipe.augmentation == "shift":
        warm = data.num_train // recipe.batch_size
    for _ in range(warm):
        next(batches)
    start = time.perf_counter()
    number = 0
    while time.perf_counter() - start < seconds:
        next(batches)
        number += recipe.batch_size
    return number / (time.perf_counter() - start)


def training_rates(data, recipe, network, repeats):
    """Images per second of steps fed by the pipeline, and by one batch.

    Not step by step in turns: the pipeline would fill its buffer in the steps
    that do not need it.
    """
    model = build_model(network, data, recipe)
    constant = next(iter(training_batches(data, recipe)))

    def rate(next_batch):
        times = common.interleaved_samples(
            {"step": lambda: model.train_on_batch(*next_batch())}, repeats
        )["step"]
        return recipe.batch_size / statistics.median(times)

    def fed():
        batches = iter(training_batches(data, recipe))
        for _ in range(data.num_train // recipe.batch_size):
            next(batches)
        return rate(lambda: next(batches))

    return {
        "training, one batch": rate(lambda: constant),
        "training, pipeline": fed(),
        "training, one batch again": rate(lambda: constant),
    }


def main():
    parser = common.make_parser(__doc__, "input_pipeline.csv", 20)
    parser.add_argument("--data", required=True)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--network", default="cifar10_hybrid")
    options = parser.parse_args()
    data = load_data(options.data)
    recipe = dataclasses.replace(
        CIFAR10, epochs=EPOCHS, image_size=options.image_size
    )
    rates = {}
    for name, changes in PIPELINES.items():
        changed = dataclasses.replace(recipe, **changes)
        rates[name] = images_per_second(data, changed, options.seconds)
        print(f"{name:28} {rates[name]:10.0f} images/s", flush=True)
    network = CONFIGURATIONS[options.network]
    measured = training_rates(data, recipe, network, options.repeats)
    for name, rate in measured.items():
        print(f"{name:28} {rate:10.0f} images/s", flush=True)
    machine = common.machine(folders=[options.data])
    common.write_rows(
        options.csv,
        [
            {
                "what": name,
                "images_per_second": round(rate),
                "images": data.num_train,
                "image_size": options.image_size,
                "network": options.network if "training" in name else "",
                **machine,
            }
            for name, rate in {**rates, **measured}.items()
        ],
    )


if __name__ == "__main__":
    main()
