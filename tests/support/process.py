"""Runs a program in a process of its own."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
from textwrap import dedent


def _fusion_emitters_are_optional():
    """JAX 0.10 has the flag, 0.12 does not; an unknown flag ends a program."""
    try:
        version = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return True
    return tuple(map(int, version.split(".")[:2])) < (0, 11)


# Flags of XLA. Machine code that is not optimized is made in half the time, and
# fused operations that are not written as MLIR first in half of that.
FASTER_COMPILATION = (
    "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
)
if _fusion_emitters_are_optional():
    FASTER_COMPILATION += " --xla_cpu_use_fusion_emitters=false"


def run(program, *arguments, **environment):
    """Runs Python, on the backend of this process.

    Args:
        program: Source that prints JSON as its last line.
        *arguments: Its `sys.argv[1:]`.
        **environment: Variables to set.

    Returns:
        What it printed, and all that it wrote to the standard error.
    """
    process = _run(program, arguments, environment)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1]), process.stderr


def run_until_killed(program, *arguments, **environment):
    """Runs Python as `run` does and returns its exit code, which is not 0."""
    process = _run(program, arguments, environment)
    assert process.returncode != 0, process.stdout[-3000:]
    return process.returncode


def _run(program, arguments, environment):
    inherited = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    # As users have it; conftest.py switches it off for the other tests.
    inherited.pop("TF_ENABLE_ONEDNN_OPTS", None)
    return subprocess.run(
        [sys.executable, "-c", dedent(program), *map(str, arguments)],
        cwd=pathlib.Path(__file__).parents[2],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
    )
