"""Time and memory of the attention itself, beside a 3x3 convolution.

    python benchmarks/local_attention.py

For the maps of the four groups of ResNet-50: every implementation of
`local_attention` (k = 7, 8 heads, float32, the function alone without the
projections) and `tf.nn.conv2d` with a 3x3 kernel of the same width, forward
and forward + backward, as a TensorFlow graph and compiled by XLA. Times are
medians of interleaved calls; memory is what one call adds to the peak of a
process of its own. About ten minutes on two cores. Rows go to
`benchmarks/results/local_attention.csv`.
"""

import common
import numpy as np
import tensorflow as tf

from keras_sasa.ops.local_attention import IMPLEMENTATIONS, local_attention

# Maps of the groups of ResNet-50 at 224 pixels: batch, height, width, channels.
SHAPES = {
    "56x56x64": (4, 56, 56, 64),
    "28x28x128": (4, 28, 28, 128),
    "14x14x256": (8, 14, 14, 256),
    "7x7x512": (8, 7, 7, 512),
}
KERNEL_SIZE = 7
NUM_HEADS = 8
DIRECTIONS = ("forward", "forward + backward")
MODES = ("graph", "xla")
CONV = "conv 3x3"
METHODS = (*IMPLEMENTATIONS, CONV)


def tensors(method, shape):
    """Random arguments of a method and a gradient of its output."""
    random = np.random.default_rng(0)
    channels = shape[-1]
    shapes = [shape] * 3
    shapes += [(KERNEL_SIZE, NUM_HEADS, channels // NUM_HEADS // 2)] * 2
    if method == CONV:
        shapes = [shape, (3, 3, channels, channels)]
    arguments = [
        tf.constant(random.normal(size=size), "float32") for size in shapes
    ]
    return arguments, tf.constant(random.normal(size=shape), "float32")


def compiled(method, direction, mode):
    """A `tf.function` of the arguments and the gradient of the output."""

    def forward(arguments):
        if method == CONV:
            return tf.nn.conv2d(*arguments, strides=1, padding="SAME")
        return local_attention(
            *arguments,
            kernel_size=KERNEL_SIZE,
            num_heads=NUM_HEADS,
            implementation=method,
        )

    def both(arguments, gradient):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs = forward(arguments)
        return tape.gradient(outputs, arguments, gradient)

    return tf.function(
        both
        if direction == "forward + backward"
        else lambda arguments, gradient: forward(arguments),
        jit_compile=mode == "xla",
        autograph=False,
    )


def call(function, arguments, gradient):
    """Calls; on CPU the results are there when the call returns."""
    function(arguments, gradient)


def measure_memory(method, size, direction, mode):
    """Peak MiB of one call; a call on one image has compiled what it can."""
    function = compiled(method, direction, mode)
    shape = SHAPES[size]
    call(function, *tensors(method, (1, *shape[1:])))
    arguments, gradient = tensors(method, shape)
    return common.peak_mib(lambda: call(function, arguments, gradient))


def measure(size, repeats):
    """Rows of one map."""
    rows = []
    for direction in DIRECTIONS:
        functions = {}
        for method in METHODS:
            arguments, gradient = tensors(method, SHAPES[size])
            for mode in MODES:
                function = compiled(method, direction, mode)
                functions[method, mode] = (
                    lambda f=function, a=arguments, g=gradient: call(f, a, g)
                )
        seconds = common.interleaved_medians(functions, repeats)
        mib = {
            key: float(
                common.in_new_process(
                    __file__, "--memory", key[0], size, direction, key[1]
                )
            )
            for key in functions
        }

        def best(table, method):
            return min(table[method, mode] for mode in MODES)

        for method, mode in functions:
            rows.append(
                {
                    "map": size,
                    "batch": SHAPES[size][0],
                    "direction": direction,
                    "method": method,
                    "mode": mode,
                    "ms": round(1e3 * seconds[method, mode], 2),
                    "peak_mib": round(mib[method, mode], 1),
                    "best_patches_ms_over_best_ms": round(
                        best(seconds, "patches") / best(seconds, method), 2
                    ),
                    "best_patches_mib_over_best_mib": round(
                        best(mib, "patches") / best(mib, method), 2
                    ),
                    "best_ms_over_best_conv_ms": round(
                        best(seconds, method) / best(seconds, CONV), 2
                    ),
                }
            )
            print(*list(rows[-1].values()), sep="\t", flush=True)
    return rows


def main():
    parser = common.make_parser(__doc__, "local_attention.csv", 15)
    parser.add_argument(
        "--memory",
        nargs=4,
        metavar=("METHOD", "MAP", "DIRECTION", "MODE"),
        help="print the peak of one call in MiB and do nothing else",
    )
    arguments = parser.parse_args()
    if arguments.memory:
        print(measure_memory(*arguments.memory))
        return
    machine = common.machine()
    rows = [
        {**row, **machine}
        for size in SHAPES
        for row in measure(size, arguments.repeats)
    ]
    common.write_rows(arguments.csv, rows)


if __name__ == "__main__":
    main()
