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

All have a convolutional stem, which makes a map of a quarter of the sides.
"hybrid" has convolution in the first group and attention in the others, as the
paper has it at its best. `GROUPS` has networks to be compared with each other:
three groups on images that are enlarged to 48 pixels, in which attention of 4
heads is computed for every second query where blocks halve the map; two groups
on images as they are, with attention as in the paper, of 8 heads and a pool, or
of `q . r` alone for every second query; and two of the paper's ablations on a
single block.
"""

import csv
import dataclasses
import pathlib
import re
import statistics

import common
import keras

from keras_sasa.data import load_data, steps_per_epoch, training_batches
from keras_sasa.profile import profile
from keras_sasa.training import CIFAR10, build_model, fit

COMMON = {"stem": "conv", "num_heads": 4, "downsampling": "stride"}
THREE = {**COMMON, "num_blocks": (1, 2, 3), "width_multiplier": 0.5}
TWO = {**COMMON, "num_blocks": (2, 1), "width_multiplier": 1}
PAPER = {"num_heads": 8, "downsampling": "pool"}
ONE = {
    **COMMON,
    "num_blocks": (1,),
    "width_multiplier": 1,
    "spatial": "attention",
}
# The image size, and networks of which the first is what the others are
# compared with.
GROUPS = {
    "three groups": (
        48,
        {
            "convolution": {**THREE, "spatial": "conv"},
            "hybrid": {
                **THREE,
                "spatial": ("conv", "attention", "attention"),
            },
            "hybrid, last group": {
                **THREE,
                "spatial": ("conv", "conv", "attention"),
            },
            "attention": {**THREE, "spatial": "attention"},
        },
    ),
    "two groups": (
        32,
        {
            "convolution, two groups": {**TWO, "spatial": "conv"},
            "hybrid, two groups": {
                **TWO,
                **PAPER,
                "spatial": ("conv", "attention"),
            },
            "hybrid, two groups, q.r": {
                **TWO,
                "num_heads": 8,
                "use_content": False,
                "spatial": ("conv", "attention"),
            },
        },
    ),
    "one block": (
        32,
        {
            "relative, k = 7": ONE,
            "no position": {**ONE, "position_encoding": None},
            "absolute position": {**ONE, "position_encoding": "absolute"},
            "k = 3": {**ONE, "kernel_size": 3},
            "k = 11": {**ONE, "kernel_size": 11},
        },
    ),
}
NETWORKS = {
    name: (network, image_size)
    for image_size, networks in GROUPS.values()
    for name, network in networks.items()
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


def recipe_of(name, options):
    _, image_size = NETWORKS[name]
    return dataclasses.replace(
        CIFAR10, epochs=options.epochs, image_size=image_size
    )


def accuracies(name, data, options):
    """Best validation accuracy of each seed; trains what is missing."""
    network, _ = NETWORKS[name]
    recipe = recipe_of(name, options)
    best = []
    for seed in options.seeds:
        known = trained(name, seed, recipe.epochs)
        if known is not None:
            best.append(known)
            continue
        folder = options.runs / "-".join(re.findall(r"\w+", f"{name} {seed}"))
        _, history = fit(
            network,
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


def seconds(models, data, options):
    """Seconds of one epoch, and of 1,000 predictions, timed in turns."""
    batches = {
        name: next(iter(training_batches(data, recipe_of(name, options))))
        for name in models
    }

    def medians(call):
        return common.interleaved_medians(
            {
                name: call(model, *batches[name])
                for name, model in models.items()
            },
            options.repeats,
        )

    training = medians(
        lambda model, images, labels: (
            lambda: model.train_on_batch(images, labels)
        )
    )
    prediction = medians(
        lambda model, images, labels: lambda: model.predict_on_batch(images)
    )
    steps = steps_per_epoch(data, CIFAR10.batch_size)
    calls = IMAGES_PER_PREDICTION / CIFAR10.batch_size
    return {
        name: (steps * training[name], calls * prediction[name])
        for name in models
    }


def draw(rows, path):
    """Draws what is measured; a line goes on from each group's first.

    Bars begin at zero. Accuracies are dots, with a line over all seeds.
    """
    from matplotlib.figure import Figure

    by_name = {row["network"]: row for row in rows}
    groups = {
        f"{title}, {image_size} px": [
            by_name[name] for name in networks if name in by_name
        ]
        for title, (image_size, networks) in GROUPS.items()
    }
    groups = {title: rows for title, rows in groups.items() if rows}
    columns = (
        ("parameters", "trained parameters, 1,000", 1e3),
        ("flops", "million FLOPs", 1e6),
        ("seconds_per_epoch", "seconds an epoch", 1),
        ("seconds_per_1000_predictions", "seconds, 1,000 predictions", 1),
        ("accuracy_mean", "validation accuracy, %", 1),
    )
    figure = Figure(
        figsize=(13, 0.42 * len(rows) + 0.9 * len(groups)),
        layout="constrained",
    )
    all_axes = figure.subplots(
        len(groups),
        len(columns),
        squeeze=False,
        sharey="row",
        height_ratios=[len(rows) + 1 for rows in groups.values()],
    )
    for row_axes, (title, rows) in zip(all_axes, groups.items(), strict=True):
        names = [row["network"] for row in rows]
        for axis, (key, label, unit) in zip(row_axes, columns, strict=True):
            values = [row[key] / unit for row in rows]
            if key == "accuracy_mean":
                errors = [row["accuracy_spread"] / 2 for row in rows]
                axis.errorbar(values, names, xerr=errors, fmt="o", capsize=3)
            else:
                axis.barh(names, values, color="tab:blue")
            axis.axvline(values[0], color="black", linewidth=0.8)
            axis.set_title(label, fontsize=9)
            axis.tick_params(labelsize=8)
        row_axes[0].invert_yaxis()
        row_axes[0].set_ylabel(title, fontsize=8)
    figure.savefig(path, dpi=150)


def main():
    parser = common.make_parser(__doc__, "three_claims.csv", 10)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS)
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    data = load_data(options.data)
    best = {name: accuracies(name, data, options) for name in options.networks}
    if options.train_only:
        return
    models = {
        name: build_model(NETWORKS[name][0], data, recipe_of(name, options))
        for name in options.networks
    }
    timed = seconds(models, data, options)
    machine = common.machine(folders=[options.data, options.runs])
    rows = []
    for name, model in models.items():
        counted = profile(model)
        epoch, predictions = timed[name]
        rows.append(
            {
                "network": name,
                "image_size": NETWORKS[name][1],
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
        print(*list(row.values())[:8], sep="\t")


if __name__ == "__main__":
    main()
