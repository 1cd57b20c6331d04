"""Builds the kernel's test driver with the compiler's sanitizers."""

import concurrent.futures
import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
KERNELS = ROOT / "keras_sasa/kernels"
DRIVERS = ROOT / "tests/kernels"

# Compiled for every instruction set, and once.
MATHEMATICS = [
    *sorted(KERNELS.glob("window/*.cc")),
    *sorted(KERNELS.glob("block/*.cc")),
    *sorted(KERNELS.glob("rows/*.cc")),
    DRIVERS / "exponentials_driver.cc",
]
OTHERS = [*sorted(KERNELS.glob("base/*.cc")), DRIVERS / "kernel_driver.cc"]

FLAGS = (
    *("-std=c++17", "-O1", "-g1", "-fno-math-errno", "-fno-trapping-math"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-psabi"),
    *("-DKERAS_SASA_LEVEL=test", f"-I{ROOT}"),
)


def build(level_flags, cache):
    """Builds the driver for an instruction set, unless it is in the cache.

    Skips the test where no compiler links the sanitizers.

    Args:
        level_flags: Tuple of the flags that select the instruction set.
        cache: `pytest`'s cache. Sources and flags are its key.

    Returns:
        Path of the program.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    cached = cache.mkdir("kernel_driver")
    folder = cached / _digest(compiler)
    for other in set(cached.iterdir()) - {folder}:
        shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    program = folder / f"driver{'_'.join(level_flags)}"
    if program.exists():
        return program
    _check_sanitizers(compiler, folder)
    jobs = [(path, ()) for path in OTHERS]
    jobs += [(path, level_flags) for path in MATHEMATICS]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        objects = [
            pool.submit(_compile, compiler, source, flags, folder)
            for source, flags in jobs
        ]
        objects = [str(future.result()) for future in objects]
    _run([compiler, *FLAGS, *objects], program)
    return program


def _digest(compiler):
    version = subprocess.run([compiler, "--version"], capture_output=True)
    digest = hashlib.sha256(version.stdout + repr(FLAGS).encode())
    for path in (*MATHEMATICS, *OTHERS, *sorted(KERNELS.glob("*/*.h"))):
        digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _check_sanitizers(compiler, folder):
    source = folder / "empty.cc"
    source.write_text("int main() {}\n")
    program = folder / "empty"
    linked = subprocess.run(
        [compiler, *FLAGS, source, "-o", program], capture_output=True
    )
    if linked.returncode or subprocess.run([program]).returncode:
        pytest.skip(f"{compiler} does not link the sanitizers")


def _compile(compiler, source, level_flags, folder):
    name = "_".join([source.parent.name, source.stem, *level_flags])
    target = folder / f"{name}.o"
    if not target.exists():
        _run([compiler, *FLAGS, *level_flags, "-c", source], target)
    return target


def _run(command, target):
    """Runs a compiler; other processes never see half a file."""
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    result = subprocess.run(
        [*command, "-o", partial], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    partial.replace(target)
