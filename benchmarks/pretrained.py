"""Milliseconds per image of networks with public weights.

    python benchmarks/pretrained.py --peers-python ../peers/bin/python

A prediction of NAT, HaloNet and networks of `keras.applications` of similar
published accuracy, each at its image size, float32, random weights, as a
TensorFlow graph; and with `--peers-python`, of the original NAT (transformers
with NATTEN) and of timm's HaloNet, in the environment of
`benchmarks/requirements-peers.txt`. All networks of a batch size predict in
turns. A row has the median and the fastest call. Four minutes on two cores.
Rows go to `benchmarks/results/pretrained.csv`.
"""

import json
import os
import pathlib
import statistics
import subprocess
import time

import common
import keras
import tensorflow as tf

from keras_sasa import applications

# Function, side of the images, published accuracy on ImageNet in percent.
NETWORKS = {
    "NATMini": (applications.NATMini, 224, 81.8),
    "EfficientNetV2B3": (keras.applications.EfficientNetV2B3, 300, 82.0),
    "ConvNeXtTiny": (keras.applications.ConvNeXtTiny, 224, 82.1),
    "NATTiny": (applications.NATTiny, 224, 83.2),
    "EfficientNetV2S": (keras.applications.EfficientNetV2S, 384, 83.9),
    "HaloNet26T": (applications.HaloNet26T, 256, 79.1),
    "ResNet50": (keras.applications.ResNet50, 224, 74.9),
}
PEERS = {
    "transformers NATMini": (224, 81.8),
    "timm halonet26t": (256, 79.1),
}
# What a time is divided by: the network, and what it is compared with.
RATIOS = (
    ("NATMini", "EfficientNetV2B3"),
    ("NATMini", "ConvNeXtTiny"),
    ("NATMini", "transformers NATMini"),
    ("NATTiny", "EfficientNetV2S"),
    ("HaloNet26T", "timm halonet26t"),
)
BATCHES = (1, 8)


def prediction(name, batch):
    """Returns a function that predicts once and returns the seconds."""
    build, side, _ = NETWORKS[name]
    model = build(weights=None)
    images = tf.random.normal((batch, side, side, 3))
    predict = tf.function(
        lambda images: model(images, training=False), autograph=False
    )

    def call():
        start = time.perf_counter()
        predict(images).numpy()
        return time.perf_counter() - start

    return call


class Peer:
    """A network in a process of another environment, called as above."""

    def __init__(self, python, name, batch):
        script = pathlib.Path(__file__).with_name("pretrained_peers.py")
        self._process = subprocess.Popen(
            [python, str(script), name, str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        lines = [self._process.stdout.readline() for _ in range(2)]
        if lines[1] != "ready\n":
            raise RuntimeError(
                f"{name} does not run: {self._process.communicate()[1]}"
            )
        self.versions = json.loads(lines[0])

    def __call__(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self):
        self._process.communicate()


def measure(functions, repeats):
    """Seconds of the calls of each function, made in turns."""
    samples = {name: [] for name in functions}
    for round_ in range(repeats + 2):
        for name, function in functions.items():
            # The threads of the last call may still wait for more work.
            time.sleep(0.01)
            seconds = function()
            if round_ >= 2:
                samples[name].append(seconds)
    return samples


def main():
    parser = common.make_parser(__doc__, "pretrained.csv", 12)
    parser.add_argument(
        "--peers-python", help="the Python of the environment of the originals"
    )
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS]
    )
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    arguments = parser.parse_args()
    machine = common.machine(
        [arguments.peers_python] if arguments.peers_python else []
    )
    machine["command"] = machine["command"].replace("DIR", "PYTHON")
    rows = []
    for batch in arguments.batches:
        functions = {
            name: prediction(name, batch) for name in arguments.networks
        }
        peers = {}
        if arguments.peers_python:
            peers = {
                name: Peer(arguments.peers_python, name, batch)
                for name in PEERS
            }
        samples = measure({**functions, **peers}, arguments.repeats)
        for name, seconds in samples.items():
            side, accuracy = (
                PEERS[name] if name in PEERS else NETWORKS[name][1:]
            )
            peer = peers.get(name)
            rows.append(
                {
                    "network": name,
                    "batch": batch,
                    "image_size": side,
                    "published_accuracy": accuracy,
                    "median_ms": round(
                        1e3 * statistics.median(seconds) / batch, 2
                    ),
                    "fastest_ms": round(1e3 * min(seconds) / batch, 2),
                    "packages": " ".join(
                        f"{package} {version}"
                        for package, version in peer.versions.items()
                    )
                    if peer
                    else "",
                    **machine,
                }
            )
            print(*list(rows[-1].values())[:6], sep="\t", flush=True)
        for name, other in RATIOS:
            if name in samples and other in samples:
                ratio = min(samples[name]) / min(samples[other])
                print(f"batch {batch}: {name} / {other}: {ratio:.2f}")
        for peer in peers.values():
            peer.close()
        keras.backend.clear_session()
    common.write_rows(arguments.csv, rows)


if __name__ == "__main__":
    main()
