"""Milliseconds and memory of an image in the five detectors of the paper.

    python benchmarks/detector.py

RetinaNets on ResNet-50, 80 classes, one image of 640 pixels, float32, random
weights: backbone, pyramid, heads, boxes and their suppression, as a TensorFlow
graph (compiled by XLA with `--modes xla`). All five are called in turns; a row
has the median and the fastest call, as other users of a shared machine only
ever slow a call down, and their ratios to those of the convolutional detector.
Memory is what a call adds at its peak to a process of its own. Two minutes on
two cores. Rows go to `benchmarks/results/detector.csv`.
"""

import statistics

import common
import keras
import numpy as np
import tensorflow as tf

from keras_sasa.applications import ResNet
from keras_sasa.detection import RetinaNet
from keras_sasa.detection.configurations import DETECTORS
from keras_sasa.profile import profile

SIDE = 640
CLASSES = 80
MODES = ("graph", "xla")


def make_model(name):
    keras.utils.set_random_seed(0)
    options = dict(DETECTORS[name])
    backbone = ResNet(
        **options.pop("backbone"),
        include_top=False,
        input_shape=(SIDE, SIDE, 3),
    )
    return RetinaNet(backbone, CLASSES, **options)


def prediction(model, image, mode):
    predict = tf.function(
        lambda image: model.make_detections(
            model(image, training=False), SIDE, SIDE
        ),
        jit_compile=mode == "xla",
        autograph=False,
    )
    return lambda: predict(image)["boxes"].numpy()


def make_image():
    random = np.random.default_rng(0)
    return tf.constant(random.normal(size=(1, SIDE, SIDE, 3)), "float32")


def peak(name, mode):
    """MiB that a call adds, the first one having built what stays."""
    predict = prediction(make_model(name), make_image(), mode)
    predict()
    return common.peak_mib(predict)


def main():
    parser = common.make_parser(__doc__, "detector.csv", 10)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["graph"])
    parser.add_argument(
        "--peak",
        nargs=2,
        metavar=("DETECTOR", "MODE"),
        help="print the peak of a call in MiB and do nothing else",
    )
    options = parser.parse_args()
    if options.peak:
        print(peak(*options.peak))
        return
    image = make_image()
    models = {name: make_model(name) for name in DETECTORS}
    samples = common.interleaved_samples(
        {
            (name, mode): prediction(model, image, mode)
            for name, model in models.items()
            for mode in options.modes
        },
        options.repeats,
    )
    machine = common.machine()
    rows = []
    for name, model in models.items():
        counted = profile(model)
        for mode in options.modes:
            fastest = min(samples[name, mode])
            median = statistics.median(samples[name, mode])
            baseline = samples[next(iter(DETECTORS)), mode]
            rows.append(
                {
                    "detector": name,
                    "mode": mode,
                    "parameters": counted.trainable_parameters,
                    "flops": counted.flops,
                    "median_ms": round(1e3 * median, 1),
                    "fastest_ms": round(1e3 * fastest, 1),
                    "ratio": round(fastest / min(baseline), 3),
                    "ratio_of_medians": round(
                        median / statistics.median(baseline), 3
                    ),
                    "peak_mib": round(
                        float(
                            common.in_new_process(
                                __file__, "--peak", name, mode
                            )
                        )
                    ),
                    **machine,
                }
            )
            print(*list(rows[-1].values())[:9], sep="\t", flush=True)
    common.write_rows(options.csv, rows)


if __name__ == "__main__":
    main()
