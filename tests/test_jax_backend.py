"""The layer tests once more, on JAX."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import pytest

FILES = (
    "test_local_attention.py",
    "test_self_attention_2d.py",
    "test_attention_stem.py",
    "test_native_dispatch.py",
    "test_kernel.py",
)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="this run is on JAX already"
)
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)
def test_layers_on_jax():
    folder = pathlib.Path(__file__).parent
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *(str(folder / f) for f in FILES)],
        cwd=folder.parent,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-5000:]
    assert " passed" in process.stdout, process.stdout[-5000:]
