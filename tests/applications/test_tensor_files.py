"""Files of named tensors: what is read, and what is refused by name."""

import collections
import os
import pickle

import numpy as np
import pytest

from keras_sasa.applications.tensor_files import read_tensors
from tests.support.tensor_files import (
    write_archive,
    write_safetensors,
    write_torch,
)


def tensors():
    random = np.random.default_rng(0)
    shapes = {"scalar": (), "a": (3,), "b.weight": (4, 5), "c": (2, 3, 1, 2)}
    shapes |= {"transposed": (5, 2), "empty": (0, 4)}
    return {
        name: random.normal(size=shape).astype("float32")
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pth"])
def test_what_was_written_is_read(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    write = write_safetensors if suffix == ".safetensors" else write_torch
    write(path, tensors())
    actual = read_tensors(path)
    assert list(actual) == list(tensors())
    for name, expected in tensors().items():
        np.testing.assert_array_equal(actual[name], expected)
        assert actual[name].shape == expected.shape
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"model{suffix}' cannot be read"):
        read_tensors(path)


def test_other_types_of_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    for dtype in ("float16", "float64", "int64"):
        write_safetensors(path, {"a": np.ones(3, dtype)})
        assert read_tensors(path)["a"].dtype == dtype
    write_safetensors(path, {"a": np.ones(3, "int32")})
    with pytest.raises(ValueError, match="'a' must have one of .*'I32'"):
        read_tensors(path)


@pytest.mark.parametrize(
    "change",
    [(b"[3]", b"[9]"), (b"[0, 12]", b"[9, 99]"), (b'"shape"', b'"shave"')],
)
def test_wrong_headers_of_safetensors(change, tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": np.ones(3, "float32")})
    content = path.read_bytes()
    assert change[0] in content
    header = content[8:].replace(*change)
    length = int.from_bytes(content[:8], "little")
    length += len(change[1]) - len(change[0])
    path.write_bytes(length.to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="safetensors' cannot be read: .*'"):
        read_tensors(path)


class Hostile:
    """Removes a file where its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.remove, (self.path,)


def test_pickles_run_no_code(tmp_path):
    victim = tmp_path / "victim"
    victim.touch()
    path = tmp_path / "model.bin"
    write_archive(path, pickle.dumps({"a": Hostile(str(victim))}))
    with pytest.raises(ValueError, match=r"nothing but .*Received: posix\.rem"):
        read_tensors(path)
    assert victim.exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (["a"], "must hold a dict of tensors"),
        ({"a": 1}, "must hold a dict of tensors"),
        ({"a": collections.OrderedDict()}, "must hold a dict of tensors"),
        ({"a": np.ones(2)}, "nothing but .*numpy"),
        ({"a": collections.Counter()}, "nothing but .*collections.Counter"),
    ],
)
def test_pickles_of_other_things(content, message, tmp_path):
    path = tmp_path / "model.pth"
    write_archive(path, pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_tensors(path)


def test_archives_without_a_pickle(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be read: File is not a zip"):
        read_tensors(path)


@pytest.mark.parametrize(
    "change",
    [
        # Shape and strides of the tensor are pairs of small integers.
        (b"K\x04K\x05\x86", b"K\x05K\x05\x86"),
        (b"K\x05K\x01\x86", b"K\x06K\x01\x86"),
        (b"K\x05K\x01\x86", b"J\xff\xff\xff\xffK\x01\x86"),
    ],
    ids=["shape", "strides", "negative"],
)
def test_tensors_outside_their_numbers(change, tmp_path):
    path = tmp_path / "model.bin"

    def replace(pickled):
        assert pickled.count(change[0]) == 1
        return pickled.replace(*change)

    write_torch(path, {"a": np.ones((4, 5), "float32")}, replace)
    with pytest.raises(ValueError, match="does not lie in its 20 numbers"):
        read_tensors(path)


def test_storages_that_are_too_short(tmp_path):
    path = tmp_path / "model.bin"
    write_torch(
        path,
        {"a": np.ones((4, 5), "float32")},
        lambda pickled: pickled.replace(b"K\x14t", b"K\x15t"),
    )
    with pytest.raises(ValueError, match="must hold 21 numbers. Received: 20"):
        read_tensors(path)
