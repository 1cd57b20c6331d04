"""Evaluates a saved classifier: accuracies and a confusion matrix.

    python examples/evaluate.py runs/digits/model.keras
    python examples/evaluate.py runs/cifar10/best.keras --data DIR

The file of the model may be anywhere: it describes how to prepare images. The
script prints top-1 and top-5 accuracy, the last line as JSON, and writes
`confusion.png` beside the model (rows are the true classes; each row sums up to
100 %).
"""

import argparse
import json
import pathlib

import keras
import numpy as np

from keras_sasa import command_line
from keras_sasa.data import evaluation_batches
from keras_sasa.training import load_trained
from keras_sasa.visualize import plot_confusion


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("model", type=pathlib.Path, help="a .keras file of a training run")
    add(
        "--data",
        default="digits",
        help="digits, a folder, or tfds:NAME (default digits)",
    )
    command_line.add_selection(parser)
    add(
        "--batch-size",
        type=command_line.positive,
        default=64,
        help="images at a time (default 64)",
    )
    options = parser.parse_args(argv)

    model, images = load_trained(options.model, "classifier")
    data = command_line.load_selected(options)
    command_line.check_fits(data, images)
    batches = evaluation_batches(data, images, options.batch_size)
    results = evaluate(model, batches)
    picture = options.model.with_name("confusion.png")
    confusion = results.pop("confusion")
    plot_confusion(confusion, data.class_names).savefig(picture, dpi=150)
    print(f"{results['images']:,} images of {options.data}")
    print(f"written: {picture}")
    print(json.dumps(results))


def evaluate(model, batches):
    """Returns accuracies and the confusion matrix over all real images."""
    truth, scores = [], []
    for images, labels, weights in batches.as_numpy_iterator():
        real = weights > 0
        predicted = np.asarray(model.predict_on_batch(images), "float32")
        truth.append(labels[real].argmax(-1))
        scores.append(predicted[real])
    truth, scores = np.concatenate(truth), np.concatenate(scores)
    classes = scores.shape[-1]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (truth, scores.argmax(-1)), 1)
    results = {
        "images": len(truth),
        "accuracy": float(confusion.trace() / len(truth)),
        "confusion": confusion,
    }
    if classes > 5:
        top_5 = keras.ops.in_top_k(truth, scores, 5)
        results["top_5_accuracy"] = float(np.mean(np.asarray(top_5)))
    return results


if __name__ == "__main__":
    command_line.run(main)
