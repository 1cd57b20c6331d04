"""How time grows with map, window and batch, and what a new image size costs.

    python benchmarks/scaling.py

The time of the attention without its projections (k = 7, 8 heads, float32) per
pixel for growing maps of equally many pixels in all, and per k * k for growing
windows; a prediction of `SASAResNet50` and of its convolutional twin for
batches of 1 and of 8 images of 224 pixels; and networks with unknown sizes,
`SASAResNet26` and its twin, that meet 200 different image sizes: seconds of the
first and of the second call of a size, and the memory that a process of its own
gains from the 20th to the 110th size and from there to the 200th. All as
TensorFlow graphs. Calls are interleaved; a row has the median and the fastest
of them. Four minutes on two cores. Rows go to `benchmarks/results/scaling.csv`.
"""

import ctypes
import functools
import statistics
import time

import common
import keras
import numpy as np
import tensorflow as tf
from layers import attention_function

from keras_sasa import applications

MAPS = (28, 56, 112, 224)
WINDOWS = (3, 5, 7, 9, 11, 13, 15)
BATCHES = (1, 8)
SIZES = 200
# The first sizes fill what every process keeps, whatever it computes.
MEMORY_AFTER = (20, 110, 200)
NETWORKS = {
    "SASAResNet26": applications.SASAResNet26,
    "ConvResNet26": applications.ConvResNet26,
}
BATCH_NETWORKS = {
    "SASAResNet50": applications.SASAResNet50,
    "ConvResNet50": applications.ConvResNet50,
}


def prediction(model):
    shape = (None, *model.input_shape[1:])
    return tf.function(
        lambda images: model(images, training=False),
        autograph=False,
        input_signature=[tf.TensorSpec(shape)],
    )


def of_unknown_size(name):
    """A prediction that has been traced, by a network without image sizes."""
    function = prediction(NETWORKS[name](input_shape=(None, None, 3)))
    function(tf.zeros((1, 64, 64, 3)))
    return function


def images_of_new_sizes(count):
    """Yields images, no two of which have the same height and width."""
    random = np.random.default_rng(0)
    sizes = random.permutation([(h, w) for h in range(32) for w in range(32)])
    for height, width in sizes[:count]:
        yield tf.zeros((1, 65 + 2 * height, 65 + 2 * width, 3))


def memory_of_sizes(name):
    """MiB that a process has after each number of `MEMORY_AFTER` sizes."""
    function = of_unknown_size(name)
    found = []
    for count, image in enumerate(images_of_new_sizes(SIZES), 1):
        function(image)
        if count in MEMORY_AFTER:
            # The C library keeps what calls freed.
            ctypes.CDLL(None).malloc_trim(0)
            found.append(common.resident_mib("VmRSS"))
    return found


def seconds_of_sizes(count):
    """Seconds of first and second calls, in turns: dicts of lists by name."""
    functions = {name: of_unknown_size(name) for name in NETWORKS}
    samples = {
        (name, call): [] for name in NETWORKS for call in ("first", "second")
    }
    for image in images_of_new_sizes(count):
        for name, function in functions.items():
            for call in ("first", "second"):
                start = time.perf_counter()
                function(image)
                samples[name, call].append(time.perf_counter() - start)
    return samples


def main():
    parser = common.make_parser(__doc__, "scaling.csv", 12)
    parser.add_argument("--sizes", type=int, default=SIZES)
    parser.add_argument(
        "--memory",
        choices=NETWORKS,
        help="print the memory of a process in MiB and do nothing else",
    )
    arguments = parser.parse_args()
    if arguments.memory:
        print(*memory_of_sizes(arguments.memory))
        return
    machine = common.machine()
    rows = []

    def add(experiment, what, samples=None, ratio=lambda of: "", mib=""):
        """Adds a row; `ratio` computes one from the function of samples."""
        row = {
            "experiment": experiment,
            "what": what,
            "median_ms": "",
            "fastest_ms": "",
            "ratio_of_medians": "",
            "ratio_of_fastest": "",
            "mib": mib,
        }
        if samples is not None:
            row |= {
                "median_ms": round(1e3 * statistics.median(samples), 3),
                "fastest_ms": round(1e3 * min(samples), 3),
                "ratio_of_medians": round(ratio(statistics.median), 3),
                "ratio_of_fastest": round(ratio(min), 3),
            }
        rows.append(row | machine)
        print(*row.values(), sep="\t", flush=True)

    functions = {
        side: attention_function(side, 64, batch=(MAPS[-1] // side) ** 2)
        for side in MAPS
    }
    samples = common.interleaved_samples(functions, arguments.repeats)
    for side in MAPS:
        add(
            "time per pixel relative to 28x28",
            f"{side}x{side}x64",
            samples[side],
            lambda of, side=side: of(samples[side]) / of(samples[MAPS[0]]),
        )

    functions = {k: attention_function(28, 128, k) for k in WINDOWS}
    samples = common.interleaved_samples(functions, arguments.repeats)
    for k in WINDOWS:
        add(
            "time per k * k relative to k = 3",
            f"k = {k}",
            samples[k],
            lambda of, k=k: of(samples[k]) / k**2 / (of(samples[3]) / 9),
        )

    models = {name: make() for name, make in BATCH_NETWORKS.items()}
    for batch in BATCHES:
        images = tf.random.normal((batch, 224, 224, 3))
        functions = {
            name: functools.partial(prediction(model), images)
            for name, model in models.items()
        }
        samples = common.interleaved_samples(functions, arguments.repeats)
        for name, seconds in samples.items():
            add(
                f"prediction / the twin's, batch {batch}",
                name,
                seconds,
                lambda of, own=seconds, twin=samples["ConvResNet50"]: (
                    of(own) / of(twin)
                ),
            )
    del models, functions
    keras.backend.clear_session()

    samples = seconds_of_sizes(arguments.sizes)
    for (name, call), seconds in samples.items():
        add(
            f"{call} call of an image size / the twin's",
            name,
            seconds,
            lambda of, call=call, seconds=seconds: (
                of(seconds) / of(samples["ConvResNet26", call])
            ),
        )
    for name in NETWORKS:
        printed = common.in_new_process(__file__, "--memory", name).split()
        mib = list(map(float, printed))
        for before, after, first, last in zip(
            mib, mib[1:], MEMORY_AFTER, MEMORY_AFTER[1:], strict=False
        ):
            add(
                f"memory gained from the {first}th to the {last}th image size",
                name,
                mib=round(after - before, 1),
            )
    common.write_rows(arguments.csv, rows)


if __name__ == "__main__":
    main()
