"""Facts for a bug report: versions, devices, and usable implementations.

python -m keras_sasa.doctor
"""

import importlib.metadata
import os
import platform
import re

import keras

from keras_sasa import local_attention
from keras_sasa._version import __version__
from keras_sasa.kernels import build_report, loader

# All distributions that the package or its extras import.
_DISTRIBUTIONS = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "jax",
    "jaxlib",
    "matplotlib",
    "pillow",
    "pycocotools",
    "scikit-learn",
    "tensorboard",
    "tensorflow-datasets",
    "ai-edge-litert",
    "onnxruntime",
    "tf2onnx",
)
_VECTOR_FLAGS = ("avx", "avx2", "fma", "avx512f", "asimd", "sve")
_SETTINGS = (
    loader.SWITCH,
    "KERAS_BACKEND",
    "TF_CONFIG",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
    "CUDA_VISIBLE_DEVICES",
)


def report() -> dict[str, dict[str, str]]:
    """Collects facts about this environment.

    Returns:
        Dict from headings to dicts from names to strings.

    Example:

    >>> from keras_sasa.doctor import report
    >>> list(report())
    ['versions', 'machine', 'Keras', 'attention', 'kernel', 'environment']
    """
    return {
        "versions": {
            "keras_sasa": __version__,
            "Python": platform.python_version(),
            **{name: _version(name) for name in _DISTRIBUTIONS},
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": str(len(os.sched_getaffinity(0)))
            if hasattr(os, "sched_getaffinity")
            else str(os.cpu_count()),
            "vector instructions": _vector_flags(),
        },
        "Keras": {
            "backend": keras.backend.backend(),
            "devices": _devices(),
            "dtype policy": keras.config.dtype_policy().name,
            "image data format": keras.config.image_data_format(),
        },
        "attention": _implementations(),
        "kernel": {
            "compiled": build_report.describe(build_report.read()),
        },
        "environment": {
            name: os.environ.get(name, "not set") for name in _SETTINGS
        },
    }


def _implementations():
    try:
        return {
            name: "runs" if reason is None else f"does not run: {reason}"
            for name, reason in local_attention.available().items()
        }
    # For instance, an environment variable has a misspelled value.
    except Exception as error:
        return {"none": f"{type(error).__name__}: {error}"}


def _version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices():
    try:
        return ", ".join(keras.distribution.list_devices()) or "the CPU alone"
    # The backend is broken or cannot list devices; the report continues.
    except Exception as error:
        return f"unknown ({type(error).__name__}: {error})"


def _vector_flags():
    """Returns the relevant flags of the processor, as Linux names them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = re.search(r"^(flags|Features)\s*:(.*)$", file.read(), re.M)
    except OSError:
        return "unknown"
    flags = line.group(2).split() if line else ()
    return " ".join(f for f in _VECTOR_FLAGS if f in flags) or "none known"


def main() -> None:
    """Prints the report."""
    for heading, lines in report().items():
        print(f"{heading}:")
        width = max(map(len, lines))
        for name, value in lines.items():
            print(f"  {name.ljust(width)}  {value}")


if __name__ == "__main__":
    main()
