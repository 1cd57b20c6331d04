"""Writes files of tensors as PyTorch and safetensors do, without them."""

import collections
import io
import json
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest


def write_safetensors(path, tensors):
    types_ = {
        "float64": "F64",
        "float32": "F32",
        "float16": "F16",
        "int64": "I64",
        "int32": "I32",
    }
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        begin = len(data)
        data += np.ascontiguousarray(tensor).tobytes()
        header[name] = {
            "dtype": types_[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [begin, len(data)],
        }
    header = json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


class _Storage:
    def __init__(self, key, numbers):
        self.key, self.numbers = key, numbers


def write_torch(path, tensors, change=lambda pickled: pickled):
    """Writes a zip archive with a pickle, as `torch.save` of a state dict.

    Args:
        path: Path.
        tensors: Arrays of float32 and int64 by name.
        change: Function of the bytes of the pickle.
    """
    utils = types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        raise NotImplementedError

    class FloatStorage:
        pass

    class LongStorage:
        pass

    class Tensor:
        def __init__(self, *arguments):
            self.arguments = arguments

        def __reduce__(self):
            return utils._rebuild_tensor_v2, self.arguments

    torch = types.ModuleType("torch")
    _rebuild_tensor_v2.__module__ = utils.__name__
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    for storage in (FloatStorage, LongStorage):
        storage.__module__ = "torch"
        storage.__qualname__ = storage.__name__
        setattr(torch, storage.__name__, storage)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, _Storage):
                storage = FloatStorage
                if value.numbers.dtype == "int64":
                    storage = LongStorage
                size = value.numbers.size
                return "storage", storage, value.key, "cpu", size
            return None

    state, content = collections.OrderedDict(), {}
    for number, (name, tensor) in enumerate(tensors.items()):
        # Some lie transposed in their storage, behind a few other numbers.
        transposed = number % 2 == 1 and tensor.ndim == 2
        stored = np.array(tensor.T if transposed else tensor, order="C")
        content[str(number)] = np.concatenate(
            [np.zeros(number % 3, stored.dtype), stored.ravel()]
        )
        strides = [stride // stored.itemsize for stride in stored.strides]
        state[name] = Tensor(
            _Storage(str(number), content[str(number)]),
            number % 3,
            tensor.shape,
            tuple(strides[::-1] if transposed else strides),
            False,
            collections.OrderedDict(),
        )
    # PyTorch keeps the versions of modules so.
    state._metadata = collections.OrderedDict(version=1)
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(buffer, protocol=2).dump(state)
    write_archive(path, change(buffer.getvalue()), content)


def write_archive(path, pickled, content=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
        for key, numbers in dict(content).items():
            archive.writestr(f"model/data/{key}", numbers.tobytes())
        archive.writestr("model/version", "3\n")
