"""Images per second of whole networks: SASA-ResNet-50 and its twin.

    python benchmarks/networks.py

224 pixels, batch 8, float32, random weights: a prediction of `SASAResNet50`, of
its convolutional twin, of a hybrid (convolution, convolution, attention,
attention) and of `keras.applications.ResNet50`; a training step (SGD with
momentum, cross-entropy) of the first two, and its peak memory (the median of
three processes). Interleaved; a row has the median and the fastest call, as
other users of a shared machine only ever slow a call down, and the median of
the first calls of seven models. As a TensorFlow graph and compiled by XLA.
About forty minutes on two cores. Rows go to `benchmarks/results/networks.csv`.
"""

import statistics
import time

import common
import keras
import numpy as np
import tensorflow as tf

from keras_sasa import applications

TWIN = "ConvResNet50"
NETWORKS = {
    "SASAResNet50": applications.SASAResNet50,
    TWIN: applications.ConvResNet50,
    "hybrid": lambda: applications.ResNet(
        applications.resnet.NUM_BLOCKS[50],
        spatial=("conv", "conv", "attention", "attention"),
    ),
    "keras ResNet50": lambda: keras.applications.ResNet50(weights=None),
}
TASKS = {
    "prediction": tuple(NETWORKS),
    "training step": ("SASAResNet50", TWIN),
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


def make(task, name, images, labels, mode):
    model = NETWORKS[name]()
    if task == "prediction":
        return prediction(model, images, mode)
    return training_step(model, images, labels, mode)


def warm_up(mode):
    """Pays what the first model of a process pays, whatever it is."""
    images, labels = tf.zeros((2, 8, 8, 3)), tf.zeros((2,), "int64")
    model = applications.ResNet(
        (1,), stem="small", width_multiplier=0.25, input_shape=(8, 8, 3)
    )
    prediction(model, images, mode)()
    training_step(model, images, labels, mode)()


def data(batch_size):
    random = np.random.default_rng(0)
    images = tf.constant(
        random.normal(size=(batch_size, 224, 224, 3)), "float32"
    )
    return images, tf.constant(random.integers(1000, size=batch_size))


def measure_memory(name, mode, batch_size):
    """Peak MiB of a process that makes three training steps."""
    function = make("training step", name, *data(batch_size), mode)
    for _ in range(3):
        function()
    return common.resident_mib("VmHWM")


def main():
    parser = common.make_parser(__doc__, "networks.csv", 12)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--first-calls", type=int, default=7)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS])
    parser.add_argument(
        "--memory",
        nargs=2,
        metavar=("NETWORK", "MODE"),
        help="print the peak of a training step in MiB and do nothing else",
    )
    arguments = parser.parse_args()
    if arguments.memory:
        print(measure_memory(*arguments.memory, arguments.batch_size))
        return
    images, labels = data(arguments.batch_size)
    rows = []
    for task in arguments.tasks:
        for mode in arguments.modes:
            warm_up(mode)
            functions, mib = {}, {}
            first_calls = {name: [] for name in TASKS[task]}
            for _ in range(arguments.first_calls):
                for name in TASKS[task]:
                    function = make(task, name, images, labels, mode)
                    start = time.perf_counter()
                    function()
                    first_calls[name].append(time.perf_counter() - start)
                    functions[name] = function
            first_call = {
                name: statistics.median(seconds)
                for name, seconds in first_calls.items()
            }
            samples = common.interleaved_samples(functions, arguments.repeats)
            if task == "training step":
                for name in functions:
                    command = ["--memory", name, mode, "--batch-size"]
                    # What the allocator keeps differs by up to a tenth.
                    mib[name] = statistics.median(
                        float(
                            common.in_new_process(
                                __file__, *command, str(arguments.batch_size)
                            )
                        )
                        for _ in range(3)
                    )
            for name, seconds in samples.items():
                rows.append(
                    {
                        "task": task,
                        "mode": mode,
                        "network": name,
                        "batch": arguments.batch_size,
                        "median_seconds": round(statistics.median(seconds), 4),
                        "fastest_seconds": round(min(seconds), 4),
                        "first_call_seconds": round(first_call[name], 2),
                        "median_over_twin": round(
                            statistics.median(seconds)
                            / statistics.median(samples[TWIN]),
                            3,
                        ),
                        "fastest_over_twin": round(
                            min(seconds) / min(samples[TWIN]), 3
                        ),
                        "first_call_over_twin": round(
                            first_call[name] / first_call[TWIN], 2
                        ),
                        "process_peak_mib": round(mib.get(name, 0)) or "",
                        **common.machine(),
                    }
                )
                print(*list(rows[-1].values())[:11], sep="\t", flush=True)
            del functions, function
            keras.backend.clear_session()
    common.write_rows(arguments.csv, rows)


if __name__ == "__main__":
    main()
