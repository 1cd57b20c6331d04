"""Fewer parameters? Faster? More accurate? Networks of one size on CIFAR-10.

    python benchmarks/three_claims.py --data DIR --runs DIR

trains every network of `NETWORKS` with every seed by the same recipe, on a
folder with `train` and `validation` (45,000 and 5,000 images). Each training
ends with a row in `benchmarks/results/three_claims_trainings.csv`; what has a
row is not trained again, and what `--runs` holds goes on, so that the command
can be stopped and called again (`--train-only` for several side by side). Then
one training step and one prediction of each network are timed in turns, with
nothing else running, and rows go to `benchmarks/results/three_claims.csv`, a
picture to `three_claims.png` beside.

All have a convolutional stem, which makes a map of a quarter of the sides; for
that the images are enlarged to 48 pixels. "hybrid" has convolution in the first
group and attention in the others. Where blocks halve the map, attention is
computed for every second query, as convolution is.
"""

import csv
import dataclasses
import pathlib
import re
import statistics

import common
import keras

from keras_sasa.profile import profile
from keras_sasa.training import (
    CIFAR10,
    build_model,
    fit,
    load_data,
    steps_per_epoch,
    training_batches,
)

BASE = {
    "num_blocks": (1, 2, 3),
    "stem": "conv",
    "num_heads": 4,
    "width_multiplier": 0.5,
    "downsampling": "stride",
}
HYBRID = {**BASE, "spatial": ("conv", "attention", "attention")}
ATTENTION = {**BASE, "spatial": "attention"}
# The claims first, then ablations of the paper, all of attention as there.
NETWORKS = {
    "convolution": {**BASE, "spatial": "conv"},
    "hybrid": HYBRID,
    "attention": ATTENTION,
    "hybrid, last group": {
        **BASE,
        "spatial": ("conv", "conv", "attention"),
    },
    "attention, no position": {**ATTENTION, "position_encoding": None},
    "attention, absolute position": {
        **ATTENTION,
        "position_encoding": "absolute",
    },
    "attention, k = 3": {**ATTENTION, "kernel_size": 3},
    "attention, k = 11": {**ATTENTION, "kernel_size": 11},
}
IMAGES_PER_PREDICTION = 1000
TRAININGS = pathlib.Path(__file__).parent / "results/three_claims_trainings.csv"


def trained(name, seed, epochs):
    """Accuracy of a training that has a row in `TRAININGS`, or None."""
    if not TRAININGS.exists():
        return None
    with open(TRAININGS, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["network"], int(row["seed"]), int(row["epochs"])
            if key == (name, seed, epochs):
                return float(row["accuracy"])
    return None


def accuracies(name, data, recipe, options):
    """Best validation accuracy of each seed; trains what is missing."""
    best = []
    for seed in options.seeds:
        known = trained(name, seed, recipe.epochs)
        if known is not None:
            best.append(known)
            continue
        folder = options.runs / "-".join(re.findall(r"\w+", f"{name} {seed}"))
        _, history = fit(
            NETWORKS[name],
            data,
            recipe,
            folder,
            seed=seed,
            resume=True,
            verbose=2,
        )
        best.append(round(100 * max(row["val_accuracy"] for row in history), 2))
        row = {
            "network": name,
            "seed": seed,
            "epochs": recipe.epochs,
            "accuracy": best[-1],
            **common.machine(folders=[options.data, options.runs]),
        }
        common.append_row(TRAININGS, row)
        print(f"{name}, seed {seed}: {best[-1]:.2f} %", flush=True)
        keras.backend.clear_session()
    return best


def seconds(names, data, recipe, repeats):
    """Seconds of one epoch, and of 1,000 predictions, timed in turns."""
    images, labels = next(iter(training_batches(data, recipe)))
    models = {name: build_model(NETWORKS[name], data, recipe) for name in names}

    def medians(call):
        return common.interleaved_medians(
            {name: call(model) for name, model in models.items()}, repeats
        )

    training = medians(
        lambda model: lambda: model.train_on_batch(images, labels)
    )
    prediction = medians(lambda model: lambda: model.predict_on_batch(images))
    steps = steps_per_epoch(data, recipe)
    batches = IMAGES_PER_PREDICTION / recipe.batch_size
    return {
        name: (steps * training[name], batches * prediction[name])
        for name in names
    }


def draw(rows, path):
    """Bars of what is measured; a line goes on from the first network's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.5 * len(rows) + 1.6), layout="constrained")
    axes = figure.subplots(1, 4, sharey=True)
    titles = (
        ("parameters", "trained parameters"),
        ("flops", "FLOPs"),
        ("seconds_per_epoch", "seconds an epoch"),
        ("accuracy_mean", "validation accuracy, %"),
    )
    names = [row["network"] for row in rows]
    for axis, (key, title) in zip(axes, titles, strict=True):
        values = [row[key] for row in rows]
        errors = None
        if key == "accuracy_mean":
            errors = [row["accuracy_spread"] / 2 for row in rows]
            axis.set_xlim(min(values) - 3, max(values) + 1)
        axis.barh(names, values, xerr=errors, color="tab:blue")
        axis.axvline(values[0], color="black", linewidth=0.8)
        axis.set_title(title, fontsize=10)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=150)


def main():
    parser = common.make_parser(__doc__, "three_claims.csv", 10)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS)
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    data = load_data(options.data)
    recipe = dataclasses.replace(CIFAR10, epochs=options.epochs, image_size=48)
    best = {
        name: accuracies(name, data, recipe, options)
        for name in options.networks
    }
    if options.train_only:
        return
    timed = seconds(options.networks, data, recipe, options.repeats)
    machine = common.machine(folders=[options.data, options.runs])
    rows = []
    for name in options.networks:
        counted = profile(build_model(NETWORKS[name], data, recipe))
        epoch, predictions = timed[name]
        rows.append(
            {
                "network": name,
                "parameters": counted.trainable_parameters,
                "flops": counted.flops,
                "seconds_per_epoch": round(epoch, 1),
                "seconds_per_1000_predictions": round(predictions, 3),
                "accuracy_mean": round(statistics.mean(best[name]), 2),
                "accuracy_spread": round(max(best[name]) - min(best[name]), 2),
                "seeds": len(options.seeds),
                "epochs": options.epochs,
                **machine,
            }
        )
    common.write_rows(options.csv, rows)
    draw(rows, options.csv.with_suffix(".png"))
    for row in rows:
        print(*list(row.values())[:7], sep="\t")


if __name__ == "__main__":
    main()
