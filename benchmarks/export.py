"""Size, milliseconds and accuracy of exported models in their own runtimes.

    python benchmarks/export.py

A network trained on digits (accuracy on the images held out), SASA-ResNet-26 at
224 pixels and a small detector of attention at 128 pixels (both with random
weights): Keras (a TensorFlow graph, with the native kernel where it runs),
SavedModel, LiteRT, LiteRT with weights of 8 bits, LiteRT and ONNX quantized in
full, with activations of 8 or 16 bits and calibrated by images to train with
(random ones for random weights), ONNX. One image a call, as
many threads as cores, called in turns; a row has the median and the fastest
call, as other users of a shared machine only ever slow a call down, and the
largest difference from Keras. Takes `pip install tf2onnx onnxruntime
ai-edge-litert`. Rows go to `benchmarks/results/export.csv`.
"""

import dataclasses
import os
import pathlib
import statistics
import tempfile

import common
import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from onnxruntime import quantization

from keras_sasa import applications, detection, training
from keras_sasa.data import load_data

CALIBRATION_IMAGES = 200


def quantized(operations):
    """Options that quantize activations, too; images are added later."""
    return {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "target_spec": {"supported_ops": [operations]},
    }


EXPORTS = {
    "SavedModel": ("tf_saved_model", "saved_model", {}),
    "LiteRT": ("litert", "float.tflite", {}),
    "LiteRT int8": (
        "litert",
        "int8.tflite",
        {"optimizations": [tf.lite.Optimize.DEFAULT]},
    ),
    "LiteRT full int8": (
        "litert",
        "full_int8.tflite",
        quantized(tf.lite.OpsSet.TFLITE_BUILTINS_INT8),
    ),
    "LiteRT full 16x8": (
        "litert",
        "full_16x8.tflite",
        quantized(
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ),
    ),
    "ONNX": ("onnx", "model.onnx", {}),
    # Quantized from the file before it.
    "ONNX full int8": ("onnx", "quantized.onnx", {}),
}


def digits(folder, epochs):
    """A trained network, images held out, their labels, others to calibrate."""
    data = load_data("digits")
    recipe = dataclasses.replace(
        training.DIGITS, epochs=epochs, warmup_epochs=epochs / 10
    )
    model, _ = training.fit(
        applications.CONFIGURATIONS["digits_attention"], data, recipe, folder
    )
    images, labels = (
        np.concatenate(arrays)
        for arrays in zip(*data.validation.batch(100), strict=True)
    )
    others, _ = next(iter(data.train.batch(CALIBRATION_IMAGES)))
    others = np.asarray(others).astype("float32")
    return model, images.astype("float32"), labels, others


def random_images(side):
    random = np.random.default_rng(0)
    return random.normal(size=(1, side, side, 3)).astype("float32")


def resnet(folder, epochs):
    images = random_images(224)
    return applications.SASAResNet26(), images, None, images


def detector(folder, epochs):
    backbone = applications.ResNet(
        (1, 1, 1, 1),
        width_multiplier=0.25,
        include_top=False,
        input_shape=(128, 128, 3),
    )
    model = detection.RetinaNet(backbone, 3, "attention", filters=32)
    images = random_images(128)
    return model, images, None, images


NETWORKS = {
    "digits_attention": digits,
    "SASAResNet26": resnet,
    "detector": detector,
}


def quantize_onnx(source, target, images):
    """Quantizes an ONNX file in full, calibrated by images."""
    (read,) = onnxruntime.InferenceSession(source).get_inputs()

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{read.name: image[None]} for image in images])

        def get_next(self):
            return next(self.batches, None)

    quantization.quantize_static(source, target, Reader())


def sorted_arrays(outputs):
    return [np.asarray(outputs[name]) for name in sorted(outputs)]


def in_keras(model):
    predict = tf.function(
        lambda images: keras.tree.flatten(model(images, training=False)),
        autograph=False,
    )
    return lambda images: [output.numpy() for output in predict(images)]


def in_runtime(name, path):
    """Returns a function from images to a list of arrays."""
    if name == "SavedModel":
        signature = tf.saved_model.load(path).signatures["serving_default"]
        (key,) = signature.structured_input_signature[1]
        return lambda images: sorted_arrays(
            signature(**{key: tf.constant(images)})
        )
    threads = len(os.sched_getaffinity(0))
    if name.startswith("ONNX"):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options)
        (read,) = session.get_inputs()
        return lambda images: session.run(None, {read.name: images})
    interpreter = Interpreter(str(path), num_threads=threads)
    run = interpreter.get_signature_runner("serving_default")
    (key,) = run.get_input_details()
    return lambda images: sorted_arrays(run(**{key: images}))


def mib(path):
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def measure(network, folder, options):
    """Returns a row, without the machine, for each format."""
    model, images, labels, others = NETWORKS[network](
        folder / "run", options.epochs
    )
    # One image a call, all for the accuracy.
    signature = [keras.InputSpec("float32", (1, *images.shape[1:]))]
    functions = {"Keras": in_keras(model)}
    expected = functions["Keras"](images[:1])
    model.save(folder / "model.keras")
    sizes = {"Keras": mib(folder / "model.keras")}
    for name, (kind, file, kwargs) in EXPORTS.items():
        path = folder / file
        if name == "ONNX full int8":
            quantize_onnx(folder / EXPORTS["ONNX"][1], path, others)
        else:
            if "target_spec" in kwargs:
                kwargs = {
                    **kwargs,
                    "representative_dataset": lambda: (
                        [image[None]] for image in others
                    ),
                }
            model.export(
                path,
                format=kind,
                input_signature=signature,
                verbose=False,
                **kwargs,
            )
        sizes[name] = mib(path)
        functions[name] = in_runtime(name, path)
        print(f"{network} {name} exported", flush=True)
    samples = common.interleaved_samples(
        {
            name: lambda function=function: function(images[:1])
            for name, function in functions.items()
        },
        options.repeats,
    )
    rows = []
    for name, function in functions.items():
        accuracy = ""
        if labels is not None:
            found = [function(image[None])[0].argmax() for image in images]
            accuracy = round(100 * float(np.mean(found == labels)), 2)
        rows.append(
            {
                "network": network,
                "image": "x".join(map(str, images.shape[1:])),
                "parameters": model.count_params(),
                "format": name,
                "mib": round(sizes[name], 3),
                "median_ms": round(1e3 * statistics.median(samples[name]), 3),
                "fastest_ms": round(1e3 * min(samples[name]), 3),
                "accuracy": accuracy,
                "max_abs_difference": max(
                    float(f"{np.abs(one - other).max():.1e}")
                    for one, other in zip(
                        function(images[:1]), expected, strict=True
                    )
                ),
            }
        )
    return rows


def main():
    parser = common.make_parser(__doc__, "export.csv", 30)
    parser.add_argument("--epochs", type=int, default=training.DIGITS.epochs)
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS]
    )
    options = parser.parse_args()
    rows = []
    for network in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(network, pathlib.Path(folder), options):
                rows.append({**row, **common.machine()})
                print(*row.values(), sep="\t", flush=True)
    common.write_rows(options.csv, rows)


if __name__ == "__main__":
    main()
