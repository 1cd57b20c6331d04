"""Images with boxes: reading, augmenting, batching, and clear errors."""

import dataclasses
import functools
import operator

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sasa.data import load_detection_data as load_data
from keras_sasa.data import resizing
from keras_sasa.data.augmentation.scale_jitter import scale_jitter
from keras_sasa.data.corrupt_images import check_readable
from keras_sasa.data.detection import batches, box_transforms
from keras_sasa.data.detection.digit_scenes import make_scenes
from keras_sasa.training import DIGITS
from keras_sasa.training.detection.recipes import COCO, DIGIT_SCENES
from tests.support.coco_folder import NAMES, coco_folder

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="tf.data is the same on every backend",
)

SMALL = dataclasses.replace(
    COCO, epochs=2, warmup_epochs=0, batch_size=2, image_size=64
)


def assert_boxes_on_objects(image, boxes, labels, slack=2):
    """The channel of a label is bright in its box, and nowhere else.

    Resizing blurs borders; `slack` pixels of them are not looked at.
    """
    bright = np.asarray(image) > 150
    outside = bright.copy()
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        left, top = int(np.ceil(x1)) + slack, int(np.ceil(y1)) + slack
        right, bottom = int(x2) - slack, int(y2) - slack
        assert bright[top:bottom, left:right, label].all()
        outside[
            max(int(y1) - slack, 0) : int(y2) + slack + 1,
            max(int(x1) - slack, 0) : int(x2) + slack + 1,
            label,
        ] = False
    assert not outside.any()


def scene():
    """An image, 60 x 90, with three rectangles."""
    image = np.zeros((60, 90, 3), "uint8")
    boxes = np.array(
        [[5, 8, 35, 28], [50, 5, 85, 25], [40, 30, 70, 58]], "float32"
    )
    for label, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2, label] = 255
    return image, boxes


def test_letterbox_and_back():
    image, boxes = scene()
    for side, scale in ((180, 2.0), (45, 0.5)):
        square, found = resizing.letterbox(tf.constant(image), side)
        assert square.shape == (side, side, 3) and square.dtype == "uint8"
        assert float(found) == scale
        assert_boxes_on_objects(square, boxes * scale, range(3))
        back = resizing.undo_letterbox(boxes * scale, found, 60, 90)
        np.testing.assert_allclose(back, boxes, atol=1e-4)
    outside = [[-4.0, -4.0, 1000.0, 1000.0]]
    cut = resizing.undo_letterbox(outside, 0.5, 60, 90)
    np.testing.assert_array_equal(cut, [[0, 0, 90, 60]])


def test_jitter_and_flip_keep_boxes_on_their_objects():
    image, boxes = scene()
    sizes, flipped = set(), 0
    for number in range(40):
        seed = tf.constant([7, number])
        square, moved = scale_jitter(
            tf.constant(image), tf.constant(boxes), 72, seed
        )
        inside, is_visible = box_transforms.clip_to_square(moved, 72)
        turned, again = box_transforms.random_flip(square, inside, seed)
        flipped += not np.array_equal(turned, square)
        sizes.add(round(float(moved[0, 2] - moved[0, 0])))
        # Hardly visible objects do not count, but are still bright.
        assert_boxes_on_objects(turned, again.numpy(), range(3))
        assert is_visible.shape == (3,)
    # From 0.8 to 1.2 times 30 pixels of 90, times 72.
    assert min(sizes) >= 19 and max(sizes) <= 29 and len(sizes) > 5
    assert 10 < flipped < 30


def test_visible():
    boxes = tf.constant(
        [[-30, 0, 10, 8], [-31, 0, 10, 8], [2, 2, 2, 9], [60, 70, 70, 80]],
        tf.float32,
    )
    inside, is_visible = box_transforms.clip_to_square(boxes, 64)
    # A quarter, less than one, no area, beyond the border.
    assert is_visible.numpy().tolist() == [True, False, False, False]
    assert inside[0].numpy().tolist() == [0, 0, 10, 8]


def test_coco_folder(tmp_path):
    data = load_data(coco_folder(tmp_path / "set"))
    assert tuple(data.class_names) == NAMES and data.reads_files
    assert (data.num_train, data.num_validation) == (4, 3)
    numbers = []
    for example in data.train.as_numpy_iterator():
        image = tf.io.decode_png(tf.io.read_file(example["image"]))
        assert_boxes_on_objects(image, example["boxes"], example["labels"], 0)
        numbers.append(len(example["labels"]))
    assert numbers == [0, 1, 2, 2]


def test_batches(tmp_path):
    data = load_data(coco_folder(tmp_path / "set", (5, 3)))
    made = list(
        batches.training_batches(data, SMALL, seed=3).as_numpy_iterator()
    )
    assert len(made) == 4
    for images, labels in made:
        assert images.shape == (2, 64, 64, 3) and images.dtype == "uint8"
        assert labels["boxes"].shape == (2, 8, 4)
        for image, boxes, classes in zip(
            images, labels["boxes"], labels["labels"], strict=True
        ):
            assert (boxes[classes < 0] == -1).all()
            kept = classes >= 0
            np.testing.assert_array_less(boxes[kept, :2], boxes[kept, 2:])
            assert image.max() > 100 or not kept.any()

    again = batches.training_batches(data, SMALL, seed=3, initial_epoch=1)
    for one, other in zip(made[2:], again.as_numpy_iterator(), strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, one, other)


def test_batches_are_as_wide_as_their_fullest_image(tmp_path):
    """The boxes of one image do not widen the batches of all others."""

    def crowd_in(content):
        first = {a["image_id"]: a for a in content["annotations"]}
        content["annotations"] = [
            {**first[100 + image], "id": 100 * image + i}
            for image, number in enumerate((0, 8, 9, 40))
            for i in range(number)
        ]

    folder = coco_folder(tmp_path / "set", (4, 4), crowd_in)
    with pytest.warns(UserWarning, match="categories have no box"):
        data = load_data(folder)
    one = dataclasses.replace(SMALL, batch_size=1, epochs=1)
    for made in (
        batches.training_batches(data, one),
        batches.letterboxed_batches(data, 64, 1),
    ):
        numbers = []
        for _, labels in made.as_numpy_iterator():
            (found,), (boxes,) = labels["labels"], labels["boxes"]
            number = np.sum(found >= 0)
            assert (found[number:] == -1).all() and (boxes[number:] == -1).all()
            assert (boxes[:number] >= 0).all()
            numbers.append((number, len(found), len(boxes)))
        assert sorted(numbers) == [
            (0, 8, 8),
            (8, 8, 8),
            (9, 16, 16),
            (40, 64, 64),
        ]


def test_batches_of_the_images_held_out(tmp_path):
    data = load_data(coco_folder(tmp_path / "set", (3, 3)))
    made = list(batches.letterboxed_batches(data, 64, 2).as_numpy_iterator())
    ids = np.concatenate([examples["image_id"] for _, examples in made])
    assert ids.tolist() == [100, 101, 102, -1]
    for images, examples in made:
        scaled = examples["boxes"] * examples["scale"][:, None, None]
        for image, boxes, labels in zip(
            images, scaled, examples["labels"], strict=True
        ):
            kept = labels >= 0
            assert_boxes_on_objects(image, boxes[kept], labels[kept])
    assert made[0][1]["height"].tolist() == [48, 56]
    assert made[0][1]["width"].tolist() == [80, 72]
    (_, last, weights) = list(
        batches.validation_batches(data, 64, 2).as_numpy_iterator()
    )[-1]
    assert weights.tolist() == [1, 0]
    np.testing.assert_allclose(last["boxes"][0], scaled[0], rtol=1e-6)
    assert (last["labels"][1] == -1).all()


def test_crowds_are_measured_and_not_learned(tmp_path):
    def crowd(content):
        for annotation in content["annotations"]:
            annotation["iscrowd"] = 1

    with pytest.warns(UserWarning, match="3 of 3 categories have no box"):
        data = load_data(coco_folder(tmp_path / "set", change=crowd))
    for _, labels in batches.training_batches(data, SMALL).as_numpy_iterator():
        assert (labels["labels"] == -1).all()
    for _, labels, _ in batches.validation_batches(data, 64, 2):
        assert (labels["labels"].numpy() == -1).all()
    crowds = [
        examples["is_crowd"].max()
        for _, examples in batches.letterboxed_batches(
            data, 64, 2
        ).as_numpy_iterator()
    ]
    assert max(crowds) == 1


def test_boxes_are_cut_off_and_left_out(tmp_path):
    def stretch(content):
        wide, flat = content["annotations"][1:3]
        wide["bbox"] = [-5, 10, 500, 500]
        flat["bbox"] = [10, 10, 8, 0]

    folder = coco_folder(tmp_path / "set", change=stretch)
    with pytest.warns(UserWarning) as caught:
        data = load_data(folder)
    messages = [str(warning.message) for warning in caught]
    assert {warning.filename for warning in caught} == {__file__}
    assert len(messages) == 5
    for message, split, text in zip(
        messages,
        ("train", "train", "val", "val", "val"),
        (
            "1 of 5 boxes reach beyond",
            "1 of 5 boxes have no area",
            "1 of 3 boxes reach beyond",
            "1 of 3 boxes have no area",
            "1 of 3 categories have no box (boxes of crowds do not count)",
        ),
        strict=True,
    ):
        assert f"instances_{split}.json': {text}" in message
    assert "annotations[1] of '2.png'" in messages[0]
    example = list(data.train.as_numpy_iterator())[2]
    assert example["boxes"].tolist() == [[0, 10, 64, 64]]


@pytest.mark.parametrize(
    "place, changes, message",
    [
        ("images", {"width": 56, "height": 72}, r"images.1. .*swapped"),
        (
            "annotations",
            {"bbox": [90, 3, 5, 5]},
            r"annotations.0. \(id=1, image_id=101, of '1.png'\): .* must lie",
        ),
        ("categories", {"name": "red"}, r"categories.1. .*must be unique"),
    ],
)
def test_wrong_entries(tmp_path, place, changes, message):
    def spoil(content):
        content[place][place != "annotations"].update(changes)

    folder = coco_folder(tmp_path / "set", change=spoil)
    with pytest.raises(ValueError, match=f"instances_train.json': .*{message}"):
        load_data(folder)


def test_byte_order_mark(tmp_path):
    folder = coco_folder(tmp_path / "set")
    path = folder / "annotations" / "instances_val.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_data(folder).num_validation == 3


def test_wrong_folders(tmp_path):
    with pytest.raises(ValueError, match="no folder '.*not_there'"):
        load_data(tmp_path / "not_there")
    with pytest.raises(
        ValueError, match=r"instances_train\*.json. Found: ..\.$"
    ):
        load_data(tmp_path)

    folder = coco_folder(tmp_path / "gone")
    (folder / "val" / "1.png").unlink()
    with pytest.raises(
        ValueError, match="1 of 3 image files .*'1.png'.: there"
    ):
        load_data(folder)
    folder = coco_folder(tmp_path / "other")
    path = folder / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"green"', '"lime"'))
    with pytest.raises(
        ValueError,
        match=r".'green'. only in instances_train.json and .'lime'. ",
    ):
        load_data(folder)
    path.write_text(
        path.read_text()
        .replace('"lime"', '"red"', 1)
        .replace("red", "green", 1)
    )
    with pytest.raises(
        ValueError, match=r"{'instances_train.json': \['red', 'g"
    ):
        load_data(folder)


def test_corrupt_image_is_named(tmp_path):
    folder = coco_folder(tmp_path / "set")
    data = load_data(folder)
    path_of = operator.itemgetter("image")
    check_readable(data, path_of)
    (folder / "train" / "2.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 images cannot be .*train/2.png"):
        check_readable(data, path_of)


def test_wrong_augmentation(tmp_path):
    data = load_data(coco_folder(tmp_path / "set"))
    with pytest.raises(ValueError, match="must be 'scale_jitter'.*='shift'"):
        batches.training_batches(
            data, dataclasses.replace(DIGITS, batch_size=1)
        )


def test_digit_scenes():
    digits = np.full((2, 8, 8), 16)
    images, boxes, labels = make_scenes(digits, np.array([3, 5]), 20, seed=0)
    assert images.shape == (20, 128, 128, 1)
    numbers = {len(each) for each in labels}
    assert min(numbers) >= 1 and max(numbers) <= 8 and len(numbers) > 3
    for image, each in zip(images, boxes, strict=True):
        # These digits fill their boxes; the noise is darker.
        expected = np.zeros((128, 128), bool)
        for x1, y1, x2, y2 in each.astype(int):
            assert not expected[y1:y2, x1:x2].any()
            expected[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(image[..., 0] > 95, expected)


def test_tfds(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features

    class TinyCoco(tfds.core.GeneratorBasedBuilder):
        """A set with the features of `coco/2017`."""

        # Reading the files beside a package needs importlib_resources, which
        # TensorFlow Datasets does not require.
        __module__ = "builders"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            one = {
                "area": np.int64,
                "bbox": features.BBoxFeature(),
                "id": np.int64,
                "is_crowd": np.bool_,
                "label": features.ClassLabel(names=NAMES),
            }
            listed = {
                "image": features.Image(encoding_format="png"),
                "image/filename": features.Text(),
                "image/id": np.int64,
                "objects": features.Sequence(one),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=features.FeaturesDict(listed)
            )

        def _split_generators(self, _):
            return {
                "train": self._generate_examples(4),
                "validation": self._generate_examples(2),
            }

        def _generate_examples(self, number):
            image, boxes = scene()
            objects = [
                {
                    "area": 100 + label,
                    "bbox": features.BBox(y1 / 60, x1 / 90, y2 / 60, x2 / 90),
                    "id": label,
                    "is_crowd": False,
                    "label": label,
                }
                for label, (x1, y1, x2, y2) in enumerate(boxes)
            ]
            flat = {**objects[0], "bbox": features.BBox(0.5, 0.5, 0.5, 0.6)}
            for index in range(number):
                yield (
                    index,
                    {
                        "image": image,
                        "image/filename": f"{index}.png",
                        "image/id": 50 + index,
                        "objects": [*objects[:index], flat],
                    },
                )

    with pytest.raises(ValueError, match="tfds:mnist cannot .*`objects`"):
        load_data("tfds:mnist")
    builder = functools.partial(tfds.builder, data_dir=tmp_path)
    monkeypatch.setattr(tfds, "builder", builder)
    data = load_data("tfds:tiny_coco")
    assert (data.num_train, data.num_validation) == (4, 2)
    assert tuple(data.class_names) == NAMES
    examples = sorted(
        data.train.as_numpy_iterator(), key=lambda each: each["image_id"]
    )
    image, boxes = scene()
    for index, example in enumerate(examples):
        assert example["image_id"] == 50 + index
        np.testing.assert_array_equal(example["image"], image)
        np.testing.assert_allclose(example["boxes"], boxes[:index], atol=1e-4)
        assert example["labels"].tolist() == list(range(index))
        assert example["areas"].tolist() == [100 + n for n in range(index)]
    images, labels = next(iter(batches.training_batches(data, SMALL)))
    assert images.shape == (2, 64, 64, 3)
    assert labels["boxes"].shape == (2, 8, 4)


def test_digits():
    pytest.importorskip("sklearn")
    data = load_data("digit_scenes")
    images, labels = next(iter(batches.training_batches(data, DIGIT_SCENES)))
    assert images.shape == (8, 128, 128, 1)
    assert labels["boxes"].shape == (8, 8, 4)
    assert data.num_classes == 10
