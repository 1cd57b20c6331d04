"""Compares networks with what the other scripts wrote; see README.md.

python tests/reference/compare.py FOLDER
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_sasa import applications
from keras_sasa.applications import halonet_weights, nat_weights
from keras_sasa.applications.weight_conversion import TRANSPOSED


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
    (weights,) = (
        path
        for path in folder.iterdir()
        if path.name in ("pytorch_model.bin", "model.safetensors")
    )
    file_names = halonet_weights if "HaloNe" in folder.name else nat_weights

    def build():
        return getattr(applications, folder.name)(
            weights=weights,
            input_shape=images.shape[1:],
            classifier_activation=None,
            implementation=implementation,
        )

    model = build()
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
    *features, logits = levels(images)
    expected = file_names.standardize(
        {
            name.removeprefix("gradient "): value
            for name, value in results.items()
            if name.startswith("gradient ")
        }
    )
    precision = {str(value.dtype) for value in expected.values()}.pop()
    if precision != keras.config.floatx():
        set_precision(precision)
        model = build()
        set_precision("float32")
    with tf.GradientTape() as tape:
        outputs = model(images.astype(precision), training=True)
        loss = tf.reduce_sum(outputs * results["upstream"].astype(precision))
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    weights = [
        (file_names.tensor_name(layer.name, weight.name), weight.name)
        for layer in model.layers
        for weight in layer.trainable_weights
    ]
    differences = {"logits": difference(logits, results["logits"])}
    for level, map_ in enumerate(features, start=1):
        differences[f"level {level}"] = difference(
            map_, results[f"features {level}"]
        )
    worst = 0.0
    for (name, weight), gradient in zip(weights, gradients, strict=True):
        wanted = expected[name]
        if weight.endswith("kernel"):
            wanted = wanted.transpose(TRANSPOSED[wanted.ndim])
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


def set_precision(dtype):
    """Sets the type of inputs, weights and computations."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)


def difference(actual, expected, scale=None):
    """Largest difference, relative to the largest number of an array.

    That is `scale`, or `expected` without it.
    """
    largest = np.abs(expected if scale is None else scale).max()
    return float(np.abs(np.asarray(actual) - expected).max() / largest)


if __name__ == "__main__":
    main()
