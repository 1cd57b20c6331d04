"""Folders of images: each file is used, or counted and named."""

import collections
import contextlib
import io
import os
import pathlib
import re
import tempfile
import warnings

import hypothesis
import keras
import pytest
import tensorflow as tf
from hypothesis import strategies

from keras_sasa.data import load_data

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the pipeline is the same on every backend",
)

PIXELS = tf.constant([[[10, 250, 30]] * 8] * 8, "uint8")
PNG = tf.io.encode_png(PIXELS).numpy()


def write(folder, *names, contents=PNG):
    for name in names:
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)


def files_of(dataset, root):
    """Returns the names of files by label."""
    found = collections.defaultdict(list)
    for path, label in dataset.as_numpy_iterator():
        path = os.path.relpath(os.fsdecode(path), root)
        found[int(label)].append(path)
    return found


def classes_folder(root, split="", images=10, classes=("cat", "dog")):
    for name in classes:
        write(root / split / name, *(f"{i}.png" for i in range(images)))


@pytest.mark.parametrize(
    "train, validation, unused",
    [
        ("train", "validation", []),
        ("train", "val", ["test"]),
        ("train", "valid", ["test"]),
        ("Train", "Test", []),
        ("TRAINING", "Testing", []),
        ("training_set", "test_set", []),
        ("Train Images", "val-images", ["TestData"]),
        ("train2017", "val2017", ["test2017"]),
        ("seg_train", "seg_test", []),
        ("train", "valid_1", []),
    ],
)
def test_names_of_splits(tmp_path, capsys, train, validation, unused):
    for split in (train, validation, *unused):
        classes_folder(tmp_path, split, images=len(split))
    data = load_data(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert data.num_train == 2 * len(train)
    found = files_of(data.validation, tmp_path)
    for label, name in enumerate(data.class_names):
        assert found[label] == [
            str(pathlib.Path(validation, name, f"{i}.png"))
            for i in range(len(validation))
        ]
    output = capsys.readouterr().out
    assert f"validated on: '{tmp_path / validation}'" in output
    assert ("not used" in output) == bool(unused)
    assert all(repr(name) in output for name in unused)


def test_classes_whose_names_only_contain_those_of_splits(tmp_path):
    classes = ["bus", "crash test", "express train"]
    classes_folder(tmp_path, classes=classes)
    classes_folder(tmp_path / "bus", classes=["train", "car"])
    assert load_data(tmp_path).class_names == classes


def test_split_without_classes_is_not_validated_on(tmp_path, capsys):
    """As in competitions, which keep these labels secret."""
    classes_folder(tmp_path, "train")
    write(tmp_path / "test", "0.png", "1.png")
    data = load_data(tmp_path)
    assert (data.num_train, data.num_validation) == (16, 4)
    output = capsys.readouterr().out
    assert f"a part of each class of '{tmp_path / 'train'}'" in output
    assert "not used: ['test']" in output


@pytest.mark.parametrize(
    "names, message",
    [
        (["test/cat/0.png", "test/dog/0.png"], r"'train', and .*\['test'\]"),
        (["train/0.png", "test/0.png"], r"Received: \['test', 'train'\]"),
        (
            ["bus/0.png", "car/0.png", "Train/0.png"],
            r"never taken for classes.*\['Train', 'bus', 'car'\]",
        ),
        (
            ["train/a/0.png", "train/b/0.png", "val/a/0.png", "valid/a/0.png"],
            r"one folder for each split.*\['val', 'valid'\]",
        ),
        (
            ["train/a/0.png", "train/b/0.png", "val/a/0.png", "val/c/0.png"],
            r"same classes.*train': \['b'\].*val': \['c'\]",
        ),
        (["train_1/0.png", "test1/0.png"], r"Received: \['test1', 'train_1'\]"),
        (
            ["a/train/0.png", "a/val/0.png", "b/train/0.png", "b/val/0.png"],
            r"hold the splits.*'a', which holds \['a/train', 'a/val'\]",
        ),
        (["0.png"], r"1 files or folders in .*two classes or more.*\[\]"),
        (["cat/0.png"], r"two classes or more.*\['cat'\]\."),
        (["photos/a/0.png", "photos/b/0.png"], r"holds \['photos/a', 'photos/"),
        (["a/0.png", "b/0.png"], "two images or more of a class"),
        (
            ["a/0.png", "a/1.png", "b/0.tiff", "b/1", "b/.c.png"],
            "class 'b' in .*1 .tiff .*1 without an ending",
        ),
    ],
)
def test_wrong_folders(tmp_path, names, message):
    write(tmp_path, *names)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(ValueError) as error:
            load_data(tmp_path)
    said = [str(warning.message) for warning in said]
    assert re.search(message, " ".join([*said, str(error.value)]))


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="There is no folder .*nowhere"):
        load_data(tmp_path / "nowhere")


def test_hidden_files_are_passed_over(tmp_path):
    classes_folder(tmp_path)
    write(
        tmp_path,
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "__MACOSX/cat/._0.png",
        ".ipynb_checkpoints/0.png",
        "cat/.DS_Store",
        "cat/._0.png",
        "dog/Thumbs.db",
        "dog/.ipynb_checkpoints/0-checkpoint.png",
    )
    data = load_data(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert (data.num_train, data.num_validation) == (16, 4)


def test_other_files_are_counted_and_named(tmp_path):
    classes_folder(tmp_path)
    write(tmp_path / "cat", *(f"{i}.tiff" for i in range(12)), "a.HEIC", "note")
    write(tmp_path, "README.md", "labels.csv")
    (tmp_path / "dog" / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(UserWarning) as said:
        data = load_data(tmp_path)
    assert data.num_train + data.num_validation == 20
    strays, others = (str(warning.message) for warning in said)
    assert strays.startswith("2 files or folders in")
    assert "['README.md', 'labels.csv']" in strays
    assert others.startswith("15 files in")
    for part in (
        "12 .tiff ['cat/0.tiff'",
        "] and 7 more",
        "1 .heic ['cat/a.HEIC",
    ):
        assert part in others
    assert "1 without an ending ['cat/note']" in others
    assert "1 .png ['dog/link.png']" in others


def test_endings_in_any_case_and_folders_in_classes(tmp_path):
    write(tmp_path / "a", "0.PNG", "1.Jpg", "b/2.webp", "b/c/3.jfif")
    write(tmp_path / "elsewhere", "4.png", "5.png")
    write(tmp_path / "data" / "z", "0.png", "1.png")
    (tmp_path / "data" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "elsewhere")
    data = load_data(tmp_path / "data")
    assert (data.num_train, data.num_validation) == (6, 2)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="again' must not be a link to a fold"):
        load_data(tmp_path / "data")


def test_empty_class_is_left_out(tmp_path):
    classes_folder(tmp_path)
    write(tmp_path / "horse", ".DS_Store")
    with pytest.warns(UserWarning, match=r"1 classes .* empty: \['horse'\]"):
        data = load_data(tmp_path)
    assert data.class_names == ["cat", "dog"]


def test_names_that_differ_only_in_case(tmp_path):
    classes_folder(tmp_path, classes=["A", "a", "b"])
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system knows no case")
    with pytest.warns(UserWarning, match=r"1 classes .*\[\['A', 'a'\]\]"):
        assert load_data(tmp_path).class_names == ["A", "a", "b"]


@pytest.mark.parametrize("part", [None, 0.01, 0.25, 0.99])
def test_same_part_of_each_class_is_validation(tmp_path, part):
    sizes = {"a": 2, "b": 3, "c": 30, "d": 10}
    for name, images in sizes.items():
        classes_folder(tmp_path, images=images, classes=[name])
    data = load_data(tmp_path, validation_split=part)
    train = files_of(data.train, tmp_path)
    validation = files_of(data.validation, tmp_path)
    for label, (name, images) in enumerate(sizes.items()):
        assert sorted(train[label] + validation[label]) == sorted(
            str(pathlib.Path(name, f"{i}.png")) for i in range(images)
        )
        expected = int((part or 0.2) * images + 0.5)
        assert len(validation[label]) == min(max(expected, 1), images - 1)


def test_class_of_one_image_is_named(tmp_path):
    classes_folder(tmp_path)
    write(tmp_path / "owl", "0.png")
    with pytest.warns(UserWarning, match=r"1 classes .*to validate: \['owl'"):
        data = load_data(tmp_path)
    assert files_of(data.train, tmp_path)[2] == [os.path.join("owl", "0.png")]


def test_corrupt_images_are_found_at_the_beginning(tmp_path, monkeypatch):
    classes_folder(tmp_path, images=15)
    write(tmp_path, "cat/3.png", contents=PNG[:40])
    write(tmp_path, "dog/0.png", contents=b"")
    with pytest.raises(ValueError) as error:
        load_data(tmp_path)
    for name in ("cat/3.png", "dog/0.png"):
        assert repr(str(tmp_path / name)) in str(error.value)
    assert "2 images cannot" in str(error.value)
    # But not if reading the set takes long.
    monkeypatch.setattr(
        "keras_sasa.data.classification.image_folder._CHECKED_BYTES", 100
    )
    assert load_data(tmp_path).num_train == 24


def test_corrupt_images_are_left_out_and_counted(tmp_path, capsys):
    """Before the split, and before classes are counted."""
    classes_folder(tmp_path, images=6)
    write(tmp_path, "dog/0.png", contents=b"no image")
    write(tmp_path, "dog/0.tiff")
    data = load_data(tmp_path, skip_corrupt=True)
    assert (data.num_train, data.num_validation) == (9, 2)
    output = capsys.readouterr().out
    assert "left out, not decodable: 2 of 13 in" in output
    assert repr(str(tmp_path / "dog" / "0.png")) in output
    assert f"{str(tmp_path / 'dog' / '0.tiff')!r}: not a JPEG" in output
    write(tmp_path / "dog", *(f"{i}.png" for i in range(6)), contents=b"none")
    with pytest.raises(ValueError, match="class 'dog' .*can be decoded"):
        load_data(tmp_path, skip_corrupt=True)


NAMES = strategies.text(
    strategies.characters(exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=6,
).filter(lambda name: name not in (".", ".."))
FILES = {
    ".png": PNG,
    ".JPG": tf.io.encode_jpeg(PIXELS).numpy(),
    ".webp": b"RIFF" + PNG[4:],
    ".tiff": b"II*\0",
    "": b"text",
}
FILE_NAMES = strategies.tuples(NAMES, strategies.sampled_from(list(FILES)))
FOLDERS = strategies.dictionaries(
    NAMES | strategies.sampled_from(["cat", "dog", "owl", "test", ".git"]),
    strategies.tuples(
        # Number of images, and the part of their contents in other files.
        strategies.sampled_from([2, 2, 2, 2, 2, 1, 0]),
        strategies.dictionaries(
            FILE_NAMES.map("".join),
            strategies.sampled_from([1, 1, 1, 1, 0.5, 0]),
            max_size=2,
        ),
    ),
    min_size=2,
    max_size=4,
)


@hypothesis.settings(max_examples=50, derandomize=True, deadline=None)
@hypothesis.given(
    FOLDERS, strategies.sampled_from([None, None, 0, 1]), strategies.booleans()
)
def test_any_folder(classes, missing_in_split, skip_corrupt):
    """Every file is used or counted, or an error names the problem."""
    splits = {"": classes}
    if missing_in_split is not None:
        fewer = list(classes.items())[missing_in_split:]
        splits = {"train": classes, "valid": dict(fewer)}
    with tempfile.TemporaryDirectory() as root:
        readable, others = {}, []
        for split, folders in splits.items():
            for name, (number, files) in folders.items():
                folder = pathlib.Path(root, split, name)
                folder.mkdir(parents=True)
                images = {f"{i}.png": 1 for i in range(number)}
                for file, part in {**files, **images}.items():
                    ending = pathlib.PurePath(file).suffix
                    contents = FILES.get(ending, b"text")
                    contents = contents[: int(part * len(contents))]
                    write(folder, file, contents=contents)
                    if name[0] == "." or file[0] == ".":
                        continue
                    if part == 1 and ending in (".png", ".JPG"):
                        readable[os.fsencode(folder / file)] = name
                    else:
                        others.append(str(folder / file))
        output = io.StringIO()
        with (
            warnings.catch_warnings(record=True) as said,
            contextlib.redirect_stdout(output),
        ):
            warnings.simplefilter("always")
            try:
                data = load_data(root, skip_corrupt=skip_corrupt)
            except ValueError as error:
                assert root in str(error)
                return
        loaded = [
            (path, data.class_names[label])
            for dataset in (data.train, data.validation)
            for path, label in dataset.as_numpy_iterator()
        ]
    assert sorted(loaded) == sorted(readable.items())
    output = output.getvalue() + "".join(str(w.message) for w in said)
    numbers = re.findall(r"(\d+) files in|decodable: (\d+)", output)
    assert sum(int(a or b) for a, b in numbers) == len(others)
