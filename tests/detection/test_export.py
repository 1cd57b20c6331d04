"""Exported detectors make the boxes of `predict`, without this package."""

import keras
import numpy as np
import pytest

from tests.support.detectors import tiny_detector

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow exports", allow_module_level=True)

import tensorflow as tf


@pytest.fixture(scope="module")
def detector():
    model = tiny_detector(
        side=None, bounding_box_format="xywh", max_detections=20
    )
    for name in ("classification_head", "box_head"):
        # Nearly constant before any training.
        kernel = model.get_layer(name).layers[-1].kernel
        kernel.assign(30 * kernel)
    return model


@pytest.fixture(scope="module")
def batches():
    random = np.random.default_rng(0)
    return [
        random.normal(size=shape).astype("float32")
        for shape in ((2, 64, 64, 3), (1, 40, 96, 3))
    ]


@pytest.fixture(scope="module")
def expected(detector, batches):
    found = [detector.predict_on_batch(images) for images in batches]
    for detections in found:
        assert (detections["scores"] > 0).sum() >= 10
    return found


def assert_same_detections(actual, expected):
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=1e-3)


def test_detection_model_saves_and_predicts(
    detector, batches, expected, tmp_path
):
    model = detector.detection_model()
    assert {name: x.shape for name, x in model.output.items()} == {
        "boxes": (None, 20, 4),
        "scores": (None, 20),
        "labels": (None, 20),
    }
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for images, detections in zip(batches, expected, strict=True):
        assert_same_detections(loaded(images), detections)


def test_saved_model(detector, batches, expected, tmp_path):
    path = str(tmp_path / "detector")
    detector.detection_model().export(
        path, format="tf_saved_model", verbose=False
    )
    signature = tf.saved_model.load(path).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    for images, detections in zip(batches, expected, strict=True):
        actual = signature(**{name: tf.constant(images)})
        assert_same_detections(actual, detections)


def first_image(expected):
    return {name: values[:1] for name, values in expected[0].items()}


@pytest.mark.large
def test_litert(detector, batches, expected, tmp_path):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    path = str(tmp_path / "detector.tflite")
    detector.detection_model().export(
        path,
        format="litert",
        verbose=False,
        input_signature=[keras.InputSpec("float32", (1, 64, 64, 3))],
    )
    run = interpreters.Interpreter(path).get_signature_runner("serving_default")
    (name,) = run.get_input_details()
    assert_same_detections(run(**{name: batches[0][:1]}), first_image(expected))


@pytest.mark.large
@pytest.mark.filterwarnings("ignore:.*`np.object`:FutureWarning")
def test_onnx(detector, batches, expected, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = str(tmp_path / "detector.onnx")
    detector.detection_model().export(
        path,
        format="onnx",
        verbose=False,
        input_signature=[keras.InputSpec("float32", (1, 64, 64, 3))],
    )
    session = onnxruntime.InferenceSession(path)
    outputs = session.run(None, {session.get_inputs()[0].name: batches[0][:1]})
    actual = dict(zip(("boxes", "labels", "scores"), outputs, strict=True))
    assert_same_detections(actual, first_image(expected))
