"""Compares networks with what `make_references.py` wrote; see README.md.

python tests/reference/compare.py FOLDER
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_sasa import applications
from keras_sasa.applications import nat_weights


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--implementation")
    options = parser.parse_args()
    failed = False
    for folder in sorted(path for path in options.folder.iterdir()):
        for path in sorted(folder.glob("results_*.npz")):
            with np.load(path) as results:
                failed |= compare(folder, dict(results), options.implementation)
    if failed:
        raise SystemExit("At least one difference is above 1e-4.")


def compare(folder, results, implementation):
    """Prints the largest differences; returns whether one is above 1e-4."""
    images = results["images"]
    model = getattr(applications, folder.name)(
        weights=folder / "pytorch_model.bin",
        input_shape=images.shape[1:],
        classifier_activation=None,
        implementation=implementation,
    )
    levels = keras.Model(
        model.input,
        [
            *(
                model.get_layer(name).output
                for name in applications.GROUP_OUTPUTS
            ),
            model.output,
        ],
    )
    with tf.GradientTape() as tape:
        *features, logits = levels(images)
        loss = tf.reduce_sum(logits * results["upstream"])
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    expected = nat_weights.standardize(
        {
            name.removeprefix("gradient "): value
            for name, value in results.items()
            if name.startswith("gradient ")
        }
    )
    names = [
        nat_weights.tensor_name(layer.name, weight.name)
        for layer in model.layers
        for weight in layer.trainable_weights
    ]
    differences = {"logits": difference(logits, results["logits"])}
    for level, map_ in enumerate(features, start=1):
        differences[f"level {level}"] = difference(
            map_, results[f"features {level}"]
        )
    worst = 0.0
    for name, gradient in zip(names, gradients, strict=True):
        wanted = expected[name]
        if wanted.ndim == 4 and not name.endswith("rpb"):
            wanted = wanted.transpose(2, 3, 1, 0)
        elif wanted.ndim == 2:
            wanted = wanted.T
        # The softmax cancels the biases of keys: their gradients are zero, and
        # what is left is rounding.
        scale = expected[name.replace(".key.bias", ".query.bias")]
        worst = max(worst, difference(gradient, wanted, scale))
    differences["gradients"] = worst
    print(
        folder.name,
        "x".join(map(str, images.shape[1:3])),
        ", ".join(f"{key} {value:.1e}" for key, value in differences.items()),
    )
    return max(differences.values()) > 1e-4


def difference(actual, expected, scale=None):
    """Largest difference, relative to the largest number of an array.

    That is `scale`, or `expected` without it.
    """
    largest = np.abs(expected if scale is None else scale).max()
    return float(np.abs(np.asarray(actual) - expected).max() / largest)


if __name__ == "__main__":
    main()
