"""Compiles the native kernel; everything else is in setup.cfg.

Without a compiler or the headers of XLA the package is installed all the same
and computes attention another way. What was built, and why the rest was not,
is written to a file that `keras_sasa.kernels` and the doctor read.
"""

import importlib.util
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError

KERNELS = pathlib.Path("keras_sasa/kernels")
# Beside the library; `keras_sasa.kernels` has the same name.
REPORT = "_native.json"

# Nothing that turns NaN, infinity or the order of additions into a guess.
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math"]

MATHEMATICS = ("block_attention.cc", "local_attention.cc")

# The mathematics is compiled once for each; the fastest is chosen when loaded.
LEVELS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    # -march=x86-64-v3 and -v4 in full, because GCC knows these from version 11
    # on only. The instructions are the same.
    LEVELS["x86_64_v3"] = [
        *("-mcx16", "-msahf", "-mpopcnt", "-msse4.2", "-mavx2", "-mbmi"),
        *("-mbmi2", "-mf16c", "-mfma", "-mlzcnt", "-mmovbe", "-mxsave"),
    ]
    LEVELS["x86_64_v4"] = [
        *LEVELS["x86_64_v3"],
        *("-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"),
    ]


def xla_headers():
    """Returns the include folder of the oldest headers of XLA installed.

    A kernel built with older headers runs in newer versions of XLA.
    """
    found = {}
    for name in ("jaxlib", "tensorflow"):
        spec = importlib.util.find_spec(name)
        for location in spec.submodule_search_locations if spec else ():
            include = pathlib.Path(location) / "include"
            header = include / "xla/ffi/api/c_api.h"
            if header.is_file():
                version = re.findall(
                    r"define XLA_FFI_API_M(?:AJO|INO)R (\d+)",
                    header.read_text(),
                )
                found[tuple(map(int, version))] = include
    if not found:
        raise FileNotFoundError(
            "the headers of XLA are in neither jaxlib nor tensorflow"
        )
    return found[min(found)]


def spawn(command, **_):
    """Runs a compiler; its first error becomes the text of the exception."""
    try:
        result = subprocess.run(
            command,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # In English, because the error is searched for.
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise ExecError(f"{command[0]} cannot be run: {error}") from error
    sys.stderr.write(result.stderr)
    if result.returncode:
        lines = result.stderr.splitlines() or ["no message"]
        causes = [
            line
            for line in lines
            # The last line after what a linker says.
            if "error:" in line and not line.startswith("collect2")
        ]
        raise ExecError(f"{command[0]}: {(causes or lines)[0].strip()}")


def version_of(compiler):
    """Returns the first line that a compiler says about itself."""
    try:
        result = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True
        )
    except OSError:
        return f"{compiler} (cannot be run)"
    return (result.stdout.splitlines() or [compiler])[0]


class BuildKernel(build_ext):
    """A shared library, of which some objects have flags of their own."""

    def run(self):
        self.report = {
            "compiler": None,
            "levels": [],
            "left_out": {},
            "failure": None,
        }
        try:
            super().run()
        except Exception as error:
            self._skip(error)
        # An editable installation runs in the folder of the sources.
        folders = [pathlib.Path(self.build_lib) / KERNELS]
        for folder in folders + [KERNELS] * bool(self.inplace):
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.report, indent=1)
            (folder / REPORT).write_text(text, encoding="utf-8")

    def build_extension(self, extension):
        try:
            self.compiler.spawn = spawn
            command = getattr(self.compiler, "compiler_so", None)
            if command:
                self.report["compiler"] = version_of(command[0])
            extension.include_dirs.append(str(xla_headers()))
            for level, flags in LEVELS.items():
                try:
                    objects = self._compile(extension, level, flags)
                except CompileError as error:
                    if level == "baseline":
                        raise
                    self.report["left_out"][level] = str(error)
                    self.warn(f"a level of the kernel is left out: {error}")
                    continue
                extension.extra_objects += objects
                extension.define_macros.append(
                    (f"KERAS_SASA_HAS_{level.upper()}", None)
                )
                self.report["levels"].append(level)
            super().build_extension(extension)
        except Exception as error:
            self._skip(error)

    def _compile(self, extension, level, flags):
        return self.compiler.compile(
            [str(KERNELS / name) for name in MATHEMATICS],
            output_dir=str(pathlib.Path(self.build_temp) / level),
            macros=[("KERAS_SASA_LEVEL", level)],
            extra_postargs=FLAGS + flags,
            depends=extension.depends,
        )

    def copy_extensions_to_source(self):
        try:
            super().copy_extensions_to_source()
        except Exception as error:
            self._skip(error)

    def get_export_symbols(self, extension):
        return []

    def _skip(self, error):
        # The first is the cause of the others.
        self.report["failure"] = self.report["failure"] or str(error)
        self.report["levels"] = []
        self.warn(f"the native kernel of keras_sasa is not built: {error}")


setup(
    cmdclass={"build_ext": BuildKernel},
    ext_modules=[
        Extension(
            "keras_sasa.kernels._native",
            sources=[str(KERNELS / "bindings.cc")],
            depends=[
                str(KERNELS / name)
                for name in (
                    *MATHEMATICS,
                    "block_attention.h",
                    "local_attention.h",
                    "tasks.h",
                    "vectors.h",
                )
            ],
            include_dirs=[str(KERNELS)],
            extra_compile_args=[*FLAGS, "-fvisibility=hidden"],
            optional=True,
        )
    ],
)
