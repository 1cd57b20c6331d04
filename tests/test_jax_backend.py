"""Tests on JAX: those of the layers and, in a large run, of networks."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import pytest

LAYERS = (
    "ops/test_local_attention.py",
    "test_derivatives.py",
    "layers/test_self_attention_2d.py",
    "layers/test_attention_stem.py",
    "layers/test_batch_normalization.py",
    "ops/test_native_dispatch.py",
    "ops/test_epilogue.py",
    "fusion/test_fused_model.py",
    "kernels/test_kernel.py",
)
NETWORKS = (
    "ops/test_exporters.py",
    "applications/test_resnet.py",
    "applications/test_halonet.py",
    "layers/test_halo_attention_2d.py",
    "layers/test_neighborhood_attention_2d.py",
    "test_conversion.py",
    "data/test_detection_batches.py",
    "training/test_detection.py",
    "detection/test_parts.py",
    "detection/test_retinanet.py",
    "detection/test_non_maximum_suppression.py",
    "detection/test_targets.py",
    "test_doctor.py",
    "profile/test_profile.py",
    "training/test_classification.py",
    "visualize/test_attention_weights.py",
    "visualize/test_evidence.py",
    "visualize/test_head_statistics.py",
)


pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() == "jax", reason="this run is on JAX already"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None, reason="JAX is not installed"
    ),
]


def check(files, *options):
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    # conftest.py has set those of TensorFlow, and sets others for JAX.
    environment.pop("XLA_FLAGS")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *options]
        + [f"tests/{file}" for file in files],
        cwd=pathlib.Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-5000:]
    assert " passed" in process.stdout, process.stdout[-5000:]


@pytest.mark.long
def test_layers():
    """In one process; what compiles to something different on JAX."""
    check(LAYERS)


@pytest.mark.large
@pytest.mark.parametrize("file", LAYERS)
def test_all_of_the_layers(file):
    check([file], "--run-large")


@pytest.mark.large
@pytest.mark.parametrize("file", NETWORKS)
def test_networks(file):
    check([file])
