"""The child process of `pretrained.py`: one network of PyTorch, on demand.

    PEERS_PYTHON benchmarks/pretrained_peers.py NETWORK BATCH

It prints the versions it uses, then `ready`. For each line of its input, it
predicts once and prints the seconds that this took.
"""

import importlib.metadata
import json
import os
import pathlib
import sys
import time

# Where `requirements-peers.txt` puts the NATTEN that is compiled with -O3.
sys.path.insert(0, f"{sys.prefix}-natten-O3")
sys.path.insert(
    0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/reference")
)

import torch  # noqa: E402


def nat_mini():
    # It gives torch.cuda and NATTEN the names that they lack.
    from make_references import NETWORKS

    build, config = NETWORKS["NATMini"]
    return build(config), 224


def halonet26t():
    import timm

    return timm.create_model("halonet26t"), 256


NETWORKS = {
    "transformers NATMini": (nat_mini, ("transformers", "natten")),
    "timm halonet26t": (halonet26t, ("timm",)),
}


def main():
    name, batch = sys.argv[1:]
    # Only numbers belong on the output, which warnings would disturb.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    make, packages = NETWORKS[name]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model, side = make()
    model.eval()
    images = torch.randn(int(batch), 3, side, side)
    versions = {
        package: importlib.metadata.version(package)
        for package in ("torch", *packages)
    }
    print(json.dumps(versions), "ready", sep="\n", file=answers, flush=True)
    with torch.inference_mode():
        for _ in sys.stdin:
            start = time.perf_counter()
            model(images)
            print(time.perf_counter() - start, file=answers, flush=True)


if __name__ == "__main__":
    main()
