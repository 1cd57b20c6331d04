"""Files of named tensors that other libraries write, as arrays.

`.safetensors` files, and `.bin` and `.pth` files of PyTorch. PyTorch is not
needed, and a file runs no code of its own.
"""

import collections
import io
import json
import math
import os
import pickle
import zipfile
from collections.abc import Mapping

import numpy as np

TENSOR_SUFFIXES = (".safetensors", ".bin", ".pth")

# Networks with batch normalization count the batches, in integers.
_SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads all tensors of a file.

    Args:
        path: Path of a file whose name ends in one of `TENSOR_SUFFIXES`.

    Returns:
        Arrays by name.

    Raises:
        ValueError: If the file is damaged, if it has tensors of other types
            than floating point and 64-bit integers, or if its pickle refers to
            anything but tensors and dicts.
    """
    path = os.fspath(path)
    read = _read_torch
    if path.endswith(".safetensors"):
        read = _read_safetensors
    try:
        return read(path)
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{path!r} cannot be read: {error or type(error).__name__}"
        ) from error


def _read_safetensors(path):
    with open(path, "rb") as file:
        content = file.read()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError("its header is cut off.")
    header = json.loads(content[8 : 8 + length])
    data = memoryview(content)[8 + length :]
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise ValueError(
                f"the tensor {name!r} must have one of the types "
                f"{tuple(_SAFETENSORS_TYPES)}. Received: {entry['dtype']!r}."
            )
        dtype = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        begin, end = entry["data_offsets"]
        size = math.prod(entry["shape"]) * dtype.itemsize
        if not 0 <= begin <= end <= len(data) or end - begin != size:
            raise ValueError(
                f"the tensor {name!r} of shape {tuple(entry['shape'])} has "
                f"{size} bytes, the file holds {len(data)}, and its place is "
                f"from {begin} to {end}."
            )
        tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(
            entry["shape"]
        )
    return tensors


def _read_torch(path):
    with zipfile.ZipFile(path) as archive:
        pickles = [
            name for name in archive.namelist() if name.endswith("/data.pkl")
        ]
        if len(pickles) != 1:
            raise ValueError(
                "it must be a zip archive with one `data.pkl`, as PyTorch "
                f"writes since version 1.6. Received: {len(pickles)} of them."
            )
        folder = pickles[0].removesuffix("data.pkl")
        tensors = _Unpickler(archive, folder).load()
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, np.ndarray)
        for name, tensor in tensors.items()
    ):
        raise ValueError("it must hold a dict of tensors, a `state_dict`.")
    return dict(tensors)


class _Unpickler(pickle.Unpickler):
    """Loads dicts of tensors, and refuses everything else by name."""

    def __init__(self, archive, folder):
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self._archive = archive
        self._folder = folder

    def find_class(self, module, name):
        # What stands in a pickle is called. So nothing is looked up.
        allowed = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch.FloatStorage": "<f4",
            "torch.LongStorage": "<i8",
        }
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(
                f"its pickle must refer to nothing but {sorted(allowed)}. "
                f"Received: {module}.{name}."
            )
        return allowed[f"{module}.{name}"]

    def persistent_load(self, reference):
        kind, dtype, key, _, size = reference
        if kind != "storage" or not isinstance(key, str):
            raise pickle.UnpicklingError(
                f"its pickle refers to an unknown kind of data, {kind!r}."
            )
        numbers = np.frombuffer(
            self._archive.read(f"{self._folder}data/{key}"), dtype
        )
        if len(numbers) != size:
            raise pickle.UnpicklingError(
                f"`data/{key}` must hold {size} numbers. "
                f"Received: {len(numbers)}."
            )
        return numbers


def _rebuild_tensor(storage, offset, shape, strides, *_):
    """Returns a tensor that lies in the numbers of a storage."""
    if math.prod(shape):
        last = offset + sum(
            (size - 1) * stride
            for size, stride in zip(shape, strides, strict=True)
        )
        if offset < 0 or min(strides, default=0) < 0 or last >= len(storage):
            raise pickle.UnpicklingError(
                f"a tensor of shape {tuple(shape)} and strides "
                f"{tuple(strides)} does not lie in its {len(storage)} numbers."
            )
    return np.lib.stride_tricks.as_strided(
        storage[offset:],
        shape,
        [stride * storage.itemsize for stride in strides],
        writeable=False,
    )
