"""Tests on JAX: those of the layers and, in a large run, of networks."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import pytest

LAYERS = (
    "test_local_attention.py",
    "test_derivatives.py",
    "test_self_attention_2d.py",
    "test_attention_stem.py",
    "test_native_dispatch.py",
    "test_kernel.py",
)
NETWORKS = (
    "test_applications.py",
    "test_conversion.py",
    "test_detection_data.py",
    "test_detection_fit.py",
    "test_detection_parts.py",
    "test_detection_retinanet.py",
    "test_detection_suppression.py",
    "test_detection_targets.py",
    "test_doctor.py",
    "test_profile.py",
    "test_training_fit.py",
    "test_visualize.py",
    "test_visualize_evidence.py",
    "test_visualize_heads.py",
)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="this run is on JAX already"
)
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)
@pytest.mark.parametrize(
    "file",
    [*LAYERS, *(pytest.param(f, marks=pytest.mark.large) for f in NETWORKS)],
)
def test_passes_on_jax(file):
    path = pathlib.Path(__file__).parent / file
    process = subprocess.run(
        [sys.executable, "-m", "pytest", str(path)],
        cwd=path.parents[1],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-5000:]
    assert " passed" in process.stdout, process.stdout[-5000:]
