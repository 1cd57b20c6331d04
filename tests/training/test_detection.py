"""Whole detectors: trained, saved and measured."""

import dataclasses
import json
import math
import pathlib
import shutil

import keras
import numpy as np
import pytest

from keras_sasa.data import DetectionData, ImageData
from keras_sasa.data import load_detection_data as load_data
from keras_sasa.training import CIFAR10
from keras_sasa.training.detection import detector
from keras_sasa.training.detection.coco_precision import (
    METRICS,
    average_precision,
)
from keras_sasa.training.detection.detector import build_detector, fit
from keras_sasa.training.detection.evaluation import detect, evaluate
from keras_sasa.training.detection.recipes import BLOOD_CELLS, COCO
from tests.support import process
from tests.support.coco_folder import coco_folder
from tests.support.detectors import build_tiny_detector
from tests.support.parameters import large

pytest.importorskip("pycocotools")
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a feature of TensorFlow"
)

NETWORK = {
    "backbone": {
        "num_blocks": (1, 1, 1, 1),
        "spatial": ("conv", "conv", "conv", "attention"),
        "width_multiplier": 0.125,
    },
    "spatial": "attention",
    "filters": 32,
    "head_depth": 1,
}
# With momentum: an optimizer that divides by small averages would amplify how
# the losses of several devices are rounded.
RECIPE = dataclasses.replace(
    COCO, epochs=2, warmup_epochs=0, batch_size=2, image_size=64
)


def truths():
    """Two images: a small, a medium and a large box; a box of a crowd."""
    boxes = np.array([[5, 5, 25, 25], [50, 50, 110, 110], [0, 0, 200, 150]])
    crowd = np.array([[10, 10, 90, 90]])
    return [
        {
            "image_id": 3,
            "boxes": boxes,
            "labels": np.array([0, 1, 1]),
            "areas": [400, 3600, 30000],
            "is_crowd": [0, 0, 0],
        },
        {
            "image_id": 0,
            "boxes": crowd,
            "labels": np.array([0]),
            "areas": [6400],
            "is_crowd": [1],
        },
    ]


def found(image, boxes=None, scores=None):
    boxes = image["boxes"] if boxes is None else boxes
    labels = image["labels"][: len(boxes)]
    scores = np.linspace(0.9, 0.5, len(boxes)) if scores is None else scores
    return {
        "image_id": image["image_id"],
        "boxes": boxes,
        "labels": labels,
        "scores": scores,
    }


def test_precision_of_perfect_and_of_no_detections():
    images = truths()
    # Detections in a crowd are neither right nor wrong.
    perfect = average_precision(images, [found(i) for i in images], 2)
    assert list(perfect) == list(METRICS)
    assert perfect == pytest.approx(dict.fromkeys(METRICS, 1.0))
    none = average_precision(
        images, [found(i, np.zeros((0, 4))) for i in images], 2
    )
    assert none == dict.fromkeys(METRICS, 0.0)


def test_precision_of_one_detection():
    (image, _) = truths()
    image = {
        name: value if name == "image_id" else value[:1]
        for name, value in image.items()
    }
    # 20 x 15 of 20 x 20: intersection over union is 0.75, which six of the ten
    # thresholds from 0.5 to 0.95 allow.
    half = np.array([[5.0, 5.0, 25.0, 20.0]])
    measured = average_precision([image], [found(image, half)], 2)
    assert measured["AP"] == pytest.approx(0.6)
    assert measured["AP50"] == measured["AP75"] == pytest.approx(1.0)
    assert math.isnan(measured["AP_large"])
    for crowd in ([], [1]):
        nothing = {**image, "is_crowd": crowd}
        with pytest.raises(ValueError, match="other than of a crowd"):
            average_precision([nothing], [], 2)


class Perfect:
    """Finds the boxes of the batches, as a perfect model would."""

    bounding_box_format = "yxyx"

    def __init__(self, batches):
        self.batches = iter(batches)

    def predict_on_batch(self, images):
        squares, examples = next(self.batches)
        np.testing.assert_array_equal(images, squares)
        boxes = examples["boxes"] * examples["scale"][:, None, None]
        labels = examples["labels"]
        return {
            "boxes": np.where(
                labels[..., None] < 0, -1, boxes[..., [1, 0, 3, 2]]
            ),
            "scores": np.where(labels < 0, 0.0, 0.9),
            "labels": labels,
        }


def test_evaluation_is_in_pixels_of_the_originals(tmp_path):
    """The whole set counts, including a partial last batch."""
    from keras_sasa.data.detection.batches import letterboxed_batches

    data = load_data(coco_folder(tmp_path / "set", (3, 5)))
    model = Perfect(letterboxed_batches(data, 64, 2).as_numpy_iterator())
    measured = evaluate(model, data, RECIPE)
    assert measured["AP"] == pytest.approx(1.0)
    assert not list(model.batches)
    with pytest.raises(ValueError, match="a box to measure.* 0 images"):
        evaluate(model, data, RECIPE, data.train.take(0))


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that several tests read and none changes."""

    data: DetectionData
    folder: pathlib.Path
    model: keras.Model
    history: list


def train(network, folder, devices=None, resume=False):
    """Trains `NETWORK` or, much faster, the tiny detector."""
    with pytest.MonkeyPatch.context() as patch:
        if network == "tiny":
            patch.setattr(detector, "build_detector", build_tiny_detector)
        data = load_data(folder / "set")
        model, history = fit(
            NETWORK,
            data,
            RECIPE,
            folder / "run",
            devices,
            resume=resume,
            verbose=0,
        )
    return Trained(data, folder, model, history)


@pytest.fixture(scope="module", params=["tiny", large("resnet")])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    coco_folder(folder / "set", (6, 3))
    return train(request.param, folder)


def test_fit(trained):
    assert len(trained.history) == 2
    columns = {"loss", "val_loss", "val_AP", "val_AP50"}
    assert columns <= trained.history[0].keys()


def test_is_saved(trained):
    saved = keras.saving.load_model(trained.folder / "run" / "model.keras")
    images = [
        np.full((50, 90, 3), 40, "uint8"),
        np.full((64, 20, 3), 90, "uint8"),
    ]
    for one, other, image in zip(
        detect(trained.model, images, 64),
        detect(saved, images, 64),
        images,
        strict=True,
    ):
        keras.tree.map_structure(np.testing.assert_array_equal, one, other)
        height, width = image.shape[:2]
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= [width, height, width, height]).all()
        assert len(one["boxes"]) == len(one["scores"]) == len(one["labels"])


def test_resumed_when_done(trained):
    network = trained.folder.name.rstrip("0123456789")
    again = train(network, trained.folder, resume=True)
    assert again.history == trained.history
    for one, other in zip(
        trained.model.weights, again.model.weights, strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_batch_that_is_larger_than_the_images(tmp_path, monkeypatch):
    monkeypatch.setitem(fit.__globals__, "train", lambda task, *_: task)
    data = load_data(coco_folder(tmp_path / "set", images=(4, 3)))
    with pytest.warns(UserWarning, match="`batch_size` is reduced from 8 to 4"):
        task = fit(NETWORK, data, BLOOD_CELLS, tmp_path / "run")
    assert task.recipe.batch_size == 4 and task.steps_per_epoch == 1


def test_several_processes_are_refused(tmp_path):
    from keras_sasa.training import Devices

    data = load_data(coco_folder(tmp_path / "set"))
    devices = Devices("data_parallel", 2, shard=(0, 2))
    with pytest.raises(ValueError, match="by one process only.*process 0 of 2"):
        fit(NETWORK, data, RECIPE, tmp_path / "run", devices)
    model = build_detector(NETWORK, data, RECIPE)
    assert model.input_shape == (None, 64, 64, 3)


@pytest.mark.parametrize(
    "split, crowd, message",
    [
        ("train", True, "to learn from, other than of a crowd.* 3 images with"),
        ("val", True, "to measure detections by, other than of a crowd"),
        ("val", False, "to measure detections by. Received: 3 images without"),
    ],
)
def test_nothing_to_learn_or_to_measure(tmp_path, split, crowd, message):
    """The error comes before the first step, not after the first epoch."""
    folder = coco_folder(tmp_path / "set", (3, 3))
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    if crowd:
        for annotation in content["annotations"]:
            annotation["iscrowd"] = 1
    else:
        content["annotations"] = []
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="3 of 3 categories have no box"):
        data = load_data(folder)
    with pytest.raises(ValueError, match=message):
        fit(NETWORK, data, RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        (
            {"bounding_box_format": "xywh"},
            ValueError,
            "must be 'xyxy', the format .*bounding_box_format='xywh'",
        ),
        ({"spacial": "conv"}, TypeError, "spacial"),
        ({"backbone": {"num_blocks": (1,), "width": 3}}, TypeError, "width"),
        ({"backbone": None}, ValueError, "'backbone'. Received: None"),
    ],
)
def test_wrong_networks(tmp_path, changes, error, message):
    data = load_data(coco_folder(tmp_path / "set", (3, 3)))
    with pytest.raises(error, match=message):
        fit({**NETWORK, **changes}, data, RECIPE, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"network": "resnet50"}, "`network` must be a dict.*='resnet50' of"),
        ({"data": ImageData(None, None, [])}, "`data` must be a `DetectionD"),
        ({"recipe": "coco"}, "`recipe` must be a .*Recipe.*'coco' of type str"),
        ({"recipe": CIFAR10}, "'scale_jitter'.* augmentation='shift'"),
        (
            {"recipe": dataclasses.replace(RECIPE, label_smoothing=0.1)},
            "`label_smoothing` must be 0 .*=0.1",
        ),
        ({"devices": "mirrored"}, "`devices` must be .*make_devices"),
    ],
)
def test_wrong_kinds_of_arguments(tmp_path, changes, message):
    arguments = {
        "network": NETWORK,
        "data": DetectionData(None, None, []),
        "recipe": RECIPE,
    }
    with pytest.raises(ValueError, match=message):
        fit(**{**arguments, **changes}, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@on_tensorflow
def test_mirrored_steps():
    """Two virtual CPUs, which see different numbers of boxes, as one."""
    program = """
    from tests.support.detectors import build_tiny_detector, tiny_scenes
    from tests.training.test_detection import RECIPE

    images, labels = tiny_scenes()
    labels["labels"][1] = -1
    losses = []
    for name in ("none", "mirrored"):
        keras.utils.set_random_seed(0)
        model = build_tiny_detector(None, None, RECIPE, make_devices(name))
        model.run_eagerly = True
        steps = [model.train_on_batch(images, labels) for _ in range(2)]
        steps.append(model.test_on_batch(images, labels))
        losses.append([float(loss) for loss in steps])
    print(json.dumps(losses))
    """
    (alone, mirrored), _ = process.run(TWO_DEVICES + program)
    assert alone[0] > alone[1]
    assert mirrored == pytest.approx(alone, rel=1e-4)


@pytest.mark.large
@on_tensorflow
def test_mirrored_strategy(trained, tmp_path):
    """Two virtual CPUs, which see different numbers of boxes, as one."""
    network = trained.folder.name.rstrip("0123456789")
    shutil.copytree(trained.folder / "set", tmp_path / "set")
    mirrored, _ = process.run(TWO_DEVICES + PROGRAM, tmp_path, network)
    assert len(mirrored) == 2
    for one, other in zip(trained.history, mirrored, strict=True):
        for name, value in one.items():
            # Moving variances of a few pixels normalize the validation images,
            # and sums over replicas round them differently.
            rel = 1e-4 if name == "loss" else 1e-3
            assert other[name] == pytest.approx(value, abs=1e-5, rel=rel)


TWO_DEVICES = """
    import json, pathlib, sys
    sys.modules["tensorboard"] = None
    import keras
    import tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    from keras_sasa.training import make_devices
"""
PROGRAM = """
    from tests.training.test_detection import train

    folder, network = sys.argv[1:]
    devices = make_devices("mirrored")
    print(json.dumps(train(network, pathlib.Path(folder), devices).history))
"""
