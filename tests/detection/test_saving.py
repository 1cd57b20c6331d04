"""Detectors that were saved, loaded and cloned are what they were."""

import inspect
import json

import keras
import numpy as np
import pytest

from keras_sasa.detection import RetinaNet
from keras_sasa.detection.detections import Detections
from tests.support.detectors import tiny_backbone, tiny_detector, tiny_scenes
from tests.support.parameters import large

# All arguments but the backbone, none at its default.
ARGUMENTS = {
    "num_classes": 2,
    "spatial": "attention",
    "bounding_box_format": "xywh",
    "filters": 48,
    "features": ("c3", "c4", "c5"),
    "max_detections": 7,
    "score_threshold": 0.3,
    "iou_threshold": 0.4,
    "implementation": "tiled",
    "head_depth": 1,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "anchor_scales": (1.0, 1.5),
    "aspect_ratios": (1.0,),
    "name": "mine",
    "trainable": False,
}
# Those that are seen in the graph alone.
IN_THE_GRAPH = {
    "spatial",
    "filters",
    "features",
    "implementation",
    "head_depth",
}


def settings(model):
    """Returns class, dtype policy and trainability of all with weights."""
    return [
        (
            type(layer).__name__,
            layer.dtype_policy.name,
            layer.trainable,
            len(layer.trainable_weights),
        )
        for layer in model._flatten_layers()
        if layer.weights
    ]


def reloaded(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def test_every_argument_is_saved():
    parameters = inspect.signature(RetinaNet).parameters
    assert set(ARGUMENTS) == set(parameters) - {"backbone"}
    for name, value in ARGUMENTS.items():
        assert value != parameters[name].default, name
    model = RetinaNet(tiny_backbone(), **ARGUMENTS)
    config = json.loads(json.dumps(model.get_config()))
    again = RetinaNet.from_config(config)
    for name in set(ARGUMENTS) - IN_THE_GRAPH:
        assert getattr(model, name) == ARGUMENTS[name], name
        assert getattr(again, name) == ARGUMENTS[name], name
    assert json.loads(json.dumps(again.get_config())) == config
    assert settings(again) == settings(model)
    parameters = inspect.signature(Detections).parameters
    options = Detections().get_config()
    assert set(parameters) - {"kwargs"} <= set(options)


@pytest.mark.parametrize(
    "before, after", [("mixed_bfloat16", "float32"), ("float32", "float16")]
)
def test_loading_restores_dtype_policies(before, after, tmp_path):
    keras.config.set_dtype_policy(before)
    model = tiny_detector()
    model.get_layer("c4").dtype_policy = "float32"
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy(after)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert settings(loaded) == settings(model)
    images, _ = tiny_scenes()
    for name, value in model(images).items():
        assert value.dtype == "float32"
        np.testing.assert_array_equal(value, loaded(images)[name])


def test_loading_restores_what_is_frozen(tmp_path):
    model = tiny_detector()
    model.backbone.trainable = False
    model.get_layer("c5").trainable = True
    model.get_layer("box_head").trainable = False
    model.get_layer("classification_head").layers[0].trainable = False
    normalization = model.get_layer("c3")
    normalization.momentum = 0.5
    on_tensorflow = keras.backend.backend() == "tensorflow"
    normalization.synchronized = on_tensorflow
    model.score_threshold = 0.25
    loaded = reloaded(model, tmp_path)
    assert settings(loaded) == settings(model)
    assert 0 < len(model.trainable_weights) < len(model.weights) - 10
    again = loaded.get_layer("c3")
    assert (again.momentum, again.synchronized) == (0.5, on_tensorflow)
    assert loaded.score_threshold == 0.25
    assert not loaded.get_layer("box_head").trainable
    # The backbone is that of the detector.
    loaded.backbone.trainable = True
    loaded.backbone.trainable = False
    assert not loaded.get_layer("c5").trainable
    assert loaded.get_layer("pyramid_p3_lateral").trainable


def test_clones_make_boxes():
    model = tiny_detector(score_threshold=0.01, bounding_box_format="yxyx")
    model.compile("sgd", run_eagerly=True)
    clone = keras.models.clone_model(model)
    assert isinstance(clone, RetinaNet)
    assert clone.bounding_box_format == "yxyx"
    clone.set_weights(model.get_weights())
    images, labels = tiny_scenes()
    for name, value in model.predict_on_batch(images).items():
        np.testing.assert_array_equal(
            value, clone.predict_on_batch(images)[name]
        )
    # Compiled as the original.
    assert clone.test_on_batch(images, labels) == pytest.approx(
        model.test_on_batch(images, labels)
    )


def test_clones_with_other_layers_make_boxes():
    model = tiny_detector()

    def clone_layer(layer):
        config = layer.get_config()
        if layer.name == "c4":
            config["activation"] = "relu"
        return type(layer).from_config(config)

    clone = keras.models.clone_model(model, clone_function=clone_layer)
    assert isinstance(clone, RetinaNet)
    assert clone.get_layer("c4").activation is keras.activations.relu


@pytest.mark.parametrize("floatx", ["float16", large("float64")])
def test_another_floatx(floatx, tmp_path):
    model = tiny_detector()
    model.compile("sgd")
    images, labels = tiny_scenes()
    expected = model.test_on_batch(images, labels)
    model.save(tmp_path / "model.keras")
    keras.config.set_floatx(floatx)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.test_on_batch(images, labels) == pytest.approx(
        expected, rel=1e-3
    )
    assert loaded.predict_on_batch(images)["boxes"].dtype == "float32"


def test_files_of_arguments_are_still_read():
    # As version 0.1.0 wrote them.
    model = tiny_detector(head_depth=4)
    config = {
        "name": "old",
        "trainable": True,
        "backbone": keras.saving.serialize_keras_object(model.backbone),
        "num_classes": 3,
        "spatial": "conv",
        "bounding_box_format": "xywh",
        "filters": 16,
        "features": ["c3", "c4", "c5"],
        "max_detections": 100,
        "score_threshold": 0.05,
        "iou_threshold": 0.5,
        "implementation": None,
    }
    old = RetinaNet.from_config(config)
    assert old.bounding_box_format == "xywh"
    assert [w.shape for w in old.weights] == [w.shape for w in model.weights]


def test_graphs_of_something_else_are_refused():
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match="must end in its `RawOutputs`"):
        RetinaNet(backbone.inputs[0], backbone.outputs[0])


def test_legacy_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="saved as a `.keras` file.*old.h5"):
        tiny_detector().save(tmp_path / "old.h5")
    with pytest.raises(ValueError, match="saved as a `.keras` file"):
        keras.saving.save_model(tiny_detector(), tmp_path / "old.h5")


@pytest.mark.parametrize("name", ["spacial", "iou_treshold", "dtype"])
def test_misspelled_arguments(name):
    with pytest.raises(TypeError, match=f"unexpected keyword.*'{name}'"):
        tiny_detector(**{name: "float32"})
