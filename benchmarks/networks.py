"""Images per second of whole networks: SASA-ResNet-50 and its twin.

    python benchmarks/networks.py

224 pixels, batch 8, float32, random weights, as a TensorFlow graph (compiled by
XLA with `--modes xla`). A prediction and a training step (SGD with momentum,
cross-entropy) of `SASAResNet50`, before a pool and with strides, of its
convolutional twin, with its own and with Keras' batch normalization, and of
`keras.applications.ResNet50`; a prediction of a hybrid (convolution,
convolution, attention, attention). Interleaved; a row has the median and the
fastest call, as other users of a shared machine only ever slow a call down, the
median of the first calls of several models, and for the training step of the
first two its peak memory, the median of three processes. A training step is
repeated half as often. Seven minutes on two cores. Rows go to
`benchmarks/results/networks.csv`.
"""

import gc
import statistics
import time

import common
import keras
import numpy as np
import tensorflow as tf

from keras_sasa import applications

TWIN = "ConvResNet50"


def with_keras_normalization():
    """The twin with Keras' layer in the place of every normalization."""
    return keras.models.clone_model(
        applications.ConvResNet50(),
        clone_function=lambda layer: (
            keras.layers.BatchNormalization.from_config(layer.get_config())
            if isinstance(layer, keras.layers.BatchNormalization)
            else layer.__class__.from_config(layer.get_config())
        ),
    )


NETWORKS = {
    "SASAResNet50": applications.SASAResNet50,
    TWIN: applications.ConvResNet50,
    "SASAResNet50, strides": lambda: applications.SASAResNet50(
        downsampling="stride"
    ),
    "hybrid": lambda: applications.ResNet(
        applications.resnet.NUM_BLOCKS[50],
        spatial=("conv", "conv", "attention", "attention"),
    ),
    "ConvResNet50, Keras' normalization": with_keras_normalization,
    "keras ResNet50": lambda: keras.applications.ResNet50(weights=None),
}
TASKS = {
    "prediction": tuple(NETWORKS),
    "training step": tuple(name for name in NETWORKS if name != "hybrid"),
}
MEMORY = ("SASAResNet50", TWIN)
# First calls of a training step take twenty times as long, and nothing in them
# depends on the attention but what a prediction has as well.
FIRST_CALLS = {"prediction": 7, "training step": 1}
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
    parser.add_argument(
        "--first-calls",
        type=int,
        help="models of each network, by default 7 and for training 1",
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["graph"])
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
    machine = common.machine()
    rows = []
    for task in arguments.tasks:
        for mode in arguments.modes:
            warm_up(mode)
            functions, mib = {}, {}
            first_calls = {name: [] for name in TASKS[task]}
            for _ in range(arguments.first_calls or FIRST_CALLS[task]):
                for name in TASKS[task]:
                    function = make(task, name, images, labels, mode)
                    gc.collect()  # Freeing earlier models takes time, too.
                    start = time.perf_counter()
                    function()
                    first_calls[name].append(time.perf_counter() - start)
                    functions[name] = function
            first_call = {
                name: statistics.median(seconds)
                for name, seconds in first_calls.items()
            }
            training = task == "training step"
            samples = common.interleaved_samples(
                functions, -(-arguments.repeats // (2 if training else 1))
            )
            if training:
                for name in MEMORY:
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
                        **machine,
                    }
                )
                print(*list(rows[-1].values())[:11], sep="\t", flush=True)
            del functions, function
            keras.backend.clear_session()
    common.write_rows(arguments.csv, rows)


if __name__ == "__main__":
    main()
