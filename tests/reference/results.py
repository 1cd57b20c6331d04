"""Writes what an original network computes, for `compare.py`."""

import numpy as np


def write_results(path, images, logits, upstream, features, model):
    """Writes the results for one size of images.

    Args:
        path: Of an `.npz` file.
        images: Array `(batch, channels, height, width)`.
        logits: Array `(batch, classes)`.
        upstream: Array `(batch, classes)`, gradients of the logits.
        features: Dict from the number of a level to its map, channels last.
        model: PyTorch's module, whose weights have gradients.
    """
    np.savez(
        path,
        images=images.transpose(0, 2, 3, 1),
        logits=logits,
        upstream=upstream,
        **{f"features {level}": map_ for level, map_ in features.items()},
        **{
            f"gradient {name}": weight.grad.numpy()
            for name, weight in model.named_parameters()
        },
    )
    print(path, "written", flush=True)
