"""Time of the attention layer beside `Conv2D`, its FLOP rate, and bfloat16.

    python benchmarks/layers.py

`SelfAttention2D` with its projections (k = 7, 8 heads) and `Conv2D` 3x3 of the
same width, batch 8, float32, as TensorFlow graphs, forward and forward +
backward, at the four maps of ResNet-50; the same layer with the policy
"mixed_bfloat16", on images of bfloat16; and the attention alone, its rate in
FLOPs (multiply-adds count twice, only keys inside the image) against the rate
of a float32 matrix product. Calls are interleaved; a row has the median and the
fastest of them, as other users of a shared machine only ever slow a call down.
A minute on two cores. Rows go to `benchmarks/results/layers.csv`.
"""

import statistics
import sys

import common
import keras
import numpy as np
import tensorflow as tf

from keras_sasa import SelfAttention2D
from keras_sasa.ops.local_attention import IMPLEMENTATIONS
from keras_sasa.ops.local_attention.native import Channels
from keras_sasa.ops.local_attention.position import RowColumnEmbeddings
from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.local_attention.window import window_axes

BATCH = 8
MAPS = ((56, 64), (28, 128), (14, 256), (7, 512))
NUM_HEADS = 8
MATMUL = 2048
POLICIES = ("float32", "mixed_bfloat16")


def layer_functions(size, channels):
    """Functions that call and differentiate both layers."""
    convolution = keras.layers.Conv2D(
        channels, 3, padding="same", use_bias=False
    )
    attention = SelfAttention2D(channels, 7, num_heads=NUM_HEADS)
    return {
        **functions_of("Conv2D 3x3", convolution, size, {}),
        # In training, attention keeps what a prediction need not keep.
        **functions_of("SelfAttention2D", attention, size, {"training": True}),
    }


def policy_functions(size, channels):
    """Functions of the layer with two dtype policies."""
    functions = {}
    for policy in POLICIES:
        layer = SelfAttention2D(channels, 7, num_heads=NUM_HEADS, dtype=policy)
        functions |= functions_of(policy, layer, size, {"training": True})
    return functions


def functions_of(name, layer, size, training):
    """Functions that call and differentiate a layer as wide as its input."""
    shape = (BATCH, size, size, layer.filters)
    images, upstream = (
        tf.cast(tf.random.normal(shape), layer.compute_dtype) for _ in range(2)
    )
    layer.build(shape)

    def forward():
        return layer(images)

    def both():
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, **training)
        weights = [weight.value for weight in layer.trainable_variables]
        return tape.gradient(outputs, [images, *weights], upstream)

    return {
        (name, "forward"): graph(forward),
        (name, "forward + backward"): graph(both),
    }


def attention_function(size, channels, kernel_size=7, batch=BATCH):
    """A function that computes the attention without projections."""
    native = IMPLEMENTATIONS["native"]
    if reason := native.unavailable_reason():
        sys.exit(f"The kernel does not run: {reason}.")
    projected = tf.random.normal((batch, size, size, 3 * channels))
    width = channels // NUM_HEADS // 2
    rows, columns = (
        tf.random.normal((kernel_size, NUM_HEADS, width)) for _ in range(2)
    )
    problem = Problem(
        *window_axes(kernel_size), NUM_HEADS, position=RowColumnEmbeddings()
    )
    return graph(
        lambda: native.attend(
            problem,
            *(Channels(projected, n * channels, channels) for n in range(3)),
            (rows, columns),
        )
    )


def graph(function):
    """The function as a graph; on CPU a call returns when it is done."""
    return tf.function(function, autograph=False)


def attention_flops(size, channels, kernel_size=7):
    """FLOPs of logits, positions and weighted sums of a batch."""
    reach = kernel_size // 2
    places = np.arange(size)
    inside = np.minimum(places + reach, size - 1) - np.maximum(
        places - reach, 0
    )
    pairs = float((inside + 1).sum()) ** 2
    positions = size * size * kernel_size
    return BATCH * channels * (4 * pairs + 2 * positions)


def main():
    parser = common.make_parser(__doc__, "layers.csv", 40)
    arguments = parser.parse_args()
    machine = common.machine()
    rows = []

    def measure(experiment, functions, ratios):
        """Adds a row for each function; `ratios` maps samples to a number."""
        samples = common.interleaved_samples(functions, arguments.repeats)
        for name in functions:
            row = {
                "experiment": experiment,
                "what": " ".join(map(str, name)),
                "median_ms": round(1e3 * statistics.median(samples[name]), 3),
                "fastest_ms": round(1e3 * min(samples[name]), 3),
                "ratio_of_medians": ratios(samples, name, statistics.median),
                "ratio_of_fastest": ratios(samples, name, min),
            }
            rows.append({**row, **machine})
            print(*row.values(), sep="\t", flush=True)

    for title, make, reference in (
        ("layer / Conv2D", layer_functions, "Conv2D 3x3"),
        ("mixed_bfloat16 / float32", policy_functions, "float32"),
    ):
        for size, channels in MAPS:
            measure(
                f"{title}, {size}x{size}x{channels}",
                make(size, channels),
                lambda samples, name, of, reference=reference: round(
                    of(samples[name]) / of(samples[reference, name[1]]), 3
                ),
            )

    matrix = tf.random.normal((MATMUL, MATMUL))
    functions = {("matmul", 2.0 * MATMUL**3): graph(lambda: matrix @ matrix)}
    for size, channels in MAPS:
        name = f"attention {size}x{size}x{channels}"
        flops = attention_flops(size, channels)
        functions[name, flops] = attention_function(size, channels)
    reference = next(iter(functions))
    measure(
        "FLOP rate relative to matmul",
        functions,
        lambda samples, name, of: round(
            name[1]
            / of(samples[name])
            / (reference[1] / of(samples[reference])),
            3,
        ),
    )
    common.write_rows(arguments.csv, rows)


if __name__ == "__main__":
    main()
