"""`setup.py` compiles what the compiler supports, and says what it does not."""

import importlib.machinery
import os
import pathlib
import platform
import shutil
import subprocess
import sys

import pytest
from backend import BACKEND

from keras_sasa import kernels
from keras_sasa.kernels import build_report

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = f"_native{importlib.machinery.EXTENSION_SUFFIXES[0]}"

# Refuses AVX-512, as GCC 5 does, or everything with the word REFUSED.
FAKE = """#!/bin/sh
case "$*" in
  *--version*) echo "fake 1.0"; echo "and more"; exit 0 ;;
  *{refused}*) echo "in x:" >&2; echo "x.cc:1: error: no {refused}" >&2
               exit 1 ;;
esac
while [ "$#" -gt 1 ]; do
  [ "$1" = "-o" ] && echo > "$2"
  shift
done
"""

pytestmark = pytest.mark.skipif(
    BACKEND == "jax", reason="the run on TensorFlow does it for all backends"
)
on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="there is one level alone"
)


def build(folder, compiler):
    """Compiles with this compiler; returns the folder and the report."""
    shutil.copy(ROOT / "setup.py", folder)
    shutil.copytree(
        ROOT / "keras_sasa/kernels",
        folder / "keras_sasa/kernels",
        ignore=shutil.ignore_patterns("*.so", "*.json", "__pycache__"),
    )
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext"]
        + ["--build-lib", "out", "--build-temp", "objects"],
        cwd=folder,
        env={**os.environ, "CC": str(compiler), "CXX": str(compiler)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    built = folder / "out/keras_sasa/kernels"
    return built, build_report.read(built / "_native.json"), result.stderr


def fake(folder, refused):
    path = folder / "compiler"
    path.write_text(FAKE.format(refused=refused))
    path.chmod(0o755)
    return path


@on_x86
def test_a_level_that_the_compiler_lacks_is_left_out(tmp_path):
    folder, report, log = build(tmp_path, fake(tmp_path, "-mavx512f"))
    assert (folder / LIBRARY).is_file()
    cause = f"{tmp_path}/compiler: x.cc:1: error: no -mavx512f"
    assert report == {
        "compiler": "fake 1.0",
        "levels": ["baseline", "x86_64_v3"],
        "left_out": {"x86_64_v4": cause},
        "failure": None,
    }
    assert build_report.failure(report) is None
    assert build_report.describe(report) == (
        f"fake 1.0: baseline, x86_64_v3; without x86_64_v4: {cause}"
    )
    assert "a level of the kernel is left out: " in log


@pytest.mark.parametrize("refused", ["local_attention.cc", "bindings.cc"])
def test_what_cannot_be_compiled_at_all_says_why(
    refused, tmp_path, monkeypatch
):
    folder, report, log = build(tmp_path, fake(tmp_path, refused))
    assert not (folder / LIBRARY).exists()
    cause = f"{tmp_path}/compiler: x.cc:1: error: no {refused}"
    assert (report["failure"], report["levels"]) == (cause, [])
    assert f"is not built: {cause}" in log
    assert build_report.describe(report) == f"failed: fake 1.0: {cause}"
    # An installed package without its library gives this reason.
    monkeypatch.setattr(build_report, "PATH", folder / "_native.json")
    monkeypatch.setattr(kernels, "_path", lambda: None)
    assert f"(fake 1.0: {cause})" in kernels.load.__wrapped__()


def test_a_compiler_that_is_not_there_is_named(tmp_path):
    _, report, _ = build(tmp_path, tmp_path / "no-compiler")
    assert f"{tmp_path}/no-compiler cannot be run: " in report["failure"]


@pytest.mark.large
@on_x86
@pytest.mark.parametrize("lacking, levels", [("-mavx512f", 2), ("-mavx2", 1)])
def test_kernel_without_levels_computes(lacking, levels, tmp_path):
    real = shutil.which("g++") or pytest.skip("there is no C++ compiler")
    compiler = fake(tmp_path, lacking)
    compiler.write_text(
        compiler.read_text().partition("while")[0] + f'exec {real} "$@"\n'
    )
    folder, report, _ = build(tmp_path, compiler)
    assert len(report["levels"]) == levels
    # The tests of the kernel, with this library in the place of the other.
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns("*.so", ".git", "runs")
    )
    shutil.copy(folder / LIBRARY, clone / "keras_sasa/kernels")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_kernel.py"]
        + ["-k", "not sanitizers and not threads"],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout and " skipped" not in result.stdout
