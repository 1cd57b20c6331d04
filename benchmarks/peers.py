"""Time of other implementations of local attention beside ours, on CPU.

    PYTHONPATH=. ../peers/bin/python benchmarks/peers.py

in the environment of `benchmarks/requirements-peers.txt`. For the maps of the
four groups of ResNet-50 (k = 7, 8 heads, float32, two threads), forward and
forward + backward. Every method has a process of its own, because torch,
TensorFlow and the Keras of 2023 do not share one well; one call of one method
runs at a time, in turns, and medians are compared. Rows go to
`benchmarks/results/peers.csv`; a method that does not run has a row with the
reason. Only FlexAttention computes the same function as we do, and its numbers
are compared with ours; the column `note` says what the others compute.
"""

import functools
import importlib.metadata
import importlib.util
import multiprocessing
import os
import statistics
import sys
import time
import types

import common
import numpy as np

# Maps of the groups of ResNet-50 at 224 pixels: batch, height, width, channels.
SHAPES = {
    "56x56x64": (4, 56, 56, 64),
    "28x28x128": (4, 28, 28, 128),
    "14x14x256": (8, 14, 14, 256),
    "7x7x512": (8, 7, 7, 512),
}
KERNEL_SIZE = 7
RADIUS = KERNEL_SIZE // 2
NUM_HEADS = 8
# Pixels of a side of a block of HaloNet's attention; it must divide the maps.
BLOCK = 7
THREADS = 2
DIRECTIONS = ("forward", "forward + backward")
TOLERANCE = 1e-4
# Where pip put NATTEN as `requirements-peers.txt` says how: beside this
# environment.
OPTIMIZED_NATTEN = f"{sys.prefix}-natten-O3"
PACKAGES = ("torch", "natten", "timm", "kecam", "tf-keras")


def arrays(shape):
    """Query (or image), key, value, rows, columns, gradient of the output."""
    random = np.random.default_rng(0)
    embedding = (KERNEL_SIZE, NUM_HEADS, shape[-1] // NUM_HEADS // 2)
    return [
        random.normal(size=size).astype("float32")
        for size in (*[shape] * 3, *[embedding] * 2, shape)
    ]


def tf_call(forward, inputs, gradient, backward, variables=()):
    """A function that computes on TensorFlow, in a graph, and waits."""
    import tensorflow as tf

    def both(inputs, gradient):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = forward(*inputs)
        return tape.gradient(outputs, [*inputs, *variables], gradient)

    function = tf.function(
        both if backward else lambda inputs, gradient: forward(*inputs),
        autograph=False,
    )
    inputs, gradient = [tf.constant(i) for i in inputs], tf.constant(gradient)

    def call():
        outputs = function(inputs, gradient)
        tf.test.experimental.sync_devices()
        return outputs

    return call


def torch_call(forward, inputs, gradient, backward, variables=()):
    """A function that computes on torch."""
    import torch

    inputs = [torch.tensor(i, requires_grad=backward) for i in inputs]
    variables = list(variables)
    gradient = torch.tensor(gradient)

    def call():
        with torch.set_grad_enabled(backward):
            outputs = forward(*inputs)
            if not backward:
                return outputs
            return torch.autograd.grad(outputs, [*inputs, *variables], gradient)

    return call


def native(shape, backward):
    from keras_sasa.ops.local_attention import local_attention

    *inputs, gradient = arrays(shape)
    forward = functools.partial(
        local_attention,
        kernel_size=KERNEL_SIZE,
        num_heads=NUM_HEADS,
        implementation="native",
    )
    return tf_call(forward, inputs, gradient, backward)


def native_layer(shape, backward):
    from keras_sasa import SelfAttention2D

    image, *_, gradient = arrays(shape)
    layer = SelfAttention2D(
        shape[-1], KERNEL_SIZE, num_heads=NUM_HEADS, implementation="native"
    )
    layer.build(shape)
    return tf_call(
        functools.partial(layer, training=backward),
        [image],
        gradient,
        backward,
        [weight.value for weight in layer.trainable_weights],
    )


def flex_attention(shape, backward):
    import torch
    from torch.nn.attention import flex_attention as flex

    *inputs, gradient = arrays(shape)
    batch, height, width, _ = shape

    def offsets(query, key):
        return key // width - query // width, key % width - query % width

    def in_window(_batch, _head, query, key):
        dy, dx = offsets(query, key)
        return (dy.abs() <= RADIUS) & (dx.abs() <= RADIUS)

    mask = flex.create_block_mask(
        in_window, None, None, height * width, height * width, device="cpu"
    )

    def attend(query, key, value, rows, columns):
        query, key, value = (
            tensor.view(batch, height * width, NUM_HEADS, -1).transpose(1, 2)
            for tensor in (query, key, value)
        )
        top, bottom = query.chunk(2, -1)
        rows = torch.einsum("bnpd,knd->bnpk", top, rows)
        columns = torch.einsum("bnpd,knd->bnpk", bottom, columns)

        def add_relative(score, image, head, query, key):
            # A key outside the window is masked, yet looked up: anywhere.
            dy, dx = (
                (offset + RADIUS).clamp(0, 2 * RADIUS)
                for offset in offsets(query, key)
            )
            return (
                score
                + rows[image, head, query, dy]
                + columns[image, head, query, dx]
            )

        outputs = flex.flex_attention(
            query, key, value, add_relative, mask, scale=1.0
        )
        return outputs.transpose(1, 2).reshape(shape)

    torch._dynamo.reset()
    forward = torch.compile(attend, dynamic=False)
    return torch_call(forward, inputs, gradient, backward)


def natten(shape, backward, path=None):
    import torch

    if path and path not in sys.path:
        if not os.path.isdir(path):
            raise FileNotFoundError(path)
        sys.path.insert(0, path)
    # NATTEN imports and calls these, and a torch without CUDA lacks them.
    torch.cuda._device_t = object
    torch.cuda.get_device_capability = lambda device=None: (0, 0)
    from natten.functional import na2d_av, na2d_qk

    *inputs, _, _, gradient = arrays(shape)
    side = 2 * KERNEL_SIZE - 1
    bias = np.random.default_rng(1).normal(size=(NUM_HEADS, side, side))

    def heads_first(array):
        array = array.reshape(*shape[:3], NUM_HEADS, -1)
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2, 4))

    # Its own layout is not timed. `na2d`, which fuses these, has no CPU code.
    def forward(query, key, value, bias):
        weights = na2d_qk(query, key, KERNEL_SIZE, rpb=bias).softmax(-1)
        return na2d_av(weights, value, KERNEL_SIZE)

    return torch_call(
        forward,
        [*map(heads_first, inputs), bias.astype("float32")],
        heads_first(gradient),
        backward,
    )


def timm(shape, backward):
    # Without the rest of timm, which needs torchvision; HaloAttn does not.
    for name in ("timm", "timm.layers"):
        if name not in sys.modules:
            package = types.ModuleType(name)
            spec = importlib.util.find_spec(name)
            package.__path__ = spec.submodule_search_locations
            sys.modules[name] = package
    from timm.layers.halo_attn import HaloAttn

    image, *_, gradient = arrays(shape)
    image, gradient = (
        np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        for array in (image, gradient)
    )
    layer = HaloAttn(
        shape[-1], num_heads=NUM_HEADS, block_size=BLOCK, halo_size=RADIUS
    )
    return torch_call(layer, [image], gradient, backward, layer.parameters())


def kecam(shape, backward):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # oneDNN refuses its softmax of six dimensions. (XLA takes it, and is faster
    # than the graph without oneDNN on the larger maps only.)
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    import tf_keras
    from keras_cv_attention_models.halonet.halonet import halo_attention

    image, *_, gradient = arrays(shape)
    inputs = tf_keras.Input(shape[1:])
    # Like ours and that of timm, without a projection of the output.
    outputs = halo_attention(
        inputs, NUM_HEADS, block_size=BLOCK, halo_size=RADIUS, out_weight=False
    )
    model = tf_keras.Model(inputs, outputs)
    return tf_call(
        model, [image], gradient, backward, model.trainable_variables
    )


HALO = (
    f"with projections; every query sees the {BLOCK + 2 * RADIUS}-pixel window "
    f"of its {BLOCK}-pixel block, zeros outside the image included"
)
SHIFTED = (
    "windows shifted inside at the border; a bias per offset and head for q.r"
)
METHODS = {
    "native": (native, "the function"),
    "native_layer": (native_layer, "the function with projections"),
    "flex_attention": (flex_attention, "the same function, compiled"),
    "natten": (natten, f"{SHIFTED}; as pip builds it, -O0 and one thread"),
    "natten_optimized": (
        functools.partial(natten, path=OPTIMIZED_NATTEN),
        f"{SHIFTED}; built with -O3, AVX2 and OpenMP",
    ),
    "timm": (timm, f"{HALO}; eager"),
    "kecam": (kecam, f"{HALO}; graph without oneDNN"),
}


def serve(pipe, method):
    """Prepares, calls and times one method, as the parent process asks."""
    # Before the libraries are imported, which read them once.
    os.environ.update(
        OMP_NUM_THREADS=str(THREADS),
        TF_NUM_INTRAOP_THREADS=str(THREADS),
        TF_NUM_INTEROP_THREADS=str(THREADS),
        TORCHINDUCTOR_COMPILE_THREADS="1",
    )
    prepare, call = METHODS[method][0], None
    for request in iter(pipe.recv, None):
        try:
            if request == "time":
                start = time.perf_counter()
                call()
                reply = time.perf_counter() - start
            elif request == "outputs":
                reply = np.asarray(call())
            else:
                call = prepare(*request)
                # The first call compiles; what fails, fails here.
                call()
                reply = None
        except Exception as error:
            reply = f"not run: {type(error).__name__}: {error}".split("\n")[0]
        pipe.send(reply)


class Worker:
    """A process for one method; a reply that is a string says what failed."""

    def __init__(self, method):
        context = multiprocessing.get_context("spawn")
        self.pipe, pipe = context.Pipe()
        self.process = context.Process(target=serve, args=(pipe, method))
        self.process.start()
        pipe.close()

    def ask(self, request):
        try:
            self.pipe.send(request)
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return f"not run: exit code {self.process.exitcode}"


def measure(size, direction, workers, repeats):
    """Rows of one map and direction."""
    backward = direction != DIRECTIONS[0]
    replies = {
        method: worker.ask((SHAPES[size], backward))
        for method, worker in workers.items()
    }
    samples = {method: [] for method in workers}
    for round_ in range(repeats + 2):
        for method, worker in workers.items():
            if isinstance(replies[method], str):
                continue
            # The threads of the last one may spin for a while.
            time.sleep(0.02)
            replies[method] = worker.ask("time")
            if round_ >= 2 and not isinstance(replies[method], str):
                samples[method].append(1e3 * replies[method])
    ms = {
        method: statistics.median(samples[method])
        for method in workers
        if not isinstance(replies[method], str)
    }
    difference = {}
    if not backward and {"native", "flex_attention"} <= set(ms):
        ours, theirs = (
            workers[method].ask("outputs")
            for method in ("native", "flex_attention")
        )
        difference["flex_attention"] = float(abs(ours - theirs).max())

    def over(method, other):
        if {method, other} <= set(ms):
            return round(ms[method] / ms[other], 2)
        return ""

    return [
        {
            "map": size,
            "batch": SHAPES[size][0],
            "direction": direction,
            "method": method,
            "ms": round(ms[method], 3) if method in ms else "",
            "ms_over_native_ms": over(method, "native"),
            "ms_over_native_layer_ms": over(method, "native_layer"),
            "max_abs_difference": difference.get(method, ""),
            "note": METHODS[method][1] if method in ms else replies[method],
        }
        for method in workers
    ]


def main():
    parser = common.make_parser(__doc__, "peers.csv", 7)
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS)
    )
    arguments = parser.parse_args()
    machine = common.machine() | {"threads": THREADS}
    for package in PACKAGES:
        try:
            machine[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            machine[package] = ""
    workers = {method: Worker(method) for method in arguments.methods}
    rows = []
    try:
        for size in SHAPES:
            for direction in DIRECTIONS:
                for row in measure(size, direction, workers, arguments.repeats):
                    print(*row.values(), sep="\t", flush=True)
                    rows.append(row | machine)
    finally:
        for worker in workers.values():
            worker.ask(None)
    common.write_rows(arguments.csv, rows)
    differences = [row["max_abs_difference"] or 0 for row in rows]
    if not all(difference < TOLERANCE for difference in differences):
        sys.exit(f"FlexAttention differs from ours: {differences}.")


if __name__ == "__main__":
    main()
