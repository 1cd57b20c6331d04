"""Images per second of whole networks: SASA-ResNet-50 and its twin.

    python benchmarks/networks.py

224 pixels, batch 8, float32, random weights: a prediction and a training step
(SGD with momentum, cross-entropy), interleaved, medians, as a TensorFlow graph
and compiled by XLA. About fifteen minutes on two cores. Rows go to
`benchmarks/results/networks.csv`.
"""

import argparse
import pathlib
import time

import common
import keras
import numpy as np
import tensorflow as tf

from keras_sasa import applications

NETWORKS = {
    "SASAResNet50": applications.SASAResNet50,
    "ConvResNet50": applications.ConvResNet50,
}
MODES = ("graph", "xla")


def prediction(model, images, mode):
    predict = tf.function(
        lambda batch: model(batch, training=False),
        jit_compile=mode == "xla",
        autograph=False,
    )
    return lambda: predict(images).numpy()


def training_step(model, images, labels, mode):
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        "sparse_categorical_crossentropy",
        jit_compile=mode == "xla",
    )
    return lambda: model.train_on_batch(images, labels)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument(
        "--csv",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent / "results/networks.csv",
    )
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    images = tf.constant(
        random.normal(size=(arguments.batch_size, 224, 224, 3)), "float32"
    )
    labels = tf.constant(random.integers(1000, size=arguments.batch_size))
    rows = []
    for task in ("prediction", "training step"):
        functions, first_call = {}, {}
        for name, build in NETWORKS.items():
            for mode in arguments.modes:
                model = build()
                if task == "prediction":
                    function = prediction(model, images, mode)
                else:
                    function = training_step(model, images, labels, mode)
                start = time.perf_counter()
                function()
                first_call[name, mode] = time.perf_counter() - start
                functions[name, mode] = function
        seconds = common.interleaved_medians(functions, arguments.repeats)
        for name, mode in functions:
            modes = arguments.modes
            twin = min(seconds["ConvResNet50", mode] for mode in modes)
            best = min(seconds[name, mode] for mode in modes)
            rows.append(
                {
                    "task": task,
                    "network": name,
                    "mode": mode,
                    "batch": arguments.batch_size,
                    "images_per_second": round(
                        arguments.batch_size / seconds[name, mode], 2
                    ),
                    "seconds": round(seconds[name, mode], 4),
                    "first_call_seconds": round(first_call[name, mode], 2),
                    "best_seconds_over_best_twin": round(best / twin, 2),
                    **common.machine(),
                }
            )
            print(*list(rows[-1].values())[:8], sep="\t", flush=True)
    common.write_rows(arguments.csv, rows)


if __name__ == "__main__":
    main()
